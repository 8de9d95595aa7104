"""Make models of tasks and what clients must find in them: ``python make_tasks.py FOLDER``.

FOLDER/nouns, several, tags, pairs and scores are what ``distilrubert finetune`` writes of a tiny student; the last two
read pairs of texts. FOLDER/expected.json has inputs, and what the pipeline of transformers answers to them here.
"""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

from transformers import pipeline

from distilrubert.conversion.parity import default_sentences
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student, save_student
from distilrubert.modeling.teacher import new_teacher
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline.cli import main as distilrubert

TASKS = runpy.run_path(str(Path(__file__).parents[1] / "noun_tasks.py"))
MODELS = ("nouns", "several", "tags", "pairs", "scores")
OF_PAIRS = ("pairs", "scores")
PROTOCOL = ["learning_rates=[0.003]", "batch_size=8", "precision=fp32", "epochs=6", "patience=6", "dropout=0.0"]
# Tiny models are close to many a decision.
FILES = ["--onnx", "fp32", "int8", "--openvino", "fp32", "int8", "--equal-decisions", "0.4"]


def main(folder: Path) -> None:
    """Write the folder."""
    folder.mkdir(parents=True)
    TASKS["write_tasks"](folder)
    texts = [" ".join(words) for words, _ in TASKS["phrases"]()]
    tokenizer = train_wordpiece([*default_sentences(), *texts], 300, 64).tokenizer
    teacher = new_teacher(tokenizer, layers=2, dim=32, heads=4, hidden_dim=64, seed=3)
    save_student(build_student(teacher, StudentArchitecture(layers=2)), folder / "student")
    settings = [part for setting in PROTOCOL for part in ("--set", setting)]
    asked = texts[:6]
    expected: dict[str, Any] = {"texts": asked, "couples": [[asked[0], other] for other in asked[1:]]}
    for name in MODELS:
        command = ["finetune", str(folder / "student"), "--task", str(folder / f"{name}.yaml"), *settings, *FILES]
        assert distilrubert([*command, "--output", str(folder / name)]) == 0
        expected[name] = answers(folder / name, expected)
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False), encoding="utf-8")


def answers(folder: Path, expected: dict[str, Any]) -> list[Any]:
    """What the pipeline of transformers says: probabilities by class, a score, or tagged words."""
    if folder.name == "tags":
        tag = pipeline("token-classification", model=str(folder))
        return [[[part["word"], part["entity"]] for part in found] for found in tag(expected["texts"])]
    couples = [{"text": one, "text_pair": other} for one, other in expected["couples"]]
    classify = pipeline("text-classification", model=str(folder))
    found = classify(couples if folder.name in OF_PAIRS else expected["texts"], top_k=None)
    return [{each["label"]: each["score"] for each in own} for own in found]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
