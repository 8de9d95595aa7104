"""What the names of measured cases and of published files mean to a reader."""

import dataclasses
from typing import Self

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
        """The case of that name; parts that the name lacks are empty."""
        on_cpu = name.removesuffix("-cuda")
        model, _, rest = on_cpu.partition("-")
        backend, _, variant = rest.partition("-")
        return cls(model, backend, variant, on_cpu != name)

    @property
    def name(self) -> str:
        """The name without the device."""
        return "-".join(filter(None, (self.model, self.backend, self.variant)))

    @property
    def follows_cpu(self) -> bool:
        """Whether its runtime takes the precision of the arithmetic from the CPU, whatever the file holds."""
        return self.backend == "openvino"

    @property
    def label(self) -> str:
        """What the card and the figures call it."""
        what = " ".join(filter(None, (BACKENDS.get(self.backend, self.backend), self.variant)))
        return ", ".join(filter(None, (self.model.capitalize(), what)))


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """Weights in the repository.

    Attributes:
        case: what the reports call them, without the model's name.
        what: what they are.
        take_when: who should take them.
    """

    case: str
    what: str
    take_when: str


FILES = {
    "model.safetensors": PublishedFile(
        "pytorch-fp32",
        "PyTorch fp32, with the masked-language-modelling head",
        "you fine-tune, fill masks, or have a GPU",
    ),
    "onnx/model.onnx": PublishedFile("onnx-fp32", "ONNX fp32", "you want ONNX Runtime without any loss of precision"),
    "onnx/model_quantized.onnx": PublishedFile(
        "onnx-int8", "ONNX int8", "you run on a CPU: small and fast, on any processor"
    ),
    "onnx/model_qint8_avx512_vnni.onnx": PublishedFile(
        "onnx-int8-avx512-vnni", "ONNX int8 for x86 with AVX-512 VNNI", "your processor has these instructions"
    ),
    "onnx/model_quint8_avx2.onnx": PublishedFile(
        "onnx-int8-avx2", "ONNX int8 for x86 with AVX2", "your x86 processor is an older one"
    ),
    "onnx/model_qint8_arm64.onnx": PublishedFile("onnx-int8-arm64", "ONNX int8 for ARM64", "your processor is an ARM"),
    "openvino/openvino_model.bin": PublishedFile(
        "openvino-fp32", "OpenVINO fp32 (with its `.xml`)", "you want OpenVINO with unrounded weights"
    ),
    "openvino/openvino_model_fp16.bin": PublishedFile(
        "openvino-fp16",
        "OpenVINO, weights in fp16 (with its `.xml`)",
        "you want half the size, nearly all precision",
    ),
    "openvino/openvino_model_qint8_quantized.bin": PublishedFile(
        "openvino-int8", "OpenVINO int8, calibrated (with its `.xml`)", "you run on an x86 CPU: mostly the fastest file"
    ),
}
"""The weights that a repository can hold, in the order of the card's file list."""


def file_of(case: str) -> str:
    """The path of the file that a report calls `case`; the case itself where there is none."""
    return next((path for path, known in FILES.items() if known.case == case), case)
