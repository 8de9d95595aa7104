"""The runtimes that speed is measured on: one entry for each, which file it runs and how.

Imported by the measured process before its runtime, so nothing heavy at the top.
Axes: B batch, L sequence length.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Forward = Callable[[], object]
"""One pass, begun and finished; returns what the file does: of an encoder the last hidden state (B, L, D)."""
Session = Callable[[NDArray[np.int64]], Forward]
"""From token ids (B, L), all of them real tokens, to a pass over them; inputs are on the device by then."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """A runtime and number format.

    Attributes:
        files: the file that it runs, by its path in a model folder; the first that is there.
        companions: files that belong to it and count into its size.
        open: from folder, device and threads to a session.
        devices: on which it can run.
        machines: processors that its file is made for, as :func:`platform.machine` names them; none: all.
    """

    files: tuple[str, ...]
    open: Callable[[Path, str, int], Session]
    devices: tuple[str, ...] = ("cpu",)
    machines: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()


def _open_pytorch(folder: Path, device: str, threads: int, dtype: str) -> Session:
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", trust_remote_code=False
    )
    model.eval().to(device)

    def prepare(ids_BL: NDArray[np.int64]) -> Forward:
        inputs = {
            "input_ids": torch.from_numpy(ids_BL).to(device),
            "attention_mask": torch.ones(ids_BL.shape, dtype=torch.long, device=device),
        }

        @torch.inference_mode()
        def forward() -> object:
            hidden_BLD = model(**inputs).last_hidden_state
            if device == "cuda":
                torch.cuda.synchronize()
            return hidden_BLD

        return forward

    return prepare


def _open_pytorch_fp32(folder: Path, device: str, threads: int) -> Session:
    return _open_pytorch(folder, device, threads, "float32")


def _open_pytorch_bf16(folder: Path, device: str, threads: int) -> Session:
    return _open_pytorch(folder, device, threads, "bfloat16")


def open_onnx(path: Path, threads: int) -> Session:
    """The encoder in an ONNX file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {graph_input.name for graph_input in session.get_inputs()}

    def prepare(ids_BL: NDArray[np.int64]) -> Forward:
        inputs = {name: array for name, array in _model_inputs(ids_BL).items() if name in names}
        return lambda: session.run(None, inputs)[0]

    return prepare


def open_openvino(path: Path, threads: int, precision: str | None = None) -> Session:
    """The encoder in an OpenVINO file; `precision` of the arithmetic that is not int8, None leaves it to OpenVINO."""
    import openvino

    # As users have it, that is bf16 where the CPU multiplies in it.
    hint = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_NUM_THREADS": threads, **hint})
    request = compiled.create_infer_request()
    names = {graph_input.get_any_name() for graph_input in compiled.inputs}

    def prepare(ids_BL: NDArray[np.int64]) -> Forward:
        inputs = {name: array for name, array in _model_inputs(ids_BL).items() if name in names}
        return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)[0]

    return prepare


def _model_inputs(ids_BL: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """What a BERT or a DistilBERT takes for whole sequences."""
    return {
        "input_ids": ids_BL,
        "attention_mask": np.ones_like(ids_BL),
        "token_type_ids": np.zeros_like(ids_BL),
    }


def _onnx(name: str, machines: tuple[str, ...] = ()) -> Backend:
    return Backend(
        (f"onnx/{name}",),
        lambda folder, device, threads: open_onnx(folder / "onnx" / name, threads),
        machines=machines,
    )


def _openvino(name: str) -> Backend:
    return Backend(
        (f"openvino/{name}.bin",),
        lambda folder, device, threads: open_openvino(folder / "openvino" / f"{name}.xml", threads),
        companions=(f"openvino/{name}.xml",),
    )


X86, ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")
CHECKPOINT = ("model.safetensors", "pytorch_model.bin")
BACKENDS = {
    "pytorch-fp32": Backend(CHECKPOINT, _open_pytorch_fp32, devices=("cpu", "cuda")),
    "pytorch-bf16": Backend(CHECKPOINT, _open_pytorch_bf16, devices=("cpu", "cuda")),
    "onnx-fp32": _onnx("model.onnx"),
    "onnx-int8": _onnx("model_quantized.onnx"),
    "onnx-int8-avx2": _onnx("model_quint8_avx2.onnx", X86),
    "onnx-int8-avx512-vnni": _onnx("model_qint8_avx512_vnni.onnx", X86),
    "onnx-int8-arm64": _onnx("model_qint8_arm64.onnx", ARM),
    "openvino-fp32": _openvino("openvino_model"),
    "openvino-fp16": _openvino("openvino_model_fp16"),
    "openvino-int8": _openvino("openvino_model_qint8_quantized"),
}
