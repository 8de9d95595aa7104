"""A finished run directory with values as a real run writes them, for the cards that the tests render."""

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import yaml

from distilrubert.common.derived import derive
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.model_card.card import write_card
from distilrubert.model_card.inputs import CardInput, read_card_input

ENVIRONMENT = {
    "cpu": "AMD EPYC 9R14",
    "instruction_sets": ["avx2", "avx512f", "avx512_vnni", "avx512_bf16"],
    "threads": 2,
    "versions": {"python": "3.11.14", "torch": "2.13.0", "transformers": "4.57.6", "onnxruntime": "1.32.0"},
    "date": "2026-03-14",
    "cores": 2,
    "memory_gib": 15.6,
    "gpu": None,
}
RECIPE: dict[str, Any] = {
    "name": "distilrubert-base-cased-conversational",
    "seed": 42,
    "teacher": {"model": "DeepPavlov/rubert-base-cased-conversational", "revision": "main", "pretrain": None},
    "corpus": {"sources": [{"path": "/home/anna/data/*.parquet", "column": "text"}], "validation": 0.01},
    "student": {"preset": "base", "initialise_from": [0, 2, 4, 7, 9, 11]},
    "distillation": {
        "temperature": 2.0,
        "weights": {"kl": 5.0, "mlm": 2.0, "cosine": 1.0, "attention": 0.0},
        "layer_map": "block-mean",
        "kl_positions": "all",
        "learning_rate": 5e-4,
        "warmup": 0.05,
        "batch_tokens": 4096,
        "batches_per_update": 8,
        "masking": {"probability": 0.15, "smoothing": 0.7},
    },
    "card": {
        "language": "ru",
        "license": "apache-2.0",
        "method": "distilrubert",
        "title": "DistilRuBERT base, cased, conversational",
        "tags": ["russian"],
        "datasets": ["open_subtitles"],
        "authors": ["Петрова, Анна", "Ivanov & Sons"],
        "teacher_license": "Apache-2.0",
        "corpus_description": "Dialogues from films and jokes, and speeches from plays.",
        "corpus_license": "CC0",
        "limitations": "The corpus holds much dialogue from *jokes*, some of them crude.",
        "watts": 180.0,
    },
    "publish": {"repo_id": "me/distilrubert-base", "private": False},
}
CONFIG = {
    "architectures": ["DistilBertForMaskedLM"],
    "model_type": "distilbert",
    "n_layers": 6,
    "n_heads": 12,
    "dim": 768,
    "hidden_dim": 3072,
    "vocab_size": 119547,
    "max_position_embeddings": 512,
}
MANIFEST = {
    "seed": 42,
    "settings": {"max_length": 128},
    "sources": [
        {
            "origins": [
                {"path": "/home/anna/data/anekdot_dialogues.parquet", "bytes": 5_104_223, "sha256": "ab"},
                {"path": "/home/anna/data/movie_dialogues.parquet", "bytes": 4_018_772, "sha256": "cd"},
            ],
        }
    ],
    "total": {
        "texts": 138_573,
        "duplicates": 1_204,
        "train_sequences": 136_218,
        "train_tokens": 5_872_331,
        "validation_sequences": 1_377,
        "validation_tokens": 59_102,
    },
}


def _curve(step: int) -> dict[str, float]:
    falling = math.exp(-step / 400)
    kl, mlm, cosine = 2.1 + 7 * falling, 2.6 + 4 * falling, 0.09 + 0.3 * falling
    wave = 1 + 0.03 * math.sin(step)
    return {
        "step": step,
        "tokens": step * 9_411,
        "kl": kl * wave,
        "mlm": mlm * wave,
        "cosine": cosine,
        "loss": (5 * kl + 2 * mlm + cosine) * wave,
        "gradient_norm": 1.5,
        "learning_rate": 4e-4,
    }


TRAINING = {
    "environment": ENVIRONMENT,
    "baseline": None,
    "details": {
        "settings": {"seed": 42, **RECIPE["distillation"]},
        "initialisation": {"layers": [0, 2, 4, 7, 9, 11], "teacher_layers": 12},
        "losses": {
            "kl": {
                "weight": 5.0,
                "title": "KL to the teacher",
                "meaning": "KL divergence from the teacher's to the student's predictions at temperature 2",
            },
            "mlm": {
                "weight": 2.0,
                "title": "Masked-token loss",
                "meaning": "Cross-entropy of the student at the masked tokens",
            },
            "cosine": {
                "weight": 1.0,
                "title": "Cosine distance of hidden states",
                "meaning": "Cosine distance between each hidden state of the student and the mean of two consecutive "
                "hidden states of the teacher",
            },
            "attention": {"weight": 0.0, "title": "Attention maps", "meaning": "Squared distance"},
        },
        "curves": [_curve(step) for step in range(20, 1881, 20)],
        "validation": [{**_curve(step), "loss": 1.04 * _curve(step)["loss"]} for step in (500, 1000, 1500, 1872)],
    },
    "rows": [
        {
            "case": "distillation",
            "steps": 1872,
            "epochs": 3,
            "tokens": 17_616_993,
            "padded_share": 0.0421,
            "wall_time_s": 98_312.6,
            "training_time_s": 96_870.1,
            "tokens_per_s": 181.86,
            "peak_memory_mib": 4811.3,
            "peak_gpu_memory_mib": None,
            "resumes": 1,
            "precision": "bf16",
            "processes": 1,
            "parameters": 135_445_755,
            "ratio": None,
        }
    ],
}


