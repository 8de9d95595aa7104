"""benchmarks/inference/onnx_attention.py compares two files of the same model that differ in attention alone."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from distilrubert.common.measurements import Measurements

pytestmark = pytest.mark.export
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks/inference"))
    shapes = importlib.import_module("random_models")
    module = importlib.import_module("onnx_attention")
    monkeypatch.setattr(module, "FULL", {"teacher": shapes.QUICK["teacher"], "base": shapes.QUICK["base"]})
    monkeypatch.setattr(module, "INPUTS", ((16, 1), (8, 3)))
    return module


def test_both_forms_compute_the_same(benchmark, tmp_path):
    paths = benchmark.write_forms("base", tmp_path)
    ids_BL = np.arange(10, 26).reshape(2, 8)
    inputs = {"input_ids": ids_BL, "attention_mask": np.array([[1] * 8, [1] * 5 + [0] * 3])}
    found = {}
    for form, path in paths.items():
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found[form] = session.run(None, inputs)[0][inputs["attention_mask"] == 1]
        operators = [node.op_type for node in onnx.load(path).graph.node]
        assert operators.count("MultiHeadAttention") == (form == "one_operator")
        assert operators.count("Softmax") == (form == "written_out")
    np.testing.assert_allclose(found["one_operator"], found["written_out"], atol=0.02)


def test_the_report_has_the_median_ratio_of_each_input(benchmark, tmp_path, monkeypatch):
    times = {"one_operator": [1.0, 4.0, 9.0], "written_out": [2.0, 4.0, 10.0]}
    monkeypatch.setattr(benchmark, "turn", lambda path, *_: {"16 x 1": times[path.stem.partition("-")[2]].pop(0)})
    output = tmp_path / "report.json"
    monkeypatch.setattr("sys.argv", ["onnx_attention.py", "--output", str(output), "--models", "base", "--turns", "3"])
    benchmark.main()
    (row,) = Measurements.load(output).rows
    assert row.case == "base-16 x 1"
    assert row.values["time_ratio"] == 0.9
    assert row.values["one_operator_s"] == [1.0, 4.0, 9.0]
