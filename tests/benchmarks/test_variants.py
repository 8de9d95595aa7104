"""The changes that benchmarks/inference/variants.py times do to a graph what they say."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from distilrubert.modeling.runtimes import openvino_core

pytestmark = pytest.mark.export
openvino = pytest.importorskip("openvino")


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks/inference"))
    return importlib.import_module("variants")


@pytest.fixture
def changed(variants, converted):
    def change(name: str):
        graph = openvino.Core().read_model(converted / variants.FILE)
        variants.VARIANTS[name].change(graph, 7)
        graph.validate_nodes_and_infer_types()
        return graph

    return change


def hidden_of(graph, mask: list[int]) -> np.ndarray:
    model = openvino_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return model({"input_ids": np.arange(7, 14)[None], "attention_mask": np.array([mask])})[0]


def test_without_the_mask_padding_is_seen(changed):
    whole, padded = [1] * 7, [1] * 5 + [0] * 2
    assert np.abs(hidden_of(changed("as-published"), whole) - hidden_of(changed("as-published"), padded)).max() > 1e-2
    np.testing.assert_array_equal(hidden_of(changed("no-mask"), whole), hidden_of(changed("no-mask"), padded))
    np.testing.assert_array_equal(hidden_of(changed("no-mask"), whole), hidden_of(changed("as-published"), whole))


def test_what_attention_quantises(changed):
    def quantised(name: str) -> int:
        return sum(node.get_type_name() == "FakeQuantize" for node in changed(name).get_ops())

    # Two for the scores of each of two layers, and two more for what is done with them.
    assert quantised("as-published") - quantised("scores-in-float") == 4
    assert quantised("probabilities-in-int8") - quantised("as-published") == 4


def test_times_are_relative_to_the_published_file(variants, converted):
    found = variants.compare(converted / variants.FILE, length=7, passes=2)
    assert list(found) == list(variants.VARIANTS)
    assert found["as-published"]["time_ratio"] == 1
    assert all(figures["time_ms"] > 0 for figures in found.values())
