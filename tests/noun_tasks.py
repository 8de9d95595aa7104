"""Tasks that tiny models can learn: of short texts with one noun in each, a task of every kind."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import yaml

NOUNS = {"animal": ["кот", "собака", "ёжик"], "food": ["хлеб", "сыр", "чай"]}
FILLERS = ["вчера", "сегодня", "завтра", "дома", "летом", "весной", "опять"]
COMMON = {"test_share": 0.25, "validation_share": 0.2, "max_length": 32, "licence": "CC0-1.0", "source": "these tests"}
KINDS: dict[str, dict[str, Any]] = {
    "nouns": {"kind": "sentence-classification", "labels": [*NOUNS], "metrics": ["accuracy"]},
    "pairs": {"kind": "sentence-pair-classification", "labels": [*NOUNS], "metrics": ["accuracy"], "max_length": 64},
    "several": {"kind": "multi-label-classification", "labels": [*NOUNS], "metrics": ["f1_micro"]},
    "scores": {"kind": "sentence-pair-regression", "metrics": ["pearson"], "max_length": 64},
    "tags": {"kind": "token-classification", "labels": ["O", "B-PET"], "metrics": ["span_f1"]},
    "answers": {"kind": "question-answering", "metrics": ["answer_f1"]},
}
CANDIDATES = 5
"""How many rows of a task of pairs have the same first text, as the candidates of a query."""


def phrases(number: int = 160, seed: int = 0) -> list[tuple[list[str], str]]:
    """Words, one of which is a noun, and the class of that noun."""
    chance = random.Random(seed)
    found = []
    for _ in range(number):
        label = chance.choice(sorted(NOUNS))
        words = [*chance.choices(FILLERS, k=chance.randint(1, 4)), chance.choice(NOUNS[label])]
        chance.shuffle(words)
        found.append((words, label))
    return found


def write_tasks(folder: Path, number: int = 160, **common: Any) -> None:
    """Write a task of each of the :data:`KINDS` with so many rows: a YAML file, and its data beside it."""
    found = phrases(number)
    texts = [(" ".join(words), label) for words, label in found]
    pairs = [
        {"text": _query(place // CANDIDATES), "text_pair": text, "label": label}
        for place, (text, label) in enumerate(texts)
    ]
    rows: dict[str, list[dict[str, Any]]] = {
        "nouns": [{"text": text, "label": label} for text, label in texts],
        "pairs": pairs,
        "several": [{"text": text, "labels": [label] * ("дома" not in text)} for text, label in texts],
        "scores": [{**pair, "score": float(pair["label"] == "food")} for pair in pairs],
        "tags": [
            {"tokens": words, "tags": ["B-PET" if word in NOUNS["animal"] else "O" for word in words]}
            for words, _ in found
        ],
        "answers": [
            _asked(text, next(word for word in words if word in NOUNS[label]))
            for (text, label), (words, _) in zip(texts, found, strict=True)
        ],
    }
    for name in KINDS:
        _write_rows(folder / f"{name}.{'csv' if name == 'nouns' else 'jsonl'}", rows[name])
        define(folder, name, name, **common)


def define(folder: Path, name: str, of: str, **changes: Any) -> None:
    """Write the definition of a task on the data of one of the :data:`KINDS`."""
    file = f"{of}.{'csv' if of == 'nouns' else 'jsonl'}"
    task = {"name": name, "title": name, "files": {"train": file}, **COMMON, **KINDS[of], **changes}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, allow_unicode=True), encoding="utf-8")


def _query(number: int) -> str:
    """Two words, another pair of them for each of the first 49 numbers."""
    return f"{FILLERS[number % len(FILLERS)]} {FILLERS[number // len(FILLERS) % len(FILLERS)]}"


def _asked(context: str, answer: str) -> dict[str, Any]:
    return {"question": "кто", "context": context, "answer": answer, "answer_start": context.index(answer)}


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([[*rows[0]], *(row.values() for row in rows)])
    else:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(lines, encoding="utf-8")
