"""What a user would run instead, as it comes: dynamic int8 by PyTorch and optimum, NNCF's defaults, CTranslate2's int8.

One entry for each peer: the file that it runs and how; and more ways to run our own files: OpenVINO's arithmetic
around int8 held to fp32, where it takes bf16 by itself, and two streams. PyTorch in bf16 is among the package's
backends already.
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distilrubert.evaluation.speed.backends import CHECKPOINT, Backend, open_onnx, open_openvino

if TYPE_CHECKING:
    from distilrubert.conversion.material import Material

logger = logging.getLogger("distilrubert.benchmarks")


def _open_ctranslate2(folder: Path, device: str, threads: int) -> Callable[[NDArray[np.int64]], Callable[[], object]]:
    import ctranslate2

    encoder = ctranslate2.Encoder(
        str(folder / "peers/ctranslate2"), compute_type="int8", inter_threads=1, intra_threads=threads
    )

    def prepare(ids_BL: NDArray[np.int64]) -> Callable[[], object]:
        ids = ids_BL.tolist()
        return lambda: np.asarray(encoder.forward_batch(ids).last_hidden_state)

    return prepare


def _open_pytorch_int8(folder: Path, device: str, threads: int) -> Callable[[NDArray[np.int64]], Callable[[], object]]:
    import torch
    from transformers import AutoModel

    torch.set_num_threads(threads)
    model = torch.ao.quantization.quantize_dynamic(AutoModel.from_pretrained(folder).eval(), {torch.nn.Linear})

    def prepare(ids_BL: NDArray[np.int64]) -> Callable[[], object]:
        inputs = {"input_ids": torch.from_numpy(ids_BL), "attention_mask": torch.ones(ids_BL.shape, dtype=torch.long)}
        return torch.inference_mode()(lambda: model(**inputs).last_hidden_state)

    return prepare


def _open_two_streams(folder: Path, device: str, threads: int) -> Callable[[NDArray[np.int64]], Callable[[], object]]:
    """Our int8 file as a server would run it: half of a batch on each of two streams."""
    import openvino

    path = folder / "openvino/openvino_model_qint8_quantized.xml"
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 2}
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def prepare(ids_BL: NDArray[np.int64]) -> Callable[[], object]:
        halves = [half for half in np.array_split(ids_BL, 2) if len(half)]
        inputs = [{"input_ids": half, "attention_mask": np.ones_like(half)} for half in halves]
        requests = [compiled.create_infer_request() for _ in halves]

        def forward() -> object:
            for request, given in zip(requests, inputs, strict=True):
                request.start_async(given, share_inputs=True)
            for request in requests:
                request.wait()
            return [request.get_output_tensor(0).data for request in requests]

        return forward

    return prepare


def _openvino(path: str, precision: str | None = None) -> Backend:
    return Backend(
        (f"{path}.bin",),
        lambda folder, device, threads: open_openvino(folder / f"{path}.xml", threads, precision),
        companions=(f"{path}.xml",),
    )


PEERS = {
    "openvino-fp32-in-fp32": _openvino("openvino/openvino_model", "f32"),
    "openvino-int8-in-fp32": _openvino("openvino/openvino_model_qint8_quantized", "f32"),
    "openvino-int8-two-streams": Backend(
        ("openvino/openvino_model_qint8_quantized.bin",),
        _open_two_streams,
        companions=("openvino/openvino_model_qint8_quantized.xml",),
    ),
    "peer-pytorch-int8": Backend(CHECKPOINT, _open_pytorch_int8),
    "peer-ortquantizer-int8": Backend(
        ("peers/ortquantizer.onnx",),
        lambda folder, device, threads: open_onnx(folder / "peers/ortquantizer.onnx", threads),
    ),
    "peer-nncf-int8": _openvino("peers/nncf"),
    "peer-nncf-int8-in-fp32": _openvino("peers/nncf", "f32"),
    "peer-ctranslate2-int8": Backend(("peers/ctranslate2/model.bin",), _open_ctranslate2),
}


def write_peers(material: "Material", folder: Path) -> None:
    """Make the peers' files of the same model; CTranslate2's only where it is installed."""
    (folder / "peers").mkdir()
    _write_ortquantizer(material, folder)
    _write_nncf(material, folder)
    try:
        _write_ctranslate2(folder)
    except ImportError:
        logger.warning("CTranslate2 is not installed and is left out: pip install ctranslate2")


def _write_ortquantizer(material: "Material", folder: Path) -> None:
    from optimum.exporters.onnx import export
    from optimum.exporters.tasks import TasksManager
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    from distilrubert.conversion.onnx import quiet_exporters

    config = material.checkpoint.model.config
    describe = TasksManager.get_exporter_config_constructor(
        "onnx", model_type=config.model_type, task="feature-extraction", library_name="transformers"
    )
    with tempfile.TemporaryDirectory(dir=folder) as work, quiet_exporters():
        plain = Path(work) / "model.onnx"
        export(material.exported, describe(config), plain)
        settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
        ORTQuantizer(plain, config=config).quantize(settings, save_dir=work, file_suffix="quantized")
        (Path(work) / "model_quantized.onnx").replace(folder / "peers/ortquantizer.onnx")


def _write_nncf(material: "Material", folder: Path) -> None:
    import nncf
    import openvino
    from openvino._offline_transformations import compress_quantize_weights_transformation

    from distilrubert.conversion.openvino import export_openvino

    graph = export_openvino(material.exported, "feature-extraction")
    inputs = [{name: tensor.numpy() for name, tensor in batch.items()} for batch in material.calibration]
    with contextlib.redirect_stdout(io.StringIO()):
        quantized = nncf.quantize(
            graph, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(inputs)
        )
    compress_quantize_weights_transformation(quantized)
    openvino.save_model(quantized, folder / "peers/nncf.xml", compress_to_fp16=False)


def _write_ctranslate2(folder: Path) -> None:
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(folder)).convert(str(folder / "peers/ctranslate2"), quantization="int8")
