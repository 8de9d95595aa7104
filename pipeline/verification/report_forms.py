"""What the card and the checks read from a report, and of which type it must be.

A report may come from anywhere. After this check an error in reading one is a mistake of ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import read_json

Positive = Annotated[float, Field(gt=0)]
Curve = list[dict[str, float | None]]


class _Form(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Environment(_Form):
    cpu: str
    instruction_sets: list[str]
    threads: int
    versions: dict[str, str]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    gpu: str | None = None


class _Report(_Form):
    environment: _Environment
    baseline: str | None


class _Masking(_Form):
    probability: float
    smoothing: float | None = None


class _TrainingSettings(_Form):
    weights: dict[str, float] = {}
    learning_rate: float
    warmup: float
    batch_tokens: int
    batches_per_update: int
    masking: _Masking | None = None


class _Loss(_Form):
    weight: float
    title: str
    meaning: str


class _Initialisation(_Form):
    layers: list[int] | None
    teacher_layers: int


class _TrainingDetails(_Form):
    settings: _TrainingSettings
    losses: dict[str, _Loss] = {}
    initialisation: _Initialisation | None = None
    curves: Curve = []
    validation: Curve = []


class _TrainingRow(_Form):
    steps: int
    tokens: int
    wall_time_s: float
    tokens_per_s: float
    parameters: int | None = None
    processes: int = 1
    precision: str = "fp32"


class _Training(_Report):
    details: _TrainingDetails
    rows: Annotated[list[_TrainingRow], Field(min_length=1)]


class _ParityRow(_Form):
    case: str
    maximal_difference: float | None = None
    mean_difference: float | None = None
    token_cosine: float | None = None
    token_cosine_p1: float | None = None
    pooled_cosine: float | None = None
    top1_agreement: float | None = None
    single: dict[str, float] = {}
    padded: dict[str, float] = {}
    full_length: dict[str, float] = {}


class _ParityDetails(_Form):
    sentences: int
    full_length_texts: int = 0
    sha256: dict[str, str] = {}


class _Parity(_Report):
    details: _ParityDetails
    rows: list[_ParityRow]


class _Times(_Form):
    median_s: Positive
    starts_s: list[Positive] = []


class _SpeedRow(_Form):
    case: str
    latency_s: Positive
    samples_per_s: Positive
    latency_spread_s: float = 0.0
    samples_spread_per_s: float = 0.0
    size_mib: Positive | None = None
    parameters: int | None = None
    latency_ratio: Positive | None = None
    throughput_ratio: Positive | None = None
    latency_ratio_range: tuple[float, float] | None = Field(None, strict=False)
    throughput_ratio_range: tuple[float, float] | None = Field(None, strict=False)
    ratio_to: str | None = None
    ratio: float | None = None
    starts: int = 0
    batches: dict[Annotated[str, Field(pattern=r"^\d+$")], _Times] = {}


class _SpeedDetails(_Form):
    sequence_length: int
    batch_sizes: Annotated[list[int], Field(min_length=1)]


class _Speed(_Report):
    details: _SpeedDetails
    rows: Annotated[list[_SpeedRow], Field(min_length=1)]


class _Score(_Form):
    mean: float
    std: float | None
    values: Annotated[list[float], Field(min_length=1)]


class _Lead(_Form):
    value: float
    standard_error: float


Scores = dict[str, dict[str, _Score | dict[str, Any] | list[Any]]]


class _QualityRow(_Form):
    case: str
    tasks: Scores = {}
    linear_probe: Scores = {}
    gain_over_majority: dict[str, _Lead] = {}
    ratio: float | None = None


class _Task(_Form):
    title: str
    kind: str = ""
    main_metric: str | None = None
    licence: str | None = None


class _Finetuning(_Form):
    train_limit: int | None = None


class _QualitySettings(_Form):
    seeds: list[int]
    finetuning: _Finetuning


class _QualityDetails(_Form):
    settings: _QualitySettings
    tasks: dict[str, _Task] = {}


class _Quality(_Report):
    details: _QualityDetails
    rows: list[_QualityRow]


class _Config(_Form):
    n_layers: int
    n_heads: int
    dim: int
    hidden_dim: int
    vocab_size: int
    max_position_embeddings: int


FORMS: Mapping[str, type[_Report]] = {
    "pretraining": _Training,
    "training": _Training,
    "parity": _Parity,
    "speed": _Speed,
    "quality": _Quality,
}


def require_forms(folder: Path, reports: Mapping[str, Measurements]) -> None:
    """Refuse reports that do not have the form of theirs.

    Raises:
        UserError: naming the file, the field and what is wrong.
    """
    for name, report in reports.items():
        _require(FORMS[name], report.to_dict(), folder / "reports" / f"{name}.json")


def require_config(folder: Path) -> None:
    """Refuse a ``config.json`` that does not have the values that a card states.

    Raises:
        UserError: naming the field and what is wrong.
    """
    _require(_Config, read_json(folder / "config.json"), folder / "config.json")


def _require(form: type[BaseModel], values: Any, file: Path) -> None:
    try:
        form.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = "".join(f"{part}: " for part in [".".join(map(str, problem["loc"]))] if part)
        raise UserError(f"{file}: {field}{problem['msg']}") from None
