"""The file formats of a model repository: one entry for each, read by all rooms.

A new format is an entry here and a writer in :data:`distilrubert.conversion.writers.WRITERS`. If its runtime is new, it
also needs an opener in :data:`distilrubert.modeling.runtimes.OPENERS` and a list of that name in the settings.
"""

import dataclasses
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import sha256_of

Hint = Literal["fp32", "bf16"]
"""Number format of the arithmetic that is not int8, whatever the file stores."""
OPENVINO_HINTS: dict[Hint, str] = {"fp32": "f32", "bf16": "bf16"}
"""Values of OpenVINO's INFERENCE_PRECISION_HINT."""

X86, ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")


@dataclasses.dataclass(frozen=True)
class FileFormat:
    """A kind of model file.

    Attributes:
        runtime: what runs it: a key of :data:`distilrubert.modeling.runtimes.OPENERS`.
        name: tells the files of one runtime apart; settings and reports use it.
        path: its place in a model repository.
        precision: number format of what it stores; the tolerances have a field of this name.
        title: what the model card calls it.
        take_when: for whom it is, as the model card says it.
        companions: paths of other files that it needs.
        machines: processors that it is made for, as :func:`platform.machine` names them; empty: all.
        hints: number formats in which its runtime can compute it.
        alternatives: paths at which other projects keep the same content.
        task: what it always returns, as optimum names tasks; None: what the conversion was asked for.
    """

    runtime: str
    name: str
    path: str
    precision: Literal["fp32", "fp16", "int8"]
    title: str
    take_when: str
    companions: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    hints: tuple[Hint, ...] = ("fp32",)
    alternatives: tuple[str, ...] = ()
    task: Literal["fill-mask"] | None = None

    @property
    def case(self) -> str:
        """Its name in reports: ``onnx-int8``."""
        return f"{self.runtime}-{self.name}"

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of all its files."""
        return self.path, *self.companions

    @property
    def runs_here(self) -> bool:
        """Whether it is made for this machine's processor."""
        return not self.machines or platform.machine() in self.machines

    def find(self, folder: Path) -> list[Path]:
        """Its files in a folder.

        Raises:
            UserError: if one is missing.
        """
        main = next((path for path in (self.path, *self.alternatives) if (folder / path).is_file()), None)
        missing = [path for path in self.companions if not (folder / path).is_file()]
        if main is None or missing:
            wanted = " and ".join(missing) if main else " or ".join((self.path, *self.alternatives))
            raise UserError(f"{folder}: {wanted} is missing")
        return [folder / path for path in (main, *self.companions)]

    def opened_in(self, folder: Path) -> Path:
        """That of its files in a folder which its runtime opens: its companion where it has one, as OpenVINO's graph.

        Raises:
            UserError: if one is missing.
        """
        return self.find(folder)[-1]

    def is_in(self, folder: Path) -> bool:
        """Whether a folder has all its files."""
        try:
            return bool(self.find(folder))
        except UserError:
            return False

    def size_mib(self, folder: Path) -> float:
        """Size of all its files in a folder, MiB; UserError if one is missing."""
        return sum(path.stat().st_size for path in self.find(folder)) / 2**20

    def digests(self, folder: Path) -> dict[str, str]:
        """SHA-256 of each of its files in a folder, by path; UserError if one is missing."""
        return {path.relative_to(folder).as_posix(): sha256_of(path) for path in self.find(folder)}


