"""Recipes that several tests use: the shortest one, and the demo's on a small scale."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]
CAN_EXPORT = importlib.util.find_spec("optimum") is not None
MINIMAL = """
name: small-one
teacher: {model: some/teacher}
corpus: {sources: [{path: texts/*.txt}]}
student: {layers: 2}
card: {language: ru, license: apache-2.0}
"""
SMALL = {
    "teacher.pretrain.layers": 4,
    "teacher.pretrain.dim": 32,
    "teacher.pretrain.hidden_dim": 64,
    "teacher.pretrain.vocabulary_size": 600,
    "teacher.pretrain.max_steps": 3,
    "student.layers": 2,
    "distillation.max_steps": 3,
    "conversion.onnx": "[fp32, int8]" if CAN_EXPORT else "[]",
    "evaluation.speed": "{sequence_length: 32, starts: 1, rounds: 1, minimum_time_s: 0}",
    "evaluation.seeds": "[1]",
    "evaluation.exported.onnx": "[int8]" if CAN_EXPORT else "[]",
    "evaluation.finetuning": "{epochs: 1, learning_rates: [1.0e-3], train_limit: 60}",
    "evaluation.intrinsic": "{sequences: 20, sentences: 3}",
}


def arguments_of(run_dir: Path, **overrides: object) -> list[str]:
    settings = {**SMALL, **{key.replace("__", "."): value for key, value in overrides.items()}}
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [str(ROOT / "recipes/demo.yaml"), "--run-dir", str(run_dir), *given]
