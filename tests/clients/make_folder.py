"""Make a published folder and what clients must find in it: ``python make_folder.py FOLDER``.

FOLDER/tiny is the model repository of a tiny student, FOLDER/slim that of one that is pruned on text and whose int8
files have word embeddings in 4 bits, FOLDER/encoder that of an encoder of sentences with prompts, FOLDER/tokenizers has
a trimmed tokenizer of each kind. FOLDER/expected.json has the mean-pooled vectors of sentences in tiny and slim,
normalised and with each prompt for the encoder, the folders' least cosine for each precision, and the ids that each
tokenizer gives to texts.
"""

import dataclasses
import json
import math
import runpy
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer

from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerance, Tolerances
from distilrubert.conversion.model_folder import convert
from distilrubert.conversion.parity import default_sentences
from distilrubert.evaluation.tasks.kinds import KINDS
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.importance import Importance, measure_importance
from distilrubert.modeling.sentence_modules import SentenceModules
from distilrubert.modeling.student import Student, build_student, save_student
from distilrubert.modeling.teacher import Teacher, new_teacher
from distilrubert.modeling.tokenizer_files import save_tokenizer, student_tokenizer
from distilrubert.modeling.trimming import count_needed, trim_tokenizer
from distilrubert.modeling.wordpiece import train_wordpiece

MAKERS = runpy.run_path(str(Path(__file__).parents[1] / "sample_tokenizers.py"))["KINDS"]
PROMPTS = {"query": "Кто: ", "document": "Это: "}
# What normalisers rewrite, and what a vocabulary of sentences does not know.
HARD = ["ﬁn ①\u3000и\u0306од", "Смех 😀, 漢字 и ꙮ", "  два  пробела ", "е\u0308ж\tи Å½"]
WORDS = ["Анна", "Петрова", "живёт", "в", "Москве", ",", "да", "!"]
ALL_FILES = ConversionSettings(
    onnx=["fp32", "int8", "int8-avx2", "int8-avx512-vnni", "int8-arm64", "masked-lm-int8"], openvino=["fp32", "int8"]
)
ENCODER_FILES = ALL_FILES.model_copy(update={"onnx": ["fp32", "int8"]})
# Random weights suffer more from 4 bits than those of a real model.
SLIM_TOLERANCE = Tolerances(int8=Tolerance(token_cosine=0.98, pooled_cosine=0.88, top1_agreement=0.8))
SLIM_FILES = ENCODER_FILES.model_copy(update={"embedding_bits": 4, "tolerance": SLIM_TOLERANCE})
# Three of the teacher's four heads. A row of embeddings has a whole block of 64 numbers, and a part of one.
SLIM = StudentArchitecture(layers=2, dim=72, heads=3, hidden_dim=96)
CARD = """\
---
language: ru
license: apache-2.0
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---
# A tiny encoder of sentences
"""


def main(folder: Path) -> None:
    """Write the folder."""
    sentences = default_sentences()
    teacher = new_teacher(
        train_wordpiece(sentences, 300, 64).tokenizer, layers=2, dim=96, heads=4, hidden_dim=128, seed=3
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in teacher.model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if name.endswith("LayerNorm.weight") else 0.15 * noise)
    student = build_student(teacher, StudentArchitecture(layers=2))
    save_student(student, folder / "student")
    convert(folder / "student", folder / "tiny", ALL_FILES, sentences, sentences)
    slim = build_student(teacher, SLIM, importance=_importance_on(teacher, sentences))
    save_student(slim, folder / "slim-student")
    convert(folder / "slim-student", folder / "slim", SLIM_FILES, sentences, sentences)
    encoder = build_student(dataclasses.replace(teacher, model=teacher.model.base_model), StudentArchitecture(layers=2))
    save_student(encoder, folder / "encoder-student")
    prompted = [prompt + sentence for prompt in PROMPTS.values() for sentence in sentences]
    modules = SentenceModules("mean", PROMPTS["query"], PROMPTS["document"])
    convert(folder / "encoder-student", folder / "encoder", ENCODER_FILES, prompted, prompted, modules)
    (folder / "encoder" / "README.md").write_text(CARD, encoding="utf-8")
    # Cut texts are left out: transformers.js cuts off the last special token with the rest.
    length = 64 - max(len(student.tokenizer(prompt).input_ids) for prompt in PROMPTS.values())
    short = [text for text in sentences if len(student.tokenizer(text, verbose=False).input_ids) <= length][:8]
    expected = {
        "sentences": short,
        "vectors": {
            name: [_pooled(each, sentence) for sentence in short] for name, each in (("tiny", student), ("slim", slim))
        },
        "prompts": PROMPTS,
        "prompted_vectors": {
            kind: [_normalised(_pooled(encoder, prompt + sentence)) for sentence in short]
            for kind, prompt in PROMPTS.items()
        },
        "least_cosine": {"fp32": 0.99999, "bf16": 0.999, "int8": 0.97},
        "texts": [*sentences, *HARD],
        "words": WORDS,
        "ids": {kind: _ids(folder / "tokenizers" / kind, kind, sentences) for kind in MAKERS},
    }
    expected["word_ids"] = {kind: _ids_of_words(folder / "tokenizers" / kind) for kind in MAKERS}
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False), encoding="utf-8")


def _importance_on(teacher: Teacher, sentences: list[str]) -> Importance:
    """How much the parts of the teacher change what it predicts on sentences."""
    batch = teacher.tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return measure_importance(teacher.model, [{**batch, "labels": labels}], seed=3)


def _ids(folder: Path, kind: str, sentences: list[str]) -> list[list[int]]:
    """Write a tokenizer that is trimmed to half of the sentences; the ids that it gives to all texts."""
    whole = MAKERS[kind](sentences)
    made = student_tokenizer(trim_tokenizer(whole, count_needed(whole, sentences[::2])))
    save_tokenizer(made, folder)
    ids: list[list[int]] = made([*sentences, *HARD], verbose=False)["input_ids"]
    return ids


def _ids_of_words(folder: Path) -> list[int]:
    """The ids of a sentence in words, as fine-tuning of a tagger gives them."""
    rows = Dataset.from_dict({"tokens": [WORDS], "tags": [[0] * len(WORDS)]})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids: list[int] = KINDS["token-classification"].encode(rows, tokenizer, 64)["input_ids"][0]
    return ids


@torch.inference_mode()
def _pooled(student: Student, sentence: str) -> list[float]:
    inputs = student.tokenizer(sentence, truncation=True, return_tensors="pt")
    vector: list[float] = student.model.base_model(**inputs).last_hidden_state[0].mean(dim=0).tolist()
    return vector


def _normalised(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return [value / length for value in vector]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
