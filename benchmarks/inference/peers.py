"""What a user would run instead, as it comes.

Dynamic int8 by PyTorch and optimum, the latter also of a graph with fused attention; NNCF's defaults; CTranslate2's
int8; PyTorch compiled, in bf16 on a CPU that has it.

One entry for each peer, in the form of the package's own list of formats; and our own int8 file on two streams.
"""

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distilrubert.common.formats import CASES, CHECKPOINT, FORMATS, FileFormat, FormatCase, Hint
from distilrubert.common.measurements import Environment
from distilrubert.modeling.runtimes import OPENERS, Forward, Inputs, OpenModel, PyTorchModel, openvino_core

if TYPE_CHECKING:
    from distilrubert.conversion.export_source import ExportSource

logger = logging.getLogger("distilrubert.benchmarks")


class _Encoder(OpenModel):
    """CTranslate2's encoder, which takes token ids without padding, and pads by itself."""

    def __init__(self, folder: Path, threads: int) -> None:
        import ctranslate2

        self._encoder = ctranslate2.Encoder(
            str(folder / "peers/ctranslate2"), compute_type="int8", inter_threads=1, intra_threads=threads
        )

    def prepare(self, inputs: Inputs) -> Forward:
        masks = inputs["attention_mask"].astype(bool)
        ids = [row[mask].tolist() for row, mask in zip(inputs["input_ids"], masks, strict=True)]
        return lambda: [np.asarray(self._encoder.forward_batch(ids).last_hidden_state)]


class _TwoStreams(OpenModel):
    """Our int8 file as a server would run it: half of a batch on each of two streams."""

    def __init__(self, path: Path, threads: int) -> None:
        settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 2, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino_core().compile_model(path, "CPU", settings)
        self._names = {graph_input.get_any_name() for graph_input in self._compiled.inputs}

    def prepare(self, inputs: Inputs) -> Forward:
        known = {name: array for name, array in inputs.items() if name in self._names}
        streams = min(2, len(known["input_ids"]))
        halves = [
            {name: np.array_split(array, streams)[part] for name, array in known.items()} for part in range(streams)
        ]
        requests = [self._compiled.create_infer_request() for _ in halves]

        def forward() -> list[Any]:
            for request, given in zip(requests, halves, strict=True):
                request.start_async(given, share_inputs=True)
            for request in requests:
                request.wait()
            return [request.get_output_tensor(0).data for request in requests]

        return forward


def _open_ctranslate2(folder: Path, entry: FileFormat, task: str, *, threads: int, **_: Any) -> OpenModel:
    return _Encoder(folder, threads)


def _open_two_streams(folder: Path, entry: FileFormat, task: str, *, threads: int, **_: Any) -> OpenModel:
    return _TwoStreams(entry.opened_in(folder), threads)


def _open_pytorch(folder: Path, entry: FileFormat, task: str, *, threads: int, hint: Hint, **_: Any) -> OpenModel:
    import torch
    from transformers import AutoModel

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[hint]
    model = AutoModel.from_pretrained(folder, dtype=dtype).eval()
    if entry.name == "compiled":
        # In place, and one graph for all lengths.
        model.compile(dynamic=True)
    else:
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
    return PyTorchModel(model, task)


def _peer(runtime: str, path: str, **others: Any) -> FileFormat:
    return FileFormat(runtime, others.pop("name", "int8"), path, "int8", f"{runtime} int8", "to compare", **others)


_INT8 = FORMATS["openvino-int8"]
_HAS_BF16 = any("bf16" in name for name in Environment.capture().instruction_sets)
_PEERS = (
    _peer("openvino-int8", _INT8.path, name="two-streams", companions=_INT8.companions),
    _peer("peer-pytorch", CHECKPOINT.path, alternatives=CHECKPOINT.alternatives),
    _peer("peer-ortquantizer", "peers/ortquantizer.onnx"),
    _peer("peer-ortoptimizer", "peers/ortoptimizer.onnx"),
    _peer("peer-nncf", "peers/nncf.bin", companions=("peers/nncf.xml",), hints=_INT8.hints),
    _peer("peer-ctranslate2", "peers/ctranslate2/model.bin"),
    _peer(
        "peer-pytorch", CHECKPOINT.path, name="compiled", alternatives=CHECKPOINT.alternatives,
        hints=("bf16",) if _HAS_BF16 else ("fp32",),
    ),
)  # fmt: skip
PEERS = {case.name: case for entry in _PEERS for hint in entry.hints for case in [FormatCase(entry, hint)]}


def register_peers() -> None:
    """Add the peers to the cases that can be measured in this process."""
    CASES.update(PEERS)
    OPENERS.update(
        {
            "openvino-int8": _open_two_streams,
            "peer-pytorch": _open_pytorch,
            "peer-ortquantizer": OPENERS["onnx"],
            "peer-ortoptimizer": OPENERS["onnx"],
            "peer-nncf": OPENERS["openvino"],
            "peer-ctranslate2": _open_ctranslate2,
        }
    )


def write_peers(source: "ExportSource", folder: Path) -> None:
    """Make the peers' files of the same model; CTranslate2's only where it is installed."""
    (folder / "peers").mkdir()
    _write_onnx(source, folder)
    _write_nncf(source, folder)
    try:
        _write_ctranslate2(folder)
    except ImportError:
        logger.warning("CTranslate2 is not installed and is left out: pip install ctranslate2")


def _write_onnx(source: "ExportSource", folder: Path) -> None:
    """What optimum makes of the model: dynamic int8 of its graph, and of that in which ORTOptimizer fused attention."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from optimum.exporters.onnx import export
    from optimum.exporters.tasks import TasksManager
    from optimum.onnxruntime import ORTOptimizer, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoOptimizationConfig, AutoQuantizationConfig

    from distilrubert.conversion.onnx import quiet_exporters

    config = source.model.config
    describe = TasksManager.get_exporter_config_constructor(
        "onnx", model_type=config.model_type, task="feature-extraction", library_name="transformers"
    )
    with tempfile.TemporaryDirectory(dir=folder) as work, quiet_exporters():
        plain = Path(work) / "model.onnx"
        export(source.exported, describe(config), plain)
        settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
        ORTQuantizer(plain, config=config).quantize(settings, save_dir=work, file_suffix="quantized")
        (Path(work) / "model_quantized.onnx").replace(folder / "peers/ortquantizer.onnx")
        ORTOptimizer([plain], config=config).optimize(AutoOptimizationConfig.O2(), work, file_suffix="optimized")
        # ORTQuantizer cannot tell this function the type of what the fused operators return.
        quantize_dynamic(
            Path(work) / "model_optimized.onnx",
            folder / "peers/ortoptimizer.onnx",
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )


def _write_nncf(source: "ExportSource", folder: Path) -> None:
    import nncf
    import openvino
    from openvino._offline_transformations import compress_quantize_weights_transformation

    from distilrubert.conversion.openvino import export_openvino

    graph = export_openvino(source.exported, "feature-extraction")
    inputs = [{name: tensor.numpy() for name, tensor in batch.items()} for batch in source.calibration]
    with contextlib.redirect_stdout(io.StringIO()):
        quantized = nncf.quantize(
            graph, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(inputs)
        )
    compress_quantize_weights_transformation(quantized)
    openvino.save_model(quantized, folder / "peers/nncf.xml", compress_to_fp16=False)


def _write_ctranslate2(folder: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(folder)).convert(str(folder / "peers/ctranslate2"), quantization="int8")
