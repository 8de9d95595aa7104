"""What a card reads from a report, and of which type it must be.

A report may come from anywhere. After this check an error in reading one is a mistake of ours. Reports have raw values;
what is derived from them is not here.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from distilrubert.common.derived import INPUT_FORMS, SCORES
from distilrubert.model_card.task_kinds import TASK_KINDS


def _form(check: Callable[[Any], Any] = lambda form: form, /, **fields: Any) -> Any:
    """A mapping of these fields and any others. A field with a default value, the second of a pair, may be missing.

    `check` raises a ValueError where the parts do not go together, and else returns the form.
    """
    validators: Any = {"check": model_validator(mode="after")(check)}
    return create_model("Form", __config__=ConfigDict(strict=True, extra="allow"), __validators__=validators, **fields)


def _report(
    details: Any, row: Any, least_rows: int = 1, check: Callable[[Any], Any] = lambda report: report
) -> type[BaseModel]:
    rows = Annotated[list[row], Field(min_length=least_rows)]
    form: type[BaseModel] = _form(check, environment=ENVIRONMENT, baseline=str | None, details=details, rows=rows)
    return form


Positive = Annotated[float, Field(gt=0)]
SIZE, TEXT = (int | None, None), (str | None, None)
CURVE: Any = (list[dict[str, float | None]], [])

ENVIRONMENT = _form(
    cpu=str,
    instruction_sets=list[str],
    threads=int,
    versions=dict[str, str],
    date=Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")],
    gpu=TEXT,
)

LOSS: Any = _form(weight=float, title=str, meaning=str)
TRAINING_SETTINGS = _form(
    learning_rate=float,
    warmup=float,
    batch_tokens=int,
    batches_per_update=int,
    masking=(_form(probability=float, smoothing=(float | None, None)) | None, None),
)
# Of layers of the teacher, or of a finished student that phases before this one have made.
INITIALISATION: dict[str, Any] = {
    "layers": (list[int] | None, None),
    "teacher_layers": SIZE,
    "pruned_on_texts": SIZE,
    "start_from": (_form(name=str, id=TEXT, commit=TEXT) | None, None),
}
PHASE: Any = _form(
    name=TEXT,
    max_length=SIZE,
    steps=int,
    tokens=int,
    losses=dict[str, float],
    initialisation=(_form(**INITIALISATION) | None, None),
)
START: Any = _form(**INITIALISATION, phases=(list[PHASE], []))
TRAINING = _report(
    _form(
        settings=TRAINING_SETTINGS,
        losses=dict[str, LOSS],
        name=TEXT,
        max_length=SIZE,
        initialisation=(START | None, None),
        curves=CURVE,
        validation=CURVE,
    ),
    _form(
        case=str,
        steps=int,
        tokens=int,
        wall_time_s=float,
        tokens_per_s=float,
        parameters=SIZE,
        processes=(int, 1),
        precision=(str, "fp32"),
    ),
)

PARITY = _report(
    _form(sentences=int, full_length_texts=int, sha256=(dict[str, str], {})),
    _form(
        case=str,
        size_mib=(float | None, None),
        sha256=(dict[str, str], {}),
        **dict.fromkeys(INPUT_FORMS, (dict[str, float], {})),
    ),
    least_rows=0,
)

STARTS: Any = _form(starts_s=Annotated[list[Positive], Field(min_length=1)])
BATCHES: Any = Annotated[dict[Annotated[str, Field(pattern=r"^\d+$")], STARTS], Field(min_length=1)]
SPEED = _report(
    _form(sequence_length=int, batch_sizes=Annotated[list[int], Field(min_length=1)], texts=SIZE),
    _form(
        case=str,
        tokens_per_text=(float | None, None),
        size_mib=Positive,
        parameters=SIZE,
        batches=BATCHES,
    ),
)

SCORE: Any = _form(values=Annotated[list[float], Field(min_length=1)])
# Beside the scores of a task are the settings of its runs, and lists.
RUN: Any = _form(values=(None, None))
TASK: Any = _form(title=str, kind=(str, ""), main_metric=TEXT, licence=TEXT)
GAIN: Any = _form(standard_error=float)
QUALITY = _report(
    _form(
        settings=_form(seeds=list[int], finetuning=_form(train_limit=SIZE)),
        tasks=(dict[str, TASK], {}),
    ),
    _form(
        case=str,
        **dict.fromkeys(SCORES, (dict[str, dict[str, SCORE | RUN | list[Any]]], {})),
        gain_over_majority=(dict[str, GAIN], {}),
    ),
)


def _check_suite(report: Any) -> Any:
    tasks = report.details.tasks
    for row in report.rows:
        if row.scores.keys() != tasks.keys():
            stated = ", ".join(tasks)
            raise ValueError(f"{row.case} has scores of {', '.join(row.scores) or 'nothing'}; details.tasks: {stated}")
        for name, ways in row.scores.items():
            if any(tasks[name].metric not in way for way in ways.values()):
                raise ValueError(f"{row.case} has scores of {name} without its metric, {tasks[name].metric}")
    return report


VECTOR_TASK: Any = _form(title=str, metric=str, licence=TEXT)
SUITE = _report(
    _form(
        suite=_form(title=str, published=(dict[str, float], {})),
        tasks=Annotated[dict[str, VECTOR_TASK], Field(min_length=1)],
        absent=list[str],
    ),
    _form(case=str, scores=dict[str, Annotated[dict[str, dict[str, float]], Field(min_length=1)]]),
    check=_check_suite,
)


def _check_task(report: Any) -> Any:
    task, confusion = report.details.task, report.details.confusion
    for row in report.rows:
        scores = row.tasks.get(task.name, {})
        if lost := [metric for metric in task.metrics if not getattr(scores.get(metric), "values", None)]:
            raise ValueError(f"{row.case} has no {lost[0]} of {task.name}")
    if confusion and {len(confusion), *map(len, confusion)} != {len(task.classes)}:
        raise ValueError(f"details.confusion is not a row and a column for each of {len(task.classes)} classes")
    return report


def _check_agreement(row: Any) -> Any:
    """Of a file, which has decisions, all is told, and of clear ones where they are."""
    needed = ["different_decisions", "maximal_difference", "size_mib"] if row.decisions else []
    needed += ["different_clear_decisions"] if row.clear_decisions else []
    if lost := [name for name in needed if getattr(row, name) is None]:
        raise ValueError(f"{row.case} has decisions and no {lost[0]}")
    return row


KIND: Any = Literal[tuple(TASK_KINDS)]
BOUND: Any = _form(equal_decisions=float, of_all=(float, 0.0))
CLASS: Any = _form(**{"class": str}, expected=int, found=int, correct=int)
SCORE_BIN: Any = _form(prediction=float, reference=float, reference_std=float, rows=Positive)

COUNTS: Any = _form(
    train_rows=int, validation_rows=int, test_rows=int, test_rows_in_train=int, unlabelled_rows=SIZE, train_limit=SIZE
)
CALIBRATION: Any = _form(temperature=float, calibration_error=float, calibration_error_before=float)
BIN: Any = _form(probability=float, right=float, rows=Positive)
FINETUNING = _report(
    _form(
        task=_form(
            name=str,
            title=str,
            kind=KIND,
            metrics=list[str],
            classes=list[str],
            licence=TEXT,
            source=TEXT,
            max_length=SIZE,
        ),
        rows=COUNTS,
        calibration=(CALIBRATION | None, None),
        confusion=(list[list[int]] | None, None),
        reliability=(list[BIN] | None, None),
        score_bins=(list[SCORE_BIN] | None, None),
        class_counts=(list[CLASS] | None, None),
        bounds=(_form(fp32=BOUND, int8=BOUND, fp16=(BOUND, None), bf16=(BOUND, None)), None),
    ),
    _form(
        _check_agreement,
        case=str,
        tasks=dict[str, dict[str, SCORE | RUN | list[Any]]],
        decisions=SIZE,
        different_decisions=SIZE,
        clear_decisions=SIZE,
        different_clear_decisions=SIZE,
        maximal_difference=(float | None, None),
        size_mib=(float | None, None),
        sha256=(dict[str, str], {}),
    ),
    check=_check_task,
)

FORMS = {
    "pretraining": TRAINING,
    "training": TRAINING,
    "parity": PARITY,
    "speed": SPEED,
    "quality": QUALITY,
    "suite": SUITE,
    "finetuning": FINETUNING,
}
SIZES = {
    "layers": ("n_layers", "num_hidden_layers"),
    "heads": ("n_heads", "num_attention_heads"),
    "dim": ("dim", "hidden_size"),
    "hidden_dim": ("hidden_dim", "intermediate_size"),
}
"""Sizes in a ``config.json``: how a DistilBERT's names them, and how those of other models do."""


def config_form(config: Any) -> type[BaseModel]:
    """The form of a ``config.json``, by the names that it has."""
    is_distilbert = isinstance(config, Mapping) and config.get("model_type") == "distilbert"
    names = [names[not is_distilbert] for names in SIZES.values()]
    form: type[BaseModel] = _form(
        **dict.fromkeys([*names, "vocab_size", "max_position_embeddings"], int), model_type=str
    )
    return form
