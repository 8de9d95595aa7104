"""Make a published student of each family and what clients must find in it: ``python make_families.py FOLDER``.

FOLDER/TYPE is the model repository of a student whose teacher has this model_type and a trimmed tokenizer of the kind
that people use with it. FOLDER/expected.json has sentences and their mean-pooled vectors, FOLDER/families.json what was
measured on the way. A client that makes the right vectors adds a line to FOLDER/opened.jsonl.
"""

import json
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from optimum.onnxruntime import ORTModelForFeatureExtraction
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.common.derived import derive
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerance, Tolerances
from distilrubert.conversion.model_folder import convert
from distilrubert.conversion.parity import default_sentences
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.checkpoints import read_model_config
from distilrubert.modeling.families import MODEL_TYPES
from distilrubert.modeling.student import build_student, save_student
from distilrubert.modeling.teacher import Teacher, load_teacher, save_teacher
from distilrubert.modeling.trimmed_checkpoint import read_weights, write_trimmed
from distilrubert.modeling.trimming import count_needed, ids_in, trim_tokenizer

TESTS = Path(__file__).parents[1]
MAKERS = runpy.run_path(str(TESTS / "sample_tokenizers.py"))["KINDS"]
make_teacher = runpy.run_path(str(TESTS / "random_teachers.py"))["make_teacher"]
KINDS = {
    "bert": "wordpiece",
    "distilbert": "wordpiece",
    "roberta": "roberta-bpe",
    "xlm-roberta": "unigram",
    "camembert": "unigram",
    "modernbert": "modernbert-bpe",
}
LONGEST = 64
# Widths that are no multiples of anything and sharp random weights: reduced precision has to work, not to be close.
SETTINGS = ConversionSettings(
    onnx=["fp32", "int8"],
    openvino=["fp32", "int8"],
    tolerance=Tolerances(
        bf16=Tolerance(token_cosine=0.99, pooled_cosine=0.99), int8=Tolerance(token_cosine=0.8, pooled_cosine=0.8)
    ),
)
FIGURES = ("maximal_difference", "token_cosine")
LEAST_COSINE = {"fp32": 0.99999, "bf16": 0.99, "int8": 0.9}


def main(folder: Path) -> None:
    """Write the folder."""
    folder.mkdir(parents=True)
    rows, expected = [], {}
    for model_type in MODEL_TYPES:
        with tempfile.TemporaryDirectory() as beside:
            row, expected[model_type] = make_family(model_type, folder, Path(beside))
        rows.append(row)
    Measurements(Environment.capture(), rows).save(folder / "families.json")
    values = {"models": expected, "least_cosine": LEAST_COSINE}
    (folder / "expected.json").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def make_family(model_type: str, folder: Path, beside: Path) -> tuple[Row, dict[str, Any]]:
    """Write FOLDER/TYPE: what was measured, and the vectors that clients must find."""
    sentences = default_sentences()
    whole = make_teacher(model_type, MAKERS[KINDS[model_type]](sentences), max_position_embeddings=LONGEST + 2)
    teacher = trimmed(whole, sentences[::2], beside)
    # Cut texts are left out: transformers.js cuts off the last special token with the rest.
    lengths = map(len, teacher.tokenizer(sentences[::2], verbose=False)["input_ids"])
    short = [text for text, length in zip(sentences[::2], lengths, strict=True) if length <= LONGEST][:6]
    assert len(short) == 6, f"{model_type}: only {len(short)} sentences are short enough"
    exact = build_student(teacher, StudentArchitecture())
    student = build_student(teacher, StudentArchitecture(layers=4))
    save_student(student, beside / "student")
    parity = derive(convert(beside / "student", folder / model_type, SETTINGS, sentences[1::2], sentences[::2]))
    vectors = [pooled(student.model, student.tokenizer, text) for text in short]
    check_optimum(folder / model_type, short, vectors)
    with (folder / "opened.jsonl").open("a", encoding="utf-8") as opened:
        opened.write(json.dumps({"model": model_type, "client": "optimum (ORTModel)"}) + "\n")
    values = {
        "tokenizer": KINDS[model_type],
        "student": type(student.model).__name__,
        "exact_to": largest_difference(teacher.model, teacher.tokenizer, exact.model, exact.tokenizer, short),
        "tokens": len(whole.tokenizer),
        "trimmed_tokens": len(teacher.tokenizer),
        "trimmed_difference": largest_difference(
            whole.model.base_model, whole.tokenizer, teacher.model.base_model, teacher.tokenizer, short
        ),
        "files": {row.case: {name: row.values[name] for name in FIGURES} for row in parity.rows},
    }
    return Row(model_type, values), {"sentences": short, "vectors": vectors}


def trimmed(whole: Teacher, texts: list[str], folder: Path) -> Teacher:
    """The teacher with the tokens that the texts need, by way of files as `distilrubert trim` writes them."""
    save_teacher(whole, folder / "whole")
    config = read_model_config(folder / "whole", whole.name)
    weights = read_weights(folder / "whole", whole.name, config)
    tokenizer = trim_tokenizer(whole.tokenizer, count_needed(whole.tokenizer, texts))
    (folder / "trimmed").mkdir()
    write_trimmed(folder / "whole", weights, config, tokenizer, ids_in(whole.tokenizer, tokenizer), folder / "trimmed")
    return load_teacher(folder / "trimmed")


@torch.inference_mode()
def outputs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[Tensor]:
    """Hidden states, and logits where there is a head, at the real positions of a padded batch."""
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    found = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True)
    last = found.logits if "logits" in found else found.last_hidden_state
    return [tensor[inputs["attention_mask"].bool()] for tensor in (*found.hidden_states, last)]


def largest_difference(
    one: PreTrainedModel,
    its: PreTrainedTokenizerFast,
    other: PreTrainedModel,
    own: PreTrainedTokenizerFast,
    texts: list[str],
) -> float:
    """Of any number that both compute."""
    pairs = zip(outputs(one, its, texts), outputs(other, own, texts), strict=True)
    return max(float((expected_ND - found_ND).abs().max()) for expected_ND, found_ND in pairs)


@torch.inference_mode()
def pooled(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str) -> list[float]:
    """The mean of the last hidden states."""
    states_BLD = model.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state
    vector: list[float] = states_BLD[0].mean(dim=0).tolist()
    return vector


def check_optimum(folder: Path, texts: list[str], vectors: list[list[float]]) -> None:
    """onnxruntime by way of optimum, which the clients' environment does not have, makes the same vectors."""
    model = ORTModelForFeatureExtraction.from_pretrained(folder, subfolder="onnx", file_name="model.onnx")
    tokenizer = load_teacher(folder).tokenizer
    for text, vector in zip(texts, vectors, strict=True):
        hidden_LD = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
        np.testing.assert_allclose(hidden_LD.mean(axis=0), vector, atol=1e-4, rtol=1e-3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
