"""The code that a card shows does what it says, on a tiny model."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.model_folder import convert
from distilrubert.model_card.card import write_card
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.sentence_modules import SentenceModules
from distilrubert.modeling.student import build_student, save_student
from distilrubert.modeling.teacher import Teacher
from tests.model_card.example_run import RECIPE, REPORTS, write_run

NAME = RECIPE["name"]


def _publish(
    tmp_path: Path, teacher: Teacher, sentences: list[str], encoder: SentenceModules | None = None, **conversion: Any
) -> str:
    """A run with a real model; its card, and the model under the name that the card calls it by."""
    save_student(build_student(teacher, StudentArchitecture(layers=2)), tmp_path / "student")
    recipe = {**RECIPE, "publish": {"repo_id": None}}
    run = write_run(tmp_path / "run", recipe, without=(*REPORTS, "config.json", "model.safetensors"))
    # Predictions of random weights are close to each other: bf16, where the CPU has it, changes more of them. The
    # bounds are those of tests/conversion.
    loose = {"bf16": {"token_cosine": 0.998, "token_cosine_p1": 0.99, "pooled_cosine": 0.998, "top1_agreement": 0.95}}
    settings = ConversionSettings(**conversion, tolerance=loose)
    parity = convert(tmp_path / "student", tmp_path / NAME, settings, sentences, sentences, encoder)
    parity.save(run / "reports" / "parity.json")
    (run / "hub").rename(run / "unused")
    (tmp_path / NAME).rename(run / "hub")
    card = write_card(run).read_text(encoding="utf-8")
    (run / "hub").rename(tmp_path / NAME)
    return card


def _blocks(card: str) -> dict[str, list[str]]:
    """The Python blocks by the heading that they stand under."""
    sections = re.split(r"^### ", card.split("## Files")[0], flags=re.MULTILINE)[1:]
    return {section.splitlines()[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL) for section in sections}


def _run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def test_transformers_blocks_run(
    tmp_path: Path,
    tiny_teacher: Teacher,
    sentences: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card = _publish(tmp_path, tiny_teacher, sentences, onnx=[])
    monkeypatch.chdir(tmp_path)
    fill_mask, hidden_states = _blocks(card)["Transformers"]
    _run(fill_mask)
    assert len(capsys.readouterr().out.splitlines()) == 5
    names = _run(hidden_states)
    assert names["hidden_states"].shape[0] == len(names["sentences"])
    assert names["hidden_states"].shape[2] == tiny_teacher.model.config.hidden_size


@pytest.mark.export
def test_onnx_and_sentence_transformers_blocks_run(
    tmp_path: Path, tiny_teacher: Teacher, sentences: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    card = _publish(tmp_path, tiny_teacher, sentences, onnx=["fp32"])
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(card)
    assert list(blocks) == ["Transformers", "ONNX Runtime", "Sentence Transformers"]
    truth = _run(blocks["Transformers"][1])
    onnx = _run(blocks["ONNX Runtime"][0])
    torch.testing.assert_close(onnx["hidden_states"], truth["hidden_states"], atol=1e-4, rtol=0)
    embeddings = _run(blocks["Sentence Transformers"][0])["embeddings"]
    assert embeddings.shape == (2, tiny_teacher.model.config.hidden_size)
    (said,) = re.findall(r"On ONNX Runtime, add `(.*)`", card)
    on_onnx = eval(f"SentenceTransformer(name, {said})", {"SentenceTransformer": SentenceTransformer, "name": NAME})
    torch.testing.assert_close(
        torch.tensor(on_onnx.encode(truth["sentences"])), torch.tensor(embeddings), atol=1e-4, rtol=0
    )


@pytest.mark.export
def test_blocks_of_files_that_fill_masks_run(
    tmp_path: Path,
    tiny_teacher: Teacher,
    sentences: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card = _publish(tmp_path, tiny_teacher, sentences, onnx=["fp32"], openvino=["fp32"], task="fill-mask")
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(card)
    guesses = {}
    for heading in ("Transformers", "ONNX Runtime", "OpenVINO"):
        _run(blocks[heading][0])
        guesses[heading] = [line.rpartition(" ")[0] for line in capsys.readouterr().out.splitlines()]
    assert len(guesses["Transformers"]) == 5
    assert guesses["ONNX Runtime"] == guesses["Transformers"]
    # In bf16, where the CPU has it, guesses that are close may change places.
    assert len({*guesses["OpenVINO"]} & {*guesses["Transformers"]}) >= 3
    assert "return `logits` over the vocabulary" in card
    assert "last_hidden_state" not in "".join(blocks["ONNX Runtime"] + blocks["OpenVINO"])
    # Sentence vectors are in the checkpoint alone.
    assert "On ONNX Runtime, add" not in card


@pytest.mark.parametrize("prompted", [True, False])
def test_blocks_of_an_encoder_of_sentences_run(
    tmp_path: Path, tiny_teacher: Teacher, sentences: list[str], monkeypatch: pytest.MonkeyPatch, prompted: bool
) -> None:
    pytest.importorskip("sentence_transformers")
    encoder = SentenceModules("mean", "Кто: ", "Это: ") if prompted else SentenceModules()
    card = _publish(tmp_path, tiny_teacher, sentences, encoder, onnx=[])
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(card)
    assert list(blocks) == ["Sentence Transformers", "Transformers"]
    names = _run(blocks["Sentence Transformers"][0])
    torch.testing.assert_close(names["similarities"].diagonal(), torch.ones(2))
    if prompted:
        assert _run(blocks["Sentence Transformers"][1])["scores"].shape == (1, 2)
        assert "`Кто: ` before a query, `Это: ` before a document." in card
    metadata = ModelCard(card).data
    assert (metadata.pipeline_tag, metadata.library_name) == ("sentence-similarity", "sentence-transformers")
    assert set(metadata.widget[0]) == {"source_sentence", "sentences"}
    assert "is an encoder of sentences for Russian" in card
    assert "pipeline(" not in card
    assert "not trained on sentence pairs" not in card
