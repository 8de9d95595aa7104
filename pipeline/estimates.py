"""What a run would take: rough figures for `publish --dry-run`, each from what is at hand, or none.

Training takes the speed that an earlier training report of the run has measured. Without one, it is the arithmetic of
the matrix products divided by the speed of a product on this machine, which is right within a factor of two or three;
for GPUs that are named, by a share of the speed that their makers state. Other stages take as long as they last did in
this run directory.
"""

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any, Self

import torch
from transformers import AutoModelForMaskedLM, PretrainedConfig

from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import read_json
from distilrubert.common.training.training_settings import OptimizationSettings, check_batches
from distilrubert.distill.corpus.sources import identities_of
from distilrubert.distill.distillation_settings import DistillationSettings, MaskedTrainingSettings
from distilrubert.distill.losses.objective import positive_weights, predicting
from distilrubert.modeling.architecture import student_config
from distilrubert.modeling.downloads import is_described_here
from distilrubert.modeling.heads import layers_of
from distilrubert.pipeline.commits import commit_of, pinned_task
from distilrubert.pipeline.engine import StageState
from distilrubert.pipeline.gpus import Gpus
from distilrubert.pipeline.recipe import Recipe
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.stage_folders import StageFolders
from distilrubert.pipeline.starting_student import starting_config
from distilrubert.pipeline.student_vocabulary import teacher_config
from distilrubert.pipeline.task_rows import load_task_rows, settings_of

