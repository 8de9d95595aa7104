"""What the card and the checks read from a report, and of which type it must be.

A report may come from anywhere. After this check an error in reading one is a mistake of ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import read_json
from distilrubert.conversion.parity import WAYS
from distilrubert.model_card.tables import PARITY_COLUMNS


def _form(**fields: Any) -> Any:
    """A mapping of these fields and any others. A field with a default value, the second of a pair, may be missing."""
    return create_model("Form", __config__=ConfigDict(strict=True, extra="allow"), **fields)


def _report(details: Any, row: Any, least_rows: int = 0) -> type[BaseModel]:
    rows = Annotated[list[row], Field(min_length=least_rows)]
    form: type[BaseModel] = _form(environment=ENVIRONMENT, baseline=str | None, details=details, rows=rows)
    return form


Positive = Annotated[float, Field(gt=0)]
NUMBER, SIZE, TEXT = (float | None, None), (int | None, None), (str | None, None)
NUMBERS: Any = (dict[str, float], {})
CURVE: Any = (list[dict[str, float | None]], [])
RATIO, RANGE = (Positive | None, None), (tuple[float, float] | None, Field(None, strict=False))

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
    weights=NUMBERS,
    learning_rate=float,
    warmup=float,
    batch_tokens=int,
    batches_per_update=int,
    masking=(_form(probability=float, smoothing=NUMBER) | None, None),
)
TRAINING = _report(
    _form(
        settings=TRAINING_SETTINGS,
        losses=(dict[str, LOSS], {}),
        initialisation=(_form(layers=list[int] | None, teacher_layers=int) | None, None),
        curves=CURVE,
        validation=CURVE,
    ),
    _form(
        steps=int,
        tokens=int,
        wall_time_s=float,
        tokens_per_s=float,
        parameters=SIZE,
        processes=(int, 1),
        precision=(str, "fp32"),
    ),
    least_rows=1,
)

PARITY = _report(
    _form(sentences=int, full_length_texts=(int, 0), sha256=(dict[str, str], {})),
    _form(case=str, **dict.fromkeys(PARITY_COLUMNS, NUMBER), **dict.fromkeys(WAYS, NUMBERS)),
)

TIMES: Any = _form(median_s=Positive, starts_s=(list[Positive], []))
SPEED = _report(
    _form(sequence_length=int, batch_sizes=Annotated[list[int], Field(min_length=1)]),
    _form(
        case=str,
        latency_s=Positive,
        samples_per_s=Positive,
        latency_spread_s=(float, 0.0),
        samples_spread_per_s=(float, 0.0),
        size_mib=RATIO,
        parameters=SIZE,
        latency_ratio=RATIO,
        throughput_ratio=RATIO,
        latency_ratio_range=RANGE,
        throughput_ratio_range=RANGE,
        ratio_to=TEXT,
        ratio=NUMBER,
        starts=(int, 0),
        batches=(dict[Annotated[str, Field(pattern=r"^\d+$")], TIMES], {}),
    ),
    least_rows=1,
)

SCORE: Any = _form(mean=float, std=float | None, values=Annotated[list[float], Field(min_length=1)])
# Beside the scores of a task are the settings of its runs, and lists.
RUN: Any = _form(mean=(None, None))
SCORES: Any = (dict[str, dict[str, SCORE | RUN | list[Any]]], {})
LEAD: Any = _form(value=float, standard_error=float)
TASK: Any = _form(title=str, kind=(str, ""), main_metric=TEXT, licence=TEXT)
QUALITY = _report(
    _form(
        settings=_form(seeds=list[int], finetuning=_form(train_limit=SIZE)),
        tasks=(dict[str, TASK], {}),
    ),
    _form(
        case=str,
        tasks=SCORES,
        linear_probe=SCORES,
        gain_over_majority=(dict[str, LEAD], {}),
        ratio=NUMBER,
    ),
)

FORMS = {"pretraining": TRAINING, "training": TRAINING, "parity": PARITY, "speed": SPEED, "quality": QUALITY}
CONFIG = _form(n_layers=int, n_heads=int, dim=int, hidden_dim=int, vocab_size=int, max_position_embeddings=int)


def require_forms(folder: Path, reports: Mapping[str, Measurements]) -> None:
    """Refuse reports that do not have the form of theirs.

    Raises:
        UserError: naming the file, the field and what is wrong.
    """
    for name, report in reports.items():
        stated_settings(FORMS[name], report.to_dict(), folder / "reports" / f"{name}.json", "")


def require_config(folder: Path) -> None:
    """Refuse, likewise, a ``config.json`` that does not have the values that a card states."""
    stated_settings(CONFIG, read_json(folder / "config.json"), folder / "config.json", "")