# How far each of five starts is from the median, of the teacher and of a student.
TEACHER_STARTS, STUDENT_STARTS = (0.98, 0.99, 1.0, 1.01, 1.02), (1.01, 0.99, 1.0, 1.01, 0.99)


def _speed(case: str, size: float, latency: float, samples: float, parameters: int) -> dict[str, Any]:
    factors = TEACHER_STARTS if case.startswith("teacher") else STUDENT_STARTS
    batches = {
        str(batch): {
            "starts_s": [seconds * factor for factor in factors],
            "passes": [4, 4, 3, 4, 4],
        }
        for batch, seconds in ((1, latency), (16, 16 / samples))
    }
    return {
        "case": case,
        "size_mib": size,
        "batches": batches,
        "device": "cpu",
        "parameters": parameters,
        "threads": 2,
        "hint": "fp32",
        "ratio": None,
    }


SPEED = {
    "environment": ENVIRONMENT,
    "baseline": "teacher-pytorch-fp32",
    "details": {"sequence_length": 512, "batch_sizes": [1, 16], "threads": 2, "starts": 5, "rounds": 2},
    "rows": [
        _speed("teacher-pytorch-fp32", 678.9134, 0.67483, 1.5414, 177_853_440),
        _speed("student-pytorch-fp32", 516.6941, 0.32571, 3.2528, 135_445_755),
        _speed("student-onnx-fp32", 514.2217, 0.28333, 3.3817, 134_734_080),
        _speed("student-onnx-int8", 129.4418, 0.11829, 7.7441, 134_734_080),
    ],
}
PARITY = {
    "environment": ENVIRONMENT,
    "baseline": None,
    "details": {"sentences": 64, "tokens": 1311, "full_length_texts": 8, "padded_batch": 16, "centred": True},
    "rows": [
        {
            "case": case,
            **{
                way: {
                    "maximal_difference": share * largest,
                    "mean_difference": share * mean,
                    "token_cosine": token / share,
                    "token_cosine_p1": (2 * token - 1) / share,
                    "pooled_cosine": pooled / share,
                    "top1_agreement": token / share,
                }
                # The worst is what a card shows.
                for way, share in (("single", 0.9), ("padded", 1.0), ("full_length", 0.8))
            },
            "size_mib": 1.0,
            "ratio": None,
        }
        for case, largest, mean, token, pooled in (
            ("pytorch-fp32", 0.0, 0.0, 1.0, 1.0),
            ("onnx-fp32", 1.234e-5, 8.721e-7, 0.99999991, 0.99999996),
            ("onnx-int8", 0.48217, 0.03119, 0.98414, 0.99318),
        )
    ],
}


def _seeds(*values: float) -> dict[str, Any]:
    return {"values": list(values)}


TEACHER_TASKS = {
    "rusentiment": {
        "f1_weighted": _seeds(0.7743, 0.7719, 0.7751),
        "accuracy": _seeds(0.771, 0.769, 0.774),
        "run": {"learning_rate": 3e-5, "test_rows": 2967},
    },
    "factrueval": {"span_f1": _seeds(0.8812, 0.8847, 0.8795)},
}
STUDENT_TASKS = {
    "rusentiment": {"f1_weighted": _seeds(0.7645, 0.7601, 0.7688), "accuracy": _seeds(0.761, 0.758, 0.766)},
    "factrueval": {"span_f1": _seeds(0.8533, 0.8571, 0.8502)},
}
INT8_TASKS = {
    "rusentiment": {"f1_weighted": _seeds(0.7628, 0.7597, 0.7671), "accuracy": _seeds(0.76, 0.757, 0.764)},
    "factrueval": {"span_f1": _seeds(0.8511, 0.8548, 0.8485)},
}


