"""What the templates of a card name: the reports, their tables, and what has to be chosen from them."""

import json
from collections.abc import Mapping
from typing import Any

from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Environment, Measurements
from distilrubert.model_card.cases import Case, stored_in_16_bits
from distilrubert.model_card.citation import describe_method, model_entry
from distilrubert.model_card.formatting import count, counted, duration, escape, listing, number, short_count
from distilrubert.model_card.hub_rules import language_name
from distilrubert.model_card.inputs import REPORTS, CardInput, losses_of
from distilrubert.model_card.scores import (
    Score,
    have_vocabularies_of_their_own,
    intrinsic_scores,
    main_scores,
    task_scores,
)
from distilrubert.model_card.tables import (
    class_table,
    file_table,
    loss_table,
    parity_table,
    quality_table,
    speed_table,
    suite_table,
    task_table,
)
from distilrubert.model_card.task_kinds import TASK_KINDS

# Alternative text by the file's name in assets/.
PICTURES = {
    "speed.png": "Speed against size of the teacher and of each published file",
    "training.png": "Losses over the tokens of the distillation",
    "confusion.png": "Confusion matrix of the test part: rows are the true classes",
    "reliability.png": "How often decisions are right, over the probability that the model gives them",
    "scores.png": "Mean true score of the test rows, over the score that the model gives them",
    "quality.png": "Scores of teacher and student on each task, with error bars",
}

# Of a tokenizer whose files do not say it.
INPUTS = ("input_ids", "attention_mask")


def view_of(run: CardInput) -> dict[str, Any]:
    """What the templates name besides the filters."""
    facts, settings = run.facts, run.settings
    reports = {name: getattr(run, name) for name in REPORTS}
    return {
        **reports,
        **(_speed_view(run.speed) if run.speed else {}),
        **(_quality_view(run.quality) if run.quality else {}),
        **(_task_view(run.finetuning) if run.finetuning else {"task": None}),
        "facts": facts,
        "settings": settings,
        "config": run.config,
        "model_id": facts.repo_id or facts.name,
        "parameters": _parameters(run),
        "starts_from": bool(run.training and run.training.details.get("initialisation")),
        "start": _start(
            run.training.details.get("initialisation") if run.training else None,
            (facts.start or "another model") if facts.teacher.is_fine_tuned else "the teacher",
        ),
        "phases": _phases(run.training),
        "fastest": run.speed and _fastest(run.speed),
        "sizes": run.sizes,
        "longest_input": run.longest_input,
        "architecture": run.architecture,
        "fills_masks": run.has_head,
        "has_masked_lm": FORMATS["onnx-masked-lm-int8"].path in run.files,
        "example": json.dumps(run.example, ensure_ascii=False),
        "sentences": json.dumps(settings.sentences, ensure_ascii=False),
        "onnx_file": _preferred(run, "onnx", ("model_quantized.onnx", "model.onnx")),
        "openvino_file": _preferred(run, "openvino", ("openvino_model_qint8_quantized.xml", "openvino_model.xml")),
        "files_fill_masks": run.parity is not None and run.parity.details.get("task") == "fill-mask",
        "inputs": listing([f"`{name}`" for name in run.tokenizer.get("model_input_names", INPUTS)]),
        "has_int8": any(entry.precision == "int8" for entry in FORMATS.values() if entry.path in run.files),
        "embedding_bits": _int8_settings(run).get("embedding_bits"),
        "sentence_transformers": "modules.json" in run.files,
        "encoder": run.prompts is not None,
        "prompts": {name: prompt for name, prompt in (run.prompts or {}).items() if prompt},
        "file_table": file_table(run.files).markdown,
        "suite_table": run.suite and suite_table(run.suite).markdown,
        "parity_table": run.parity and parity_table(run.parity).markdown,
        "losses": [*losses_of(run.training)],
        "loss_table": run.training and loss_table(run.training).markdown,
        "pictures": {name: text for name, text in PICTURES.items() if f"assets/{name}" in run.files},
        "model_entry": model_entry(run),
        **describe_method(run),
    }


def _int8_settings(run: CardInput) -> Mapping[str, Any]:
    """How the int8 files were made, as the report on the files says."""
    report = run.parity or run.finetuning
    return (report and report.details.get("int8")) or {}


def _speed_view(speed: Measurements) -> dict[str, Any]:
    cases, versions = [Case.parse(row.case) for row in speed.rows], speed.environment.versions
    runtimes = {case.runtime for case in cases}
    packages = ["python", "torch", "transformers", *(name for key, name in PACKAGES.items() if key in runtimes)]
    return {
        "speed_table": speed_table(speed).markdown,
        "speed_starts": max(row.values.get("starts", 0) for row in speed.rows),
        "speed_tokens_per_text": speed.rows[0].values.get("tokens_per_text"),
        "speed_on_gpu": any(case.cuda for case in cases),
        "speed_versions": [f"{name} {versions[name]}" for name in packages if name in versions],
        "has_16_bit_files": any(map(stored_in_16_bits, speed.rows)),
    }