FP32_BYTES = 4
# Of a trained weight: itself, its gradient and two moments; a checkpoint has no gradient.
TRAINED, SAVED = 4, 3
# UTF-8 of Russian text in WordPiece tokens; compressed files hold more.
BYTES_PER_TOKEN = 8
# Before and behind a text.
SPECIAL_TOKENS = 2
CPU_PRODUCT_SIZE, GPU_PRODUCT_SIZE, MEASURING_S = 256, 4096, 0.5


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a stage would take; what cannot be told is None.

    Attributes:
        seconds: time.
        memory: bytes, weights and optimiser of one process without activations.
        disk: bytes.
        tokens: that are trained on, repetitions included.
        operations: floating-point operations of the matrix products of training.
    """

    seconds: float | None = None
    memory: int | None = None
    disk: int | None = None
    tokens: float | None = None
    operations: float | None = None


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """The weights of a masked language model.

    Attributes:
        parameters: all of them.
        layers: those of the transformer layers, each of which multiplies every token.
        output: those of the product with the vocabulary, for tokens that are predicted.
    """

    parameters: int
    layers: int
    output: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> Self:
        """The size of a model of this configuration; nothing is allocated."""
        with torch.device("meta"):
            model = AutoModelForMaskedLM.from_config(config)
        layers = sum(parameter.numel() for parameter in layers_of(model).parameters())
        return cls(int(model.num_parameters()), layers, model.get_input_embeddings().weight.numel())


def estimate(run: Run, state: StageState, gpus: Gpus | None = None, *, has_corpus: bool = True) -> Estimate:
    """What performing a stage would take, on this machine or on `gpus`.

    Args:
        run: the run.
        state: of the stage.
        gpus: None: this machine.
        has_corpus: whether the corpus that is in the run directory stays.

    Raises:
        UserError: if an update cannot be divided among the GPUs.
    """
    stage, folders = state.stage.name, StageFolders(run.folder)
    if stage == "student":
        tokens = _tokens(run, run.recipe.distillation, has_corpus=has_corpus)
        student, teacher = _student_config(run), _teacher_config(run)
        found = _training(run, run.recipe.distillation, "training", student, teacher, tokens, gpus)
        return _without_trimmed(run.recipe, found)
    if stage in ("task-teacher", "task-alone", "task-student"):
        return _task_training(run, stage, gpus)
    if stage == "teacher" and run.recipe.teacher.pretrain:
        tokens = _tokens(run, run.recipe.teacher.pretrain, has_corpus=has_corpus)
        return _training(run, run.recipe.teacher.pretrain, "pretraining", _teacher_config(run), None, tokens, gpus)
    return Estimate(next((folder.seconds for folder in folders.all(stage) if folder.is_complete), None))


def estimate_student(recipe: Recipe, teacher: PretrainedConfig, corpus_tokens: float | None) -> Estimate:
    """What distilling the student of a recipe would take on this machine, before there is a run.

    Args:
        recipe: the recipe.
        teacher: the configuration of its teacher.
        corpus_tokens: tokens of the corpus; None where that is not known.
    """
    settings = recipe.distillation
    tokens = None if corpus_tokens is None else settings.epochs * corpus_tokens
    return _without_trimmed(recipe, _cost(settings, student_config(recipe.student, teacher), teacher, tokens))


def _without_trimmed(recipe: Recipe, found: Estimate) -> Estimate:
    """How many tokens are left, and with them most of the weights, shows when the vocabulary is trimmed."""
    own = recipe.student.own_vocabulary()
    return dataclasses.replace(found, memory=None, disk=None) if own and own.trim else found


def _training(
    run: Run,
    settings: MaskedTrainingSettings,
    report: str,
    trained: PretrainedConfig | None,
    teacher: PretrainedConfig | None,
    tokens: float,
    gpus: Gpus | None,
) -> Estimate:
    if gpus:
        settings.check_processes("distillation" if report == "training" else "teacher.pretrain", gpus.number)
    measured = None if gpus else _measured_tokens_per_s(run, report)
    return _cost(settings, trained, teacher, tokens, measured, gpus)


def _task_training(run: Run, stage: str, gpus: Gpus | None) -> Estimate:
    """What fine-tuning or distilling on a task takes, if no run ends early, with all learning rates.

    Nothing is told where the data is on the Hub: it would have to be downloaded.
    """
    task, is_taught = settings_of(run), stage == "task-student"
    settings = task.distillation if is_taught else task.alone if stage == "task-alone" else task.finetuning
    if gpus:
        check_batches("task.distillation" if is_taught else "task.finetuning", settings.batches_per_update, gpus.number)
    teacher = _teacher_config(run)
    trained = teacher if stage == "task-teacher" else _student_config(run)
    if trained is None or pinned_task(run).dataset:
        return Estimate()
    size, rates = ModelSize.of(trained), len(settings.learning_rates)
    once = _tokens_of_task(run, unlabelled=is_taught)
    tokens = once * settings.epochs * rates
    operations = 6 * size.layers * tokens
    if is_taught and teacher:
        operations += 2 * ModelSize.of(teacher).layers * once
    measured = None if gpus else _measured_tokens_per_s(run, stage)
    speed = gpus.operations_per_s if gpus else _operations_per_s()
    found = Estimate(
        tokens / measured if measured else operations / speed,
        FP32_BYTES * TRAINED * size.parameters,
        FP32_BYTES * (SAVED + 1) * size.parameters * rates,
        tokens,
        operations,
    )
    return found if stage == "task-teacher" else _without_trimmed(run.recipe, found)


def _tokens_of_task(run: Run, *, unlabelled: bool) -> float:
    """Tokens of the rows that a model learns from, by the bytes of their texts."""
    task, rows = pinned_task(run), load_task_rows(run, unlabelled=unlabelled)

    def tokens(row: Mapping[str, Any]) -> float:
        texts = (row[column] for column in task.task_kind.text_columns)
        size = sum(len(("".join(text) if isinstance(text, list) else text).encode()) for text in texts)
        return min(size / BYTES_PER_TOKEN + SPECIAL_TOKENS, task.max_length)

    return sum(tokens(row) for part in (rows.train, rows.unlabelled) for row in part or ())


def _cost(
    settings: MaskedTrainingSettings,
    trained: PretrainedConfig | None,
    teacher: PretrainedConfig | None,
    tokens: float | None,
    measured: float | None = None,
    gpus: Gpus | None = None,
) -> Estimate:
    """What training takes that reads so many tokens; `measured` is its speed in tokens a second, if that is known."""
    if trained is None:
        return Estimate(tokens / measured if tokens and measured else None, tokens=tokens or None)
    size = ModelSize.of(trained)
    frozen = ModelSize.of(teacher) if teacher else None
    operations = tokens * _operations_per_token(settings, size, frozen) if tokens else None
    seconds = None
    if tokens and measured:
        seconds = tokens / measured
    elif operations:
        seconds = operations / (gpus.operations_per_s if gpus else _operations_per_s())
    return Estimate(
        seconds,
        FP32_BYTES * (TRAINED * size.parameters + (frozen.parameters if frozen else 0)),
        FP32_BYTES * size.parameters * (SAVED * settings.keep_checkpoints + 1),
        tokens or None,
        operations,
    )


def _operations_per_token(settings: MaskedTrainingSettings, trained: ModelSize, teacher: ModelSize | None) -> float:
    """Operations of the products with weights: two a weight and token forward, four backward.

    The products inside the attention are left out; they are a tenth of the rest at 512 tokens of width 768.
    """
    predicted = settings.masking.probability
    if isinstance(settings, DistillationSettings):
        predicted = _predicted_share(settings)
    layers = 8 if settings.gradient_checkpointing else 6
    operations = layers * trained.layers + 6 * predicted * trained.output
    if teacher:
        passes = 1 / settings.epochs if getattr(settings, "cache_teacher_vectors", False) else 1
        operations += 2 * passes * (teacher.layers + predicted * teacher.output)
    return operations


def _predicted_share(settings: DistillationSettings) -> float:
    """The share of tokens whose predictions are computed."""
    if not predicting(positive_weights(settings)):
        return 0.0
    return 1.0 if settings.kl_positions == "all" else settings.masking.probability


def _tokens(run: Run, settings: OptimizationSettings, *, has_corpus: bool) -> float:
    """Tokens that training reads, as far as the corpus or the number of updates tells; 0 if nothing does."""
    manifest = run.corpus / "manifest.json"
    total = read_json(manifest)["total"] if has_corpus and manifest.exists() else None
    corpus = total["train_tokens"] if total else _tokens_in_files(run)
    # A batch of so many examples has the mean length of the corpus, where that is known.
    length = total["train_tokens"] / total["train_sequences"] if total else run.recipe.corpus.max_length
    batch = min(settings.batch_tokens, (settings.batch_size or math.inf) * length)
    of_steps = batch * settings.batches_per_update * (settings.max_steps or 0)
    return min((tokens for tokens in (of_steps, corpus * settings.epochs) if tokens), default=0)


def _tokens_in_files(run: Run) -> float:
    """Tokens in the files of the corpus, by their size and weight; 0 where it has none, or a data set of the Hub."""
    sources = run.recipe.corpus.sources
    if any(source.dataset for source in sources):
        return 0.0
    sizes = (source.weight * file["bytes"] for source in sources for file in identities_of(source))
    return float(sum(sizes)) / BYTES_PER_TOKEN


def _measured_tokens_per_s(run: Run, report: str) -> float | None:
    path = run.reports / f"{report}.json"
    if not path.exists():
        found = StageFolders(run.folder).folder.glob(f"*/reports/{report}.json")
        path = max(found, key=lambda found: found.stat().st_mtime_ns, default=path)
    return Measurements.load(path).rows[0].values["tokens_per_s"] if path.exists() else None


def _operations_per_s() -> float:
    """Floating-point operations a second of a matrix product in fp32 on this machine.

    The fastest of many counts: others take up to thirty times as long when something else is running.
    """
    device, size = ("cuda", GPU_PRODUCT_SIZE) if torch.cuda.is_available() else ("cpu", CPU_PRODUCT_SIZE)
    matrix = torch.randn(size, size, device=device)
    fastest, end = math.inf, time.monotonic() + MEASURING_S
    while time.monotonic() < end:
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest


def _teacher_config(run: Run) -> PretrainedConfig | None:
    """The teacher's configuration, where it has not to be downloaded."""
    teacher = run.recipe.teacher
    if teacher.model is None:
        return teacher_config(run)
    return teacher_config(run) if is_described_here(teacher.model, teacher.revision) else None


def _student_config(run: Run) -> PretrainedConfig | None:
    start = run.recipe.student.start_from
    if start:
        return starting_config(run) if is_described_here(start, commit_of(run, start)) else None
    teacher = _teacher_config(run)
    return student_config(run.recipe.student, teacher) if teacher else None
