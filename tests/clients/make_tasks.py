"""Make models of tasks and what clients must find in them: ``python make_tasks.py FOLDER``.

FOLDER/classifier, several and tagger are what ``distilrubert finetune`` writes of a tiny student.
FOLDER/expected.json has inputs, and for each of them what the pipeline of transformers answers here.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml
from transformers import pipeline

from distilrubert.conversion.parity import default_sentences
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student, save_student
from distilrubert.modeling.teacher import new_teacher
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline.cli import main as distilrubert

NOUNS = {"animal": ["кот", "собака"], "food": ["хлеб", "чай"]}
FILLERS = ["вчера", "сегодня", "завтра", "дома", "летом"]
COMMON = {"test_share": 0.2, "validation_share": 0.2, "max_length": 32, "licence": "CC0-1.0", "source": "these tests"}
PROTOCOL = ["learning_rates=[0.003]", "batch_size=8", "precision=fp32", "epochs=6", "patience=6", "dropout=0.0"]
# Tiny models are close to many a decision.
FILES = ["--onnx", "fp32", "int8", "--openvino", "fp32", "int8", "--equal-decisions", "0.4"]


def main(folder: Path) -> None:
    """Write the folder."""
    folder.mkdir(parents=True)
    texts = list(phrases())
    tokenizer = train_wordpiece([*default_sentences(), *(text for text, _ in texts)], 300, 64).tokenizer
    teacher = new_teacher(tokenizer, layers=2, dim=32, heads=4, hidden_dim=64, seed=3)
    save_student(build_student(teacher, StudentArchitecture(layers=2)), folder / "student")
    animals = NOUNS["animal"]
    words = [text.split() for text, _ in texts]
    rows: dict[str, list[dict[str, Any]]] = {
        "classifier": [{"text": text, "label": label} for text, label in texts],
        "several": [{"text": text, "labels": [label]} for text, label in texts],
        "tagger": [{"tokens": own, "tags": ["B-PET" if word in animals else "O" for word in own]} for own in words],
    }
    definitions: dict[str, dict[str, Any]] = {
        "classifier": {"kind": "sentence-classification", "labels": [*NOUNS], "metrics": ["accuracy"]},
        "several": {"kind": "multi-label-classification", "labels": [*NOUNS], "metrics": ["f1_micro"]},
        "tagger": {"kind": "token-classification", "labels": ["O", "B-PET"], "metrics": ["span_f1"]},
    }
    asked = [text for text, _ in texts[:6]]
    expected: dict[str, Any] = {"texts": asked}
    for name, definition in definitions.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[name])
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        task = {"name": name, "title": name, "files": {"train": f"{name}.jsonl"}, **COMMON, **definition}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
        settings = [part for setting in PROTOCOL for part in ("--set", setting)]
        command = ["finetune", str(folder / "student"), "--task", str(folder / f"{name}.yaml"), *settings, *FILES]
        assert distilrubert([*command, "--output", str(folder / name)]) == 0
        expected[name] = answers(folder / name, name, expected)
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False), encoding="utf-8")


def answers(folder: Path, name: str, expected: dict[str, Any]) -> list[Any]:
    """What the pipeline of transformers says: probabilities by class, or tagged words."""
    task = "token-classification" if name == "tagger" else "text-classification"
    ask = pipeline(task, model=str(folder))
    if name == "tagger":
        return [[[part["word"], part["entity"]] for part in found] for found in ask(expected["texts"])]
    found = ask(expected["texts"], top_k=None)
    return [{each["label"]: each["score"] for each in own} for own in found]


def phrases() -> list[tuple[str, str]]:
    """Texts with one noun, and the class of that."""
    chance = random.Random(0)
    found = []
    for _ in range(160):
        label = chance.choice(sorted(NOUNS))
        words = [*chance.sample(FILLERS, chance.randint(1, 3)), chance.choice(NOUNS[label])]
        chance.shuffle(words)
        found.append((" ".join(words), label))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