def _quality_view(quality: Measurements) -> dict[str, Any]:
    tasks = quality.details.get("tasks", {}).values()
    licences = {about["title"]: about["licence"] for about in tasks if about.get("licence")}
    return {
        "quality_table": quality_table(quality).markdown,
        "has_held_out": bool(intrinsic_scores(quality)),
        "has_own_vocabularies": have_vocabularies_of_their_own(quality),
        "has_fine_tuned": bool(task_scores(quality)),
        "has_scored_files": any(Case.parse(row.case).file for row in quality.rows),
        "has_probes": bool(main_scores(quality, "linear_probe")),
        "has_leads": any(row.values.get("gain_over_majority") for row in quality.rows),
        "ahead_of_teacher": [score.title for score in main_scores(quality) if _is_ahead(score)],
        "task_licences": "; ".join(f"{escape(title)}: {escape(licence)}" for title, licence in licences.items()),
    }


def _task_view(report: Measurements) -> dict[str, Any]:
    return {
        "task": TASK_KINDS[report.details["task"]["kind"]],
        "task_table": task_table(report).markdown,
        "class_table": class_table(report).markdown,
        "task_has_teacher": any(row.case == "teacher" for row in report.rows),
    }


def _is_ahead(score: Score) -> bool:
    """Whether a bag of words is better than the teacher."""
    words, teacher = score.values.get("bag-of-words"), score.values.get("teacher")
    return words is not None and teacher is not None and words.mean > teacher.mean


def _parameters(run: CardInput) -> dict[str, int | None]:
    """Parameters of the student and, if they were counted in the same way, of the teacher."""
    rows = run.speed.rows if run.speed else []
    in_pytorch = [row for row in rows if Case.parse(row.case).runtime == "pytorch"]
    counted = {Case.parse(row.case).model: row.values.get("parameters") for row in in_pytorch}
    if counted.get("student"):
        return {"student": counted["student"], "teacher": counted.get("teacher")}
    return {"student": run.training.rows[0].values.get("parameters") if run.training else None, "teacher": None}


def _fastest(speed: Measurements) -> dict[str, Any] | None:
    """The student's file with the lowest latency on the CPU, if that is lower than the teacher's."""
    cases = {Case.parse(row.case): row.values for row in speed.rows}
    own = {case: values for case, values in cases.items() if case.model == "student" and not case.cuda}
    best = max(own, key=lambda case: own[case].get("latency_ratio", 0), default=None)
    if best is None or own[best].get("latency_ratio", 0) <= 1:
        return None
    return {**own[best], "label": best.file_label}


def _phases(training: Measurements | None) -> list[list[str]]:
    """The phases of a student that started from a finished one, each with its cells in the table; the last is this."""
    start = (training.details.get("initialisation") if training else None) or {}
    if training is None or "start_from" not in start:
        return []
    own = {
        **{key: training.details.get(key) for key in ("max_length", "initialisation")},
        **{key: training.rows[0].values[key] for key in ("steps", "tokens")},
        "losses": {name: loss["weight"] for name, loss in losses_of(training).items()},
    }
    return [
        [
            str(number),
            _start(phase.get("initialisation")),
            ", ".join(f"{name} {weight:g}" for name, weight in phase["losses"].items()),
            "" if phase.get("max_length") is None else count(phase["max_length"]),
            count(phase["steps"]),
            short_count(phase["tokens"]),
        ]
        for number, phase in enumerate([*start.get("phases", []), own], start=1)
    ]


def _start(initialisation: Mapping[str, Any] | None, layers_of: str = "the teacher") -> str:
    """Where the first weights of a student come from."""
    if initialisation is None:
        return f"layers of {layers_of}"
    if found := initialisation.get("start_from"):
        name, commit = _code(found["name"]), found.get("commit")
        return f"the finished student {name}{f' (commit {_code(commit)})' if commit else ''}"
    if initialisation["layers"] is None:
        return "random weights"
    layers = listing(str(layer + 1) for layer in initialisation["layers"])
    start = f"layers {layers} of {layers_of}'s {initialisation['teacher_layers']} (the first layer is 1)"
    if not (texts := initialisation.get("pruned_on_texts")):
        return start
    return f"{start}, pruned to the parts that change the teacher's output most on {count(texts)} texts,"


def _preferred(run: CardInput, folder: str, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if f"{folder}/{name}" in run.files), None)


def _machine(where: Environment) -> str:
    """Processor and threads of a measurement."""
    return f"{escape(where.cpu)} ({counted(where.threads, 'thread')})"


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"


FILTERS = {
    **{write.__name__: write for write in (count, duration, escape, listing, number, short_count)},
    "code": _code,
    "language": language_name,
    "machine": _machine,
}
# What else computes than PyTorch, by runtime.
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
