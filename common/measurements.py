"""The one form that every benchmark and measurement file has."""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any, Self

import psutil
import torch

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json, write_json
from distilrubert.common.processes import available_cores

REPORTED_PACKAGES = (
    "torch", "transformers", "tokenizers", "accelerate", "datasets", "huggingface-hub",
    "optimum", "optimum-onnx", "onnxruntime", "optimum-intel", "openvino", "nncf",
)  # fmt: skip
# What decides which matrix kernels a CPU can run, as Linux names them in /proc/cpuinfo.
REPORTED_INSTRUCTION_SETS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16",
    "amx_int8", "asimddp", "i8mm", "bf16",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Environment:
    """Where and when something was measured.

    Attributes:
        cpu: model name of the processor.
        instruction_sets: those of :data:`REPORTED_INSTRUCTION_SETS` that the processor has.
        threads: threads that the measured process used.
        versions: installed version of Python and of each of :data:`REPORTED_PACKAGES`.
        date: day of the measurement, ISO 8601.
        cores: physical or virtual cores that the process may use.
        memory_gib: main memory of the machine, GiB.
        gpu: name of the accelerator that the machine has, None without one.
    """

    cpu: str
    instruction_sets: list[str]
    threads: int
    versions: dict[str, str]
    date: str
    cores: int
    memory_gib: float
    gpu: str | None = None

    @classmethod
    def capture(cls, threads: int | None = None) -> Self:
        """Describe this machine; `threads` defaults to what torch uses in this process."""
        name, flags = _processor()
        return cls(
            cpu=name,
            instruction_sets=[flag for flag in REPORTED_INSTRUCTION_SETS if flag in flags],
            threads=threads or torch.get_num_threads(),
            versions={"python": platform.python_version(), **installed_versions()},
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            cores=available_cores(),
            memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        )

    def is_like(self, other: "Environment") -> bool:
        """Whether the machine and its software are the same, whatever the day."""
        return dataclasses.replace(self, date=other.date) == other

    to_dict = dataclasses.asdict


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured case.

    Attributes:
        case: its name, for example ``student-onnx-int8``.
        values: raw values, the unit in the key (``latency_s``, ``samples_per_s``); values may be nested.
        ratio: the headline value relative to the baseline's, better above 1; None where the file has no baseline.
    """

    case: str
    values: dict[str, Any]
    ratio: float | None = None

    def __post_init__(self) -> None:
        assert self.values.keys().isdisjoint(("case", "ratio")), f"{self.case}: values named like the row's own keys"

    def to_dict(self) -> dict[str, Any]:
        """The flat form in the file."""
        return {"case": self.case, **self.values, "ratio": self.ratio}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        measured = {key: value for key, value in values.items() if key not in ("case", "ratio")}
        return cls(values["case"], measured, values.get("ratio"))


@dataclasses.dataclass(frozen=True)
class Measurements:
    """A measurement file: an environment and rows, each relative to a baseline.

    Attributes:
        environment: where it was measured.
        rows: the cases, in the order in which a reader wants them.
        baseline: the case that the ratios refer to; None where there is none.
        details: what else the file records (settings, notes), by key.
    """

    environment: Environment
    rows: list[Row]
    baseline: str | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, case: str) -> Row:
        """The row of that name; KeyError where there is none."""
        for row in self.rows:
            if row.case == case:
                return row
        raise KeyError(case)

    def to_dict(self) -> dict[str, Any]:
        """The form in the file."""
        return {
            "environment": self.environment.to_dict(),
            "baseline": self.baseline,
            **({"details": self.details} if self.details else {}),
            "rows": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        return cls(
            environment=Environment(**values["environment"]),
            rows=[Row.from_dict(row) for row in values["rows"]],
            baseline=values["baseline"],
            details=values.get("details", {}),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file atomically."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file.

        Raises:
            UserError: if it is missing, no JSON, or not of this form.
        """
        values = read_json(path)
        try:
            return cls.from_dict(values)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: is no measurement file: {error!r}") from error


def _processor() -> tuple[str, set[str]]:
    """Name and feature flags of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor() or platform.machine(), set()
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.machine()), set(flags.split())


def installed_versions() -> dict[str, str]:
    """The installed version of each of :data:`REPORTED_PACKAGES` that is there."""
    found = {}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
