"""From a teacher without a head to a published encoder of sentences."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from distilrubert.conversion.sentence_transformers import write_sentence_transformers_files
from distilrubert.distill.corpus.store import load_corpus
from distilrubert.modeling.sentence_modules import SentenceModules
from distilrubert.modeling.teacher import Teacher, save_teacher
from distilrubert.pipeline.cli import main

library = pytest.importorskip("sentence_transformers")
ONNX = "[fp32]" if importlib.util.find_spec("optimum") else "[]"

RECIPE = """
name: little-encoder
teacher: {model: ./teacher}
corpus: {sources: [{path: talk.txt}], sentences: true, validation: 0.2, max_length: 64}
sentences: {}
student: {layers: 2, vocabulary: {trim: {}}}
distillation:
  weights: {sentence_cosine: 1.0, similarity: 10.0}
  cache_teacher_vectors: true
  learning_rate: 3.0e-3
  max_steps: 30
  epochs: 30
  batch_size: 16
  batches_per_update: 1
  dropout: false
  precision: fp32
conversion:
  onnx: %s
  tolerance:
    bf16: {token_cosine: 0.99, token_cosine_p1: 0.9, pooled_cosine: 0.99}
evaluation: {suite: questions, speed: {sequence_length: 32, texts: 9, starts: 1, rounds: 1, minimum_time_s: 0}}
card: {language: ru, license: mit}
"""


@pytest.fixture(scope="module")
def folder(tiny_teacher: Teacher, sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project: a teacher that pools by its first token and wants prompts, text, a recipe."""
    folder = tmp_path_factory.mktemp("project")
    encoder = dataclasses.replace(tiny_teacher, model=tiny_teacher.model.base_model)
    save_teacher(encoder, folder / "teacher")
    write_sentence_transformers_files(
        folder / "teacher", dim=32, max_length=64, sentences=SentenceModules("cls", "Кто: ", "Это: ")
    )
    (folder / "talk.txt").write_text("\n".join(f"{a} {b}" for a, b in zip(sentences, sentences[7:], strict=False)))
    (folder / "recipe.yaml").write_text(RECIPE % ONNX, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def hub(folder: Path) -> Path:
    assert main(["publish", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")]) == 0
    return folder / "run" / "hub"


def test_the_corpus_has_sentences_with_the_teachers_prompts(hub: Path, folder: Path) -> None:
    corpus = load_corpus(folder / "run" / "corpus")
    assert corpus.manifest["prompts"] == ["Кто: ", "Это: "]
    student = library.SentenceTransformer(str(hub), device="cpu")
    texts = student.tokenizer.batch_decode(list(corpus.train))
    assert {text.split()[1] for text in texts} == {"Кто", "Это"}


def test_the_student_is_published_as_the_teacher_is(hub: Path) -> None:
    model = library.SentenceTransformer(str(hub), device="cpu")
    assert model.prompts == {"query": "Кто: ", "document": "Это: "}
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Normalize"]
    assert model[1].pooling_mode == "cls"
    card = yaml.safe_load((hub / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert card["pipeline_tag"] == "sentence-similarity"
    text = (hub / "README.md").read_text(encoding="utf-8")
    assert "## Vectors of sentences\n\n| Model | questions | Mean of 1 |" in text
    suite = json.loads((hub / "reports" / "suite.json").read_text(encoding="utf-8"))
    assert [row["case"] for row in suite["rows"]] == ["teacher", "student"]
    assert suite["details"]["prompts"]["student"] == {"query": "Кто: ", "document": "Это: "}
    assert main(["verify", str(hub)]) == 0


def test_speed_is_measured_on_held_out_sentences(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speed = json.loads((hub / "reports" / "speed.json").read_text(encoding="utf-8"))
    texts, tokens = speed["details"]["texts"], speed["rows"][0]["tokens_per_text"]
    assert 0 < texts <= 9
    assert 5 < tokens <= 32
    said = f"The inputs are {texts} texts of {tokens:.0f} tokens in the mean, and the time includes the tokenizer."
    assert said in (hub / "README.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["verify", str(hub), "--speed", "--json"]) == 0
    ratios = [found for found in json.loads(capsys.readouterr().out)["statements"] if found["quantity"] == "ratios"]
    assert [(found["verdict"], found["reason"].split(",")[0]) for found in ratios] == [
        ("not checked", "measured on texts")
    ]


def test_the_student_has_learnt_the_teachers_vectors(hub: Path, folder: Path, sentences: list[str]) -> None:
    student, teacher = (library.SentenceTransformer(str(path), device="cpu") for path in (hub, folder / "teacher"))
    found, expected = (model.encode(sentences) for model in (student, teacher))
    curve = json.loads((folder / "run" / "reports" / "training.json").read_text(encoding="utf-8"))["details"]["curves"]
    assert curve[-1]["sentence_cosine"] < 0.5 * curve[0]["sentence_cosine"]
    assert (found * expected).sum(axis=1).mean() > 1 - 2 * curve[-1]["sentence_cosine"]


@pytest.mark.skipif(ONNX == "[]", reason="needs the export packages")
@pytest.mark.export
def test_the_onnx_file_serves_the_same_vectors(hub: Path, sentences: list[str]) -> None:
    torch_model = library.SentenceTransformer(str(hub), device="cpu")
    options = {"file_name": "onnx/model.onnx"}
    onnx_model = library.SentenceTransformer(str(hub), device="cpu", backend="onnx", model_kwargs=options)
    np.testing.assert_allclose(onnx_model.encode(sentences), torch_model.encode(sentences), atol=1e-4)


def test_a_teacher_with_a_module_that_a_student_cannot_have_is_refused_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder / "teacher", tmp_path / "teacher")
    shutil.copy(folder / "talk.txt", tmp_path)
    modules = json.loads((tmp_path / "teacher" / "modules.json").read_text(encoding="utf-8"))
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "teacher" / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    shutil.copy(folder / "recipe.yaml", tmp_path)
    assert main(["distill", str(tmp_path / "recipe.yaml"), "--run-dir", str(tmp_path / "run")]) == 2
    assert "modules.json has a module Dense; allowed: Transformer, Pooling, Normalize" in capsys.readouterr().err
    assert not (tmp_path / "run" / "stages").exists()
