"""What the names of measured cases and of published files mean to a reader."""

import dataclasses
from typing import Self

from distilrubert.common.formats import CASES
from distilrubert.common.measurements import Row

BACKENDS = {"pytorch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A measured case by the parts of its name, ``student-onnx-int8`` or ``teacher-pytorch-fp32-cuda``.

    Attributes:
        model: teacher or student.
        backend: what computes it, as in :data:`BACKENDS`.
        variant: the number format and what else tells files of one backend apart.
        cuda: whether it ran on a GPU.
    """

    model: str
    backend: str
    variant: str
    cuda: bool

    @classmethod
    def parse(cls, name: str) -> Self:
        """The case of that name; missing parts are empty."""
        on_cpu = name.removesuffix("-cuda")
        model, _, rest = on_cpu.partition("-")
        backend, _, variant = rest.partition("-")
        return cls(model, backend, variant, on_cpu != name)

    @property
    def name(self) -> str:
        """The name without the device."""
        return "-".join(filter(None, (self.model, self.backend, self.variant)))

    @property
    def label(self) -> str:
        """What the card and its pictures call it."""
        what = " ".join(filter(None, (BACKENDS.get(self.backend, self.backend), self.variant.replace("-in-", " in "))))
        return ", ".join(filter(None, (self.model.capitalize(), what)))


def stored_in_16_bits(row: Row) -> bool:
    """Whether a PyTorch row of a speed report was read from a file with two bytes a parameter: fp16 or bf16."""
    size, parameters = row.values.get("size_mib"), row.values.get("parameters")
    if Case.parse(row.case).backend != "pytorch" or not size or not parameters:
        return False
    # Between two bytes and four; headers and buffers take little.
    return bool(size * 2**20 / parameters < 3)


def has_default_precision(case: str, row: Row) -> bool:
    """Whether OpenVINO took the number format from the CPU: older reports have one case for each of its files."""
    return Case.parse(case).backend == "openvino" and "hint" not in row.values


def file_of(case: str) -> str:
    """The path of the file that a report calls `case`, as code, and the arithmetic if it is not fp32.

    A case that is not known stands for itself.
    """
    known = CASES.get(case)
    if known is None:
        return f"`{case}`"
    return f"`{known.format.path}`" if known.hint == "fp32" else f"`{known.format.path}` in {known.hint}"
