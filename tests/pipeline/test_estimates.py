"""What a dry run says that training takes."""

import dataclasses
import itertools
import time
from types import SimpleNamespace

import pytest
import torch
import yaml
from transformers import BertConfig, DistilBertConfig

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import write_json
from distilrubert.pipeline import estimates
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.engine import StageState, states_of
from distilrubert.pipeline.estimates import Estimate, ModelSize, estimate
from distilrubert.pipeline.gpus import Gpus
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.stages import stages_of
from distilrubert.pipeline.task_rows import load_task_rows

from ..noun_tasks import write_tasks
from .example_recipes import ROOT


def state_of(run: Run, stage: str) -> StageState:
    return next(state for state in states_of(run, stages_of(run)) if state.stage.name == stage)


def estimated(folder, *overrides: str, stage: str = "student", gpus: str | None = None) -> Estimate:
    run = Run(load_recipe(ROOT / "recipes/demo.yaml", overrides), folder / "run")
    return estimate(run, state_of(run, stage), Gpus.parse(gpus) if gpus else None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="other products are timed on a GPU")
def test_the_estimate_is_of_an_idle_machine(tmp_path, monkeypatch):
    # Products take a second each, because of what else is running, and one of them a hundredth.
    durations = itertools.chain([1.0, 0.01], itertools.repeat(1.0))
    ticks = itertools.accumulate(itertools.chain.from_iterable((0.0, duration) for duration in durations))
    clock = SimpleNamespace(perf_counter=lambda: next(ticks), monotonic=time.monotonic)
    monkeypatch.setattr(estimates, "time", clock)
    found = estimated(tmp_path, stage="teacher")
    assert found.seconds == pytest.approx(found.operations / (2 * estimates.CPU_PRODUCT_SIZE**3 / 0.01))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_torch_made_for_gpus_measures_on_the_cpu_of_a_machine_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    assert estimated(tmp_path, "distillation.max_steps=10").operations


@pytest.mark.parametrize(
    ("teacher", "said"), [("./missing", "missing: there is no such folder"), ("my teacher", "nor a well-formed Hub id")]
)
def test_a_teacher_that_is_mistyped(teacher, said, tmp_path):
    with pytest.raises(UserError, match=said):
        estimated(tmp_path, "teacher.pretrain=null", f"teacher.model={teacher}", "distillation.max_steps=10")