BOTH: tuple[Hint, ...] = ("fp32", "bf16")
FORMATS = {
    entry.case: entry
    for entry in (
        FileFormat(
            "pytorch", "fp32", "model.safetensors", "fp32",
            "PyTorch fp32, the whole model", "you fine-tune, or have a GPU",
            hints=BOTH, alternatives=("pytorch_model.bin",),
        ),
        FileFormat(
            "onnx", "fp32", "onnx/model.onnx", "fp32",
            "ONNX fp32", "you want ONNX Runtime without any loss of precision",
        ),
        FileFormat(
            "onnx", "int8", "onnx/model_quantized.onnx", "int8",
            "ONNX int8", "you run on a CPU: small and fast, on any processor",
        ),
        FileFormat(
            "onnx", "int8-avx2", "onnx/model_quint8_avx2.onnx", "int8",
            "ONNX int8 for x86 with AVX2", "your x86 processor is an older one", machines=X86,
        ),
        FileFormat(
            "onnx", "int8-avx512-vnni", "onnx/model_qint8_avx512_vnni.onnx", "int8",
            "ONNX int8 for x86 with AVX-512 VNNI", "your processor has these instructions", machines=X86,
        ),
        FileFormat(
            "onnx", "int8-arm64", "onnx/model_qint8_arm64.onnx", "int8",
            "ONNX int8 for ARM64", "your processor is an ARM", machines=ARM,
        ),
        # A name that optimum-onnx and transformers.js load with the class for masked language models.
        FileFormat(
            "onnx", "masked-lm-int8", "onnx/masked_lm_quantized.onnx", "int8",
            "ONNX int8, with the masked-language-modelling head", "you fill masks on a CPU or in a browser",
            task="fill-mask",
        ),
        FileFormat(
            "openvino", "fp32", "openvino/openvino_model.bin", "fp32",
            "OpenVINO fp32 (with its `.xml`)", "you want OpenVINO with unrounded weights",
            companions=("openvino/openvino_model.xml",), hints=BOTH,
        ),
        FileFormat(
            "openvino", "fp16", "openvino/openvino_model_fp16.bin", "fp16",
            "OpenVINO, weights in fp16 (with its `.xml`)", "you want half the size, nearly all precision",
            companions=("openvino/openvino_model_fp16.xml",), hints=BOTH,
        ),
        FileFormat(
            "openvino", "int8", "openvino/openvino_model_qint8_quantized.bin", "int8",
            "OpenVINO int8, calibrated (with its `.xml`)", "you run on an x86 CPU: mostly the fastest file",
            companions=("openvino/openvino_model_qint8_quantized.xml",), hints=BOTH,
        ),
    )
}  # fmt: skip
CHECKPOINT = FORMATS["pytorch-fp32"]

SHARED_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json",
    "config_sentence_transformers.json",
)  # fmt: skip
"""Paths of what the files of all formats are used with: configuration, tokenizer, pooling. Not every model has all."""


@dataclasses.dataclass(frozen=True)
class FormatCase:
    """A file format, and the number format of the arithmetic: what a row of a report measures."""

    format: FileFormat
    hint: Hint = "fp32"

    @property
    def name(self) -> str:
        """In reports: ``openvino-int8`` for fp32 arithmetic, else ``openvino-int8-in-bf16``; ``pytorch-bf16``."""
        if self.hint == "fp32":
            return self.format.case
        # PyTorch converts the weights too, so nothing of the fp32 is left.
        return "pytorch-bf16" if self.format.runtime == "pytorch" else f"{self.format.case}-in-bf16"


CASES = {case.name: case for entry in FORMATS.values() for hint in entry.hints for case in [FormatCase(entry, hint)]}


def names_of(runtime: str, *, for_any_task: bool = False) -> tuple[str, ...]:
    """Names of the formats of one runtime, as settings list them; all, or those without a task of their own."""
    return tuple(
        entry.name for entry in FORMATS.values() if entry.runtime == runtime and not (for_any_task and entry.task)
    )


def measured_cases(formats: Iterable[FileFormat], instruction_sets: Iterable[str]) -> list[FormatCase]:
    """The cases that parity and speed both measure on a machine.

    OpenVINO computes in bf16 by itself if the CPU has instructions for it (named as in
    :class:`~distilrubert.common.measurements.Environment`). There each of its files has two cases.
    """
    has_bf16 = any("bf16" in name for name in instruction_sets)
    return [
        FormatCase(entry, hint)
        for entry in formats
        for hint in entry.hints
        if hint == "fp32" or (has_bf16 and entry.runtime == "openvino")
    ]
