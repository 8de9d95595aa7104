"""The profile of benchmarks/ finds in a runtime's report what a pass consists of."""

import importlib
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.export
pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")


def test_each_pass_of_each_runtime_is_split_into_its_kinds(converted, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks/inference"))
    module = importlib.import_module("time_profile")
    hub = converted
    before = sorted(hub.rglob("*"))
    ids_BL = np.full((1, 32), 7)
    inputs = {"input_ids": ids_BL, "attention_mask": np.ones_like(ids_BL)}
    onnx = module.OnnxFile(hub / "onnx/model_quantized.onnx", threads=1)
    openvino = module.OpenvinoFile(hub / "openvino/openvino_model_qint8_quantized.xml", threads=1)
    figures = module.profile({"onnx": onnx, "openvino": openvino}, inputs)
    assert len(openvino.passes()) == module.PASSES
    for name, found in figures.items():
        assert list(found) == list(module.KINDS)
        assert found[module.PRODUCTS] > 0, name
    assert figures["onnx"][module.ATTENTION] > 0
    assert sorted(hub.rglob("*")) == before