def test_the_weights_that_multiply_every_token_and_those_of_the_vocabulary():
    # Attention 4 × (8² + 8), feed-forward 2 × 8 × 16 + 16 + 8, two norms of 16.
    layer = 4 * 72 + 280 + 32
    sizes = {"num_hidden_layers": 3, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    teacher = ModelSize.of(BertConfig(vocab_size=100, max_position_embeddings=16, **sizes))
    student = ModelSize.of(DistilBertConfig(vocab_size=50, dim=8, n_heads=2, hidden_dim=16, n_layers=2))
    assert (teacher.layers, teacher.output) == (3 * layer, 800)
    assert (student.layers, student.output) == (2 * layer, 400)


def test_the_operations_are_those_of_the_products(tmp_path):
    student = ["student.layers=1", "student.initialise_from=[0]", "distillation.max_steps=10"]
    steps = [*student, "distillation.batches_per_update=2", "distillation.batch_tokens=1000"]
    # The demo's teacher: two layers of width 128 and 512 units, of 8,000 tokens or fewer.
    run = Run(load_recipe(ROOT / "recipes/demo.yaml"), tmp_path / "run")
    pretrain = run.recipe.teacher.pretrain
    assert pretrain is not None
    layer = 12 * pretrain.dim**2 + 13 * pretrain.dim
    assert pretrain.hidden_dim == 4 * pretrain.dim
    output = pretrain.vocabulary_size * pretrain.dim
    everywhere = estimated(tmp_path, *steps, "distillation.kl_positions=all")
    assert everywhere.tokens == 20_000
    assert everywhere.operations == 20_000 * (6 * (layer + output) + 2 * (pretrain.layers * layer + output))
    cosine = estimated(tmp_path, *steps, "distillation.weights={cosine: 1.0}")
    assert cosine.operations == 20_000 * (6 * layer + 2 * pretrain.layers * layer)


def test_a_batch_of_so_many_examples_has_the_mean_length_of_the_corpus(tmp_path):
    steps = ("distillation.max_steps=10", "distillation.batches_per_update=1", "distillation.batch_size=8")
    run = Run(load_recipe(ROOT / "recipes/demo.yaml", steps), tmp_path / "run")
    most = estimate(run, state_of(run, "student")).tokens
    assert most == 10 * min(8 * run.recipe.corpus.max_length, run.recipe.distillation.batch_tokens)
    run.corpus.mkdir(parents=True)
    write_json(run.corpus / "manifest.json", {"total": {"train_tokens": 12_000, "train_sequences": 1_000}})
    assert estimate(run, state_of(run, "student")).tokens == 10 * 8 * 12
    assert estimate(run, state_of(run, "student"), has_corpus=False).tokens == most


def test_the_size_of_a_new_corpus_is_that_of_its_files(tmp_path):
    (tmp_path / "texts.txt").write_text("а" * 4000, encoding="utf-8")
    source = f"path: {tmp_path / 'texts.txt'}, weight: 3"
    changes = ("distillation.max_steps=null", "distillation.epochs=2")
    run = Run(load_recipe(ROOT / "recipes/demo.yaml", [*changes, f"corpus.sources=[{{{source}}}]"]), tmp_path / "run")
    assert estimate(run, state_of(run, "student")).tokens == 2 * 3 * 8000 / 8
    unknown = [*changes, f"corpus.sources=[{{{source}}}, {{dataset: me/texts}}]"]
    run = Run(load_recipe(ROOT / "recipes/demo.yaml", unknown), tmp_path / "other")
    assert estimate(run, state_of(run, "student")).tokens is None, "nobody tells the size of a data set"


def test_gpus_that_are_named_share_the_work(tmp_path):
    steps = ("distillation.max_steps=100", "distillation.batches_per_update=8")
    one, eight = (estimated(tmp_path, *steps, gpus=gpus) for gpus in ("h100", "8xH100"))
    assert one.operations is not None
    assert one.seconds == one.operations / (0.3 * 989e12)
    assert eight == dataclasses.replace(one, seconds=one.seconds / 8)
    with pytest.raises(UserError, match="batches_per_update: 8 is no multiple of the number of processes, 3"):
        estimated(tmp_path, *steps, gpus="3xH100")


def test_training_for_a_task_is_told_from_the_texts(tmp_path, tiny_teacher_folder):
    """Of 40 rows 10 are the test part, and 6 of 8 that keep their labels are trained on."""
    write_tasks(tmp_path, number=40, validation_share=0.25)
    finetuning = {"learning_rates": [1e-3], "epochs": 3, "train_limit": 8, "batches_per_update": 2}
    recipe = {
        "name": "estimated",
        "teacher": {"model": str(tiny_teacher_folder)},
        "student": {"layers": 2},
        "task": {
            "name": str(tmp_path / "nouns.yaml"),
            "finetuning": finetuning,
            "distillation": {"learning_rates": [2e-3, 4e-3], "epochs": 2, "batches_per_update": 2},
        },
        "card": {"language": "ru", "license": "mit"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    run = Run(load_recipe(path), tmp_path / "run")
    rows = load_task_rows(run, unlabelled=True)
    labelled, others = (
        sum(len(text.encode()) / 8 + 2 for text in part["text"]) for part in (rows.train, rows.unlabelled)
    )
    teacher, alone, student = (estimate(run, state_of(run, f"task-{name}")) for name in ("teacher", "alone", "student"))
    assert teacher.tokens == pytest.approx(3 * labelled)
    # The student alone is tried at the rates of distillation, too.
    assert alone.tokens == pytest.approx(3 * 3 * labelled)
    assert student.tokens == pytest.approx(2 * 2 * (labelled + others))
    # The teacher, which is twice as deep, is asked once.
    assert student.operations == pytest.approx(
        teacher.operations * (0.5 * 4 + 2 / 6) * (labelled + others) / (3 * labelled)
    )
    assert student.memory == alone.memory
    assert student.disk == alone.disk * 2 / 3
    trimmed = Run(load_recipe(path, ["student.vocabulary={trim: {}}"]), tmp_path / "run")
    unknown = estimate(trimmed, state_of(trimmed, "task-student"))
    assert (unknown.memory, unknown.disk, unknown.tokens) == (None, None, student.tokens)
    gpus = estimate(run, state_of(run, "task-student"), Gpus.parse("2xH100"))
    assert gpus.seconds == pytest.approx(gpus.operations / (2 * 0.3 * 989e12))
    with pytest.raises(
        UserError, match=r"task.distillation.batches_per_update: 2 is no multiple of the number of proc"
    ):
        estimate(run, state_of(run, "task-student"), Gpus.parse("3xH100"))


@pytest.mark.parametrize("text", ["8xGTX", "0xH100", "x", "8 H100", "", "-1xH100"])
def test_gpus_that_are_not_known(text):
    with pytest.raises(UserError, match=r"--gpus .*: is no number of GPUs, for example 8xH100; known are A10, A100"):
        Gpus.parse(text)


def test_gpus_are_for_a_dry_run_alone(capsys):
    assert main(["publish", "recipes/demo.yaml", "--gpus", "H100"]) == 2
    assert capsys.readouterr().err.endswith("--gpus: estimates what a run would take; add --dry-run\n")
