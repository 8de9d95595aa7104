"""What the names of measured cases and of published files mean to a reader."""

import dataclasses
from typing import Self

from distilrubert.common.formats import CASES
from distilrubert.common.measurements import Row

RUNTIMES = {"pytorch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}
MODELS = {"teacher": "Teacher", "student": "Student"}


@dataclasses.dataclass(frozen=True)
class Case:
    """A measured case by the parts of its name, ``student-onnx-int8`` or ``teacher-pytorch-fp32-cuda``.

    Attributes:
        model: teacher, student, or what else was measured.
        file: a key of :data:`~distilrubert.common.formats.CASES`; empty for a model that is no file.
        cuda: whether it ran on a GPU.
    """

    model: str
    file: str
    cuda: bool

    @classmethod
    def parse(cls, name: str) -> Self:
        """The case of that name."""
        on_cpu = name.removesuffix("-cuda")
        file = next((file for file in CASES if on_cpu.endswith(f"-{file}")), "")
        return cls(on_cpu.removesuffix(f"-{file}"), file, on_cpu != name)

    @property
    def runtime(self) -> str:
        """What runs its file; empty where there is none."""
        return CASES[self.file].format.runtime if self.file else ""

    @property
    def file_label(self) -> str:
        """What the card and its pictures call the file."""
        variant = self.file.removeprefix(f"{self.runtime}-").replace("-in-", " in ")
        return f"{RUNTIMES.get(self.runtime, self.runtime)} {variant}".strip()

    @property
    def label(self) -> str:
        """What the card and its pictures call the model and the file."""
        return ", ".join(filter(None, (MODELS.get(self.model, self.model), self.file_label)))


def stored_in_16_bits(row: Row) -> bool:
    """Whether a PyTorch row of a speed report was read from a file with two bytes a parameter: fp16 or bf16."""
    parameters = row.values.get("parameters")
    # Between two bytes and four; headers and buffers take little.
    return bool(
        Case.parse(row.case).runtime == "pytorch" and parameters and row.values["size_mib"] * 2**20 / parameters < 3
    )


def file_of(case: str) -> str:
    """The path of the file that a report calls `case`, as code, and the arithmetic if it is not fp32.

    A case that is not known stands for itself.
    """
    known = CASES.get(case)
    if known is None:
        return case
    return f"`{known.format.path}`" if known.hint == "fp32" else f"`{known.format.path}` in {known.hint}"
