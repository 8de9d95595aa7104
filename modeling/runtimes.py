"""How a model file is opened and run: one way for parity, speed and scores.

A runtime is imported when the first file of it is opened, so that a measured process holds no other.
Axes: B batch, L padded length, D width, V vocabulary or classes.
"""

import abc
import functools
import inspect
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from distilrubert.common.formats import OPENVINO_HINTS, FileFormat, Hint

if TYPE_CHECKING:
    from torch import nn

Inputs = dict[str, NDArray[np.int64]]
"""What a tokenizer returns, each (B, L)."""
Arrays = tuple[NDArray[np.float32], ...]
Forward = Callable[[], Sequence[Any]]
"""One pass, from inputs that are on the device to outputs that are computed, in the runtime's own arrays."""

OUTPUTS = {
    "feature-extraction": ("last_hidden_state",),
    "fill-mask": ("logits",),
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
}
"""Names of a model's outputs, by its task as optimum names it: the last hidden state (B, L, D) or, with a head, the
logits: (B, L, V), (B, V) if the whole text has one class, or twice (B, L)."""

AUTO_CLASSES = {
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}


def inputs_of_graph(inputs: Inputs, names: Collection[str]) -> Inputs:
    """Those inputs that a graph takes.

    A BERT's graph takes token types, which a tokenizer of another kind does not give: a single text is of type 0.
    """
    given = {name: array for name, array in inputs.items() if name in names}
    if "token_type_ids" in names:
        given.setdefault("token_type_ids", np.zeros_like(inputs["input_ids"]))
    return given


class OpenModel(abc.ABC):
    """A model that is ready to run. Inputs that it does not know are left out."""

    def __call__(self, inputs: Inputs) -> Arrays:
        """The outputs for some inputs, as arrays of their own in fp32."""
        return tuple(self._to_numpy(output) for output in self.prepare(inputs)())

    @abc.abstractmethod
    def prepare(self, inputs: Inputs) -> Forward:
        """Bring inputs to the device; what is returned runs the model on them, as often as it is called."""

    def _to_numpy(self, output: Any) -> NDArray[np.float32]:
        return np.array(output, dtype=np.float32)


class PyTorchModel(OpenModel):
    """A model of transformers in memory."""

    def __init__(self, model: "nn.Module", task: str, device: str = "cpu") -> None:
        """Take a model in evaluation mode on the device."""
        self._model, self._outputs, self._device = model, OUTPUTS[task], device
        self._names = inspect.signature(model.forward).parameters.keys()

    def prepare(self, inputs: Inputs) -> Forward:
        """See :class:`OpenModel`."""
        import torch

        known = {name: array for name, array in inputs.items() if name in self._names}
        given = {name: torch.from_numpy(array).to(self._device) for name, array in known.items()}

        @torch.inference_mode()
        def forward() -> Sequence[Any]:
            found = self._model(**given)
            if self._device == "cuda":
                torch.cuda.synchronize()
            return [found[output] for output in self._outputs]

        return forward

    def _to_numpy(self, output: Any) -> NDArray[np.float32]:
        array: NDArray[np.float32] = output.float().cpu().numpy()
        return array


class _OnnxModel(OpenModel):
    def __init__(self, folder: Path, entry: FileFormat, task: str, *, threads: int | None, **_: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        self._session = onnxruntime.InferenceSession(folder / entry.path, options, providers=["CPUExecutionProvider"])
        self._names = {graph_input.name for graph_input in self._session.get_inputs()}
        self._outputs = OUTPUTS[task]

    def prepare(self, inputs: Inputs) -> Forward:
        given = inputs_of_graph(inputs, self._names)
        return lambda: self._session.run(self._outputs, given)


@functools.cache
def openvino_core() -> Any:
    """The one Core on which this process compiles; it stays until the process ends.

    A Core loads the CPU plugin, which gives the thread a stack for signal handlers and keeps the one before, to restore
    it when it is unloaded. With two Cores of which the first ends first, what is restored has been unmapped (seen with
    openvino 2026.4). The next signal that Python handles, of Ctrl-C or of a DataLoader's worker that ends, then kills
    the process without a message, or overwrites the tensors that were mapped there since.
    """
    import openvino

    return openvino.Core()


class _OpenvinoModel(OpenModel):
    def __init__(
        self, folder: Path, entry: FileFormat, task: str, *, threads: int | None, hint: Hint, **_: Any
    ) -> None:
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": OPENVINO_HINTS[hint]}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        compiled = openvino_core().compile_model(entry.opened_in(folder), "CPU", settings)
        self._names = {graph_input.get_any_name() for graph_input in compiled.inputs}
        self._request = compiled.create_infer_request()
        self._outputs = OUTPUTS[task]

    def prepare(self, inputs: Inputs) -> Forward:
        given = inputs_of_graph(inputs, self._names)

        def forward() -> Sequence[Any]:
            found = self._request.infer(given, share_inputs=True, share_outputs=True)
            return [found[output] for output in self._outputs]

        return forward


def _open_pytorch(
    folder: Path, entry: FileFormat, task: str, *, device: str, threads: int | None, hint: Hint
) -> OpenModel:
    import torch
    import transformers

    from distilrubert.modeling.checkpoints import quiet_transformers

    if threads:
        torch.set_num_threads(threads)
    auto_class = getattr(transformers, AUTO_CLASSES[task])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[hint]
    with quiet_transformers():
        model = auto_class.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False)
    return PyTorchModel(model.eval().to(device), task, device)


OPENERS: dict[str, Callable[..., OpenModel]] = {
    "pytorch": _open_pytorch,
    "onnx": _OnnxModel,
    "openvino": _OpenvinoModel,
}
"""How the files of a runtime are opened, with the arguments of :func:`open_model`."""

DEVICES = {"pytorch": ("cpu", "cuda")}
"""The devices of a runtime that has more than the CPU."""


def devices_of(entry: FileFormat) -> tuple[str, ...]:
    """The devices on which a file can be run."""
    return DEVICES.get(entry.runtime, ("cpu",))


def open_model(
    folder: Path,
    entry: FileFormat,
    task: str = "feature-extraction",
    *,
    device: str = "cpu",
    threads: int | None = None,
    hint: Hint = "fp32",
) -> OpenModel:
    """Open a file of a model folder.

    Args:
        folder: of the model.
        entry: the format of the file.
        task: a key of :data:`OUTPUTS`, unless the format has a task of its own.
        device: one of :func:`devices_of`.
        threads: on the CPU; None leaves the number to the runtime.
        hint: number format of the arithmetic that is not int8; one of ``entry.hints``. OpenVINO computes in fp32 if the
            CPU has no instructions for bf16.
    """
    assert hint in entry.hints, f"{entry.case} cannot be computed in {hint}"
    assert device in devices_of(entry), f"{entry.case} cannot be computed on {device}"
    return OPENERS[entry.runtime](folder, entry, entry.task or task, device=device, threads=threads, hint=hint)
