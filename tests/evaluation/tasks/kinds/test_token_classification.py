from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, RobertaTokenizerFast

from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks.finetuning import finetune
from distilrubert.evaluation.tasks.kinds.token_classification import TOKEN_CLASSIFICATION
from distilrubert.evaluation.tasks.task import TaskDefinition, TaskFiles
from distilrubert.evaluation.tasks.task_data import TaskRows
from distilrubert.modeling.teacher import Teacher

from ....sample_tokenizers import modernbert_bpe

CLASSES = ["O", "B-PET", "I-PET"]
PETS = {"кот": [1], "собака": [1], "ёжик": [1]}


def sentence(index: int) -> dict[str, list[str] | list[int]]:
    fillers = ["вчера", "дома", "летом", "опять", "сегодня"]
    pet = list(PETS)[index % 3]
    tokens = [fillers[index % 5], fillers[index // 5 % 5], fillers[index // 3 % 5]]
    tags = [0, 0, 0]
    tokens.insert(index % 4, pet)
    tags.insert(index % 4, 1)
    return {"tokens": tokens, "tags": tags}


ROWS = Dataset.from_list([sentence(index) for index in range(100)])


def test_words_are_read_as_in_running_text(any_tokenizer: PreTrainedTokenizerFast) -> None:
    words = ["Кот", "спит", "на", "окне"]
    rows = Dataset.from_dict({"tokens": [words], "tags": [[1, 0, 0, 2]]})
    features = TOKEN_CLASSIFICATION.encode(rows, any_tokenizer, 64)
    assert features["input_ids"][0] == any_tokenizer(" ".join(words))["input_ids"]
    assert [label for label in features["labels"][0] if label != -100] == [1, 0, 0, 2]


def test_the_tokenizer_of_robertas_own_class_reads_words(sentences: list[str], tmp_path: Path) -> None:
    """It refuses them unless it would put the spaces before them."""
    engine = modernbert_bpe(sentences).backend_tokenizer
    engine.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    engine.model.save(str(tmp_path))
    tokenizer = RobertaTokenizerFast(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    words = ["Кот", "спит", "на", "окне"]
    rows = Dataset.from_dict({"tokens": [words], "tags": [[1, 0, 0, 2]]})
    features = TOKEN_CLASSIFICATION.encode(rows, tokenizer, 64)
    assert features["input_ids"][0] == tokenizer(" ".join(words))["input_ids"]
    assert tokenizer.add_prefix_space is False


def test_the_first_token_of_a_word_carries_its_tag(tiny_teacher: Teacher) -> None:
    rows = Dataset.from_dict({"tokens": [["электрификация", "кот"]], "tags": [[2, 1]]})
    features = TOKEN_CLASSIFICATION.encode(rows, tiny_teacher.tokenizer, 32)
    labels = features["labels"][0]
    pieces = len(tiny_teacher.tokenizer.tokenize("электрификация"))
    assert pieces > 1
    assert labels[:2] == [-100, 2]
    assert labels[2 : pieces + 1] == [-100] * (pieces - 1)
    assert [label for label in labels if label != -100] == [2, 1]
    assert labels[-1] == -100


def test_decoding_the_true_tags_gives_them_back(tiny_teacher: Teacher) -> None:
    features = TOKEN_CLASSIFICATION.encode(ROWS, tiny_teacher.tokenizer, 32)
    order = np.random.default_rng(0).permutation(len(features))
    features = features.select(order)
    logits = np.full((len(features), max(features["length"]), 3), -100.0)
    for row, labels in enumerate(features["labels"]):
        for position, label in enumerate(labels):
            logits[row, position] = np.eye(3)[max(label, 0)]
    predictions, references = TOKEN_CLASSIFICATION.decode(ROWS, features, logits, CLASSES)
    assert predictions == references
    assert references == [[CLASSES[tag] for tag in tags] for tags in ROWS["tags"]]


def test_words_cut_off_count_as_outside(tiny_teacher: Teacher) -> None:
    rows = Dataset.from_dict({"tokens": [["да"] * 20], "tags": [[1] * 20]})
    features = TOKEN_CLASSIFICATION.encode(rows, tiny_teacher.tokenizer, 10)
    logits = np.tile(np.eye(3)[1], (1, features["length"][0], 1))
    predictions, references = TOKEN_CLASSIFICATION.decode(rows, features, logits, CLASSES)
    seen = sum(label != -100 for label in features["labels"][0])
    assert 0 < seen < 20
    assert predictions == [["B-PET"] * seen + ["O"] * (20 - seen)]
    assert references == [["B-PET"] * 20]


def test_words_without_a_piece_leave_the_others_in_place(tiny_teacher: Teacher) -> None:
    rows = Dataset.from_dict({"tokens": [["да", "\u200b", "кот", "", "дома", "ёжик"]], "tags": [[0, 0, 1, 0, 0, 1]]})
    features = TOKEN_CLASSIFICATION.encode(rows, tiny_teacher.tokenizer, 32)
    labels = np.array(features["labels"][0])
    logits = np.eye(3)[np.maximum(labels, 0)][None]
    assert (labels != -100).sum() == 4
    predictions, references = TOKEN_CLASSIFICATION.decode(rows, features, logits, CLASSES)
    assert predictions == references == [["O", "O", "B-PET", "O", "O", "B-PET"]]


@pytest.mark.parametrize("folder", ["teacher_folder", "student_folder"])
def test_tags_can_be_learnt(folder: str, request: pytest.FixtureRequest) -> None:
    task = TaskDefinition(
        name="pets",
        title="Pets",
        kind="token-classification",
        files=TaskFiles(train="unused"),
        labels=CLASSES,
        test_share=0.5,
        metrics=["span_f1"],
        licence="CC0-1.0",
        source="here",
    )
    rows = TaskRows(ROWS.select(range(60)), ROWS.select(range(60, 80)), ROWS.select(range(80, 100)))
    settings = FinetuningSettings(epochs=6, patience=6, batch_size=8, precision="fp32")
    model_folder: Path = request.getfixturevalue(folder)
    assert finetune(model_folder, task, rows, settings, learning_rate=3e-3, seed=1)["test"]["span_f1"] >= 0.9