QUALITY = {
    "environment": ENVIRONMENT,
    "baseline": "teacher",
    "details": {
        "settings": {"seeds": [1, 2, 3], "finetuning": {"epochs": 8, "train_limit": None}},
        "tasks": {
            "rusentiment": {
                "title": "RuSentiment",
                "kind": "sentence-classification",
                "main_metric": "f1_weighted",
                "licence": "CC BY-NC-SA 4.0",
            },
            "factrueval": {
                "title": "FactRuEval | NER",
                "kind": "token-classification",
                "main_metric": "span_f1",
                "licence": "MIT",
            },
        },
    },
    "rows": [
        {
            "case": "teacher",
            "masked_accuracy": 0.41173,
            "masked_cross_entropy_nats": 3.2174,
            "pseudo_perplexity": 15.8812,
            "tasks": TEACHER_TASKS,
            "linear_probe": {
                "rusentiment": {
                    "f1_weighted": _seeds(0.6911),
                    "accuracy": _seeds(0.6984),
                    "run": {"regularisation": 0.1},
                }
            },
            "ratio": None,
        },
        {
            "case": "student",
            "masked_accuracy": 0.37702,
            "masked_cross_entropy_nats": 3.5521,
            "pseudo_perplexity": 22.4106,
            "kl_to_teacher_nats": 0.6183,
            "teacher_agreement": 0.7129,
            "hidden_cosine": [0.98, 0.97, 0.96, 0.95, 0.95, 0.97],
            "mean_hidden_cosine": 0.9633,
            "tasks": STUDENT_TASKS,
            "linear_probe": {"rusentiment": {"f1_weighted": _seeds(0.6722), "accuracy": _seeds(0.6799)}},
            "gain_over_majority": {"rusentiment": {"standard_error": 0.0213}},
            "ratio": None,
        },
        {
            "case": "student-onnx-int8",
            "tasks": INT8_TASKS,
            "ratio": None,
        },
        {
            "case": "bag-of-words",
            "tasks": {"rusentiment": {"f1_weighted": _seeds(0.6693), "accuracy": _seeds(0.6711)}},
            "ratio": None,
        },
        {
            "case": "majority-class",
            "tasks": {"rusentiment": {"f1_weighted": _seeds(0.5347), "accuracy": _seeds(0.5412)}},
            "ratio": None,
        },
    ],
}
HUB_FILES = {
    "config.json": json.dumps(CONFIG),
    "tokenizer.json": "{}",
    "modules.json": "[]",
    "model.safetensors": "s" * 41_943,
    "onnx/model.onnx": "o" * 31_457,
    "onnx/model_quantized.onnx": "q" * 8_389,
}
REPORTS = {"training": TRAINING, "speed": SPEED, "parity": PARITY, "quality": QUALITY}


def write_run(folder: Path, recipe: dict[str, Any] = RECIPE, without: tuple[str, ...] = ()) -> Path:
    """A run directory; `without` names reports and repository files to leave out."""
    files = {
        "recipe.yaml": yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False),
        **({} if "corpus/manifest.json" in without else {"corpus/manifest.json": json.dumps(MANIFEST)}),
        **{f"reports/{name}.json": json.dumps(report) for name, report in REPORTS.items() if name not in without},
        **{f"hub/{name}": content for name, content in HUB_FILES.items() if name not in without},
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def card_input(folder: Path) -> CardInput:
    """What the card of a run is made from."""
    return read_card_input(write_card(folder).parent)


def changed(**sections: Any) -> dict[str, Any]:
    """The recipe with sections replaced, or updated where they are mappings."""
    recipe = copy.deepcopy(RECIPE)
    for name, value in sections.items():
        recipe[name] = recipe[name] | value if isinstance(value, dict) else value
    return recipe


def with_settings(run: CardInput, **settings: Any) -> CardInput:
    """The run with other settings of its card."""
    facts = run.facts.model_copy(update={"settings": run.settings.model_copy(update=settings)})
    return dataclasses.replace(run, facts=facts)


def task_row(case: str, score: float, **more: Any) -> Row:
    """A model with this score on the task."""
    return Row(case, {"tasks": {"toy": {"f1_macro": {"values": [score]}, "rows": [{}]}}, **more})


def task_report(kind: str = "sentence-classification", **details: Any) -> Measurements:
    """The report on a student of a task."""
    task = {"name": "toy", "title": "Toy *task*", "kind": kind, "metrics": ["f1_macro"], "classes": ["bad", "good"]}
    task["max_length"] = 48
    file = {"decisions": 200, "different_decisions": 1, "maximal_difference": 0.25, "size_mib": 3.5}
    counts = {"train_rows": 1800, "validation_rows": 200, "test_rows": 100, "test_rows_in_train": 0}
    rows = [
        task_row("pytorch-fp32", 0.66, **file | {"different_decisions": 0, "maximal_difference": 0.0}),
        task_row("onnx-int8", 0.65, **file),
        task_row("majority-class", 0.4),
        task_row("student-alone", 0.61),
        task_row("teacher", 0.67),
    ]
    more = {
        "task": task | {"licence": "CC0", "source": None, "split": "test"},
        "rows": counts | {"unlabelled_rows": 16_000},
        "confusion": [[30, 10], [20, 40]],
        "reliability": [{"probability": 0.6, "right": 0.5, "rows": 40}, {"probability": 0.9, "right": 0.8, "rows": 60}],
        "calibration": {"temperature": 1.7, "calibration_error": 0.1, "calibration_error_before": 0.2},
    }
    return derive(Measurements(Environment(**ENVIRONMENT), rows, details=more | details))
