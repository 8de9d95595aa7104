from collections import Counter

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.quantization import quantize_onnx

pytestmark = pytest.mark.export

onnx = pytest.importorskip("onnx")
LAYERS, HEADS = 2, 4


@pytest.fixture(scope="module")
def graph(converted):
    return onnx.load(converted[0] / "onnx/model_quantized.onnx").graph


def weights_of(graph, operator: str) -> list[np.ndarray]:
    stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    factor = {"MatMulInteger": 1, "Gather": 0}[operator]
    return [
        stored[node.input[factor]] for node in graph.node if node.op_type == operator and node.input[factor] in stored
    ]


def test_products_with_weights_are_int8_and_those_of_attention_are_not(graph):
    operators = Counter(node.op_type for node in graph.node)
    assert operators["MatMulInteger"] == 6 * LAYERS
    assert operators["MultiHeadAttention"] == LAYERS
    assert operators["MatMul"] == 0


def test_weights_cannot_saturate_a_cpu_without_vnni(graph):
    # VPMADDUBSW adds two products of an unsigned and a signed byte in 16 bits.
    weights = weights_of(graph, "MatMulInteger")
    assert len(weights) == 6 * LAYERS
    for weight in weights:
        assert weight.dtype == np.int8
        assert 2 * 255 * np.abs(weight.astype(int)).max() <= np.iinfo(np.int16).max


def test_each_output_channel_has_its_own_scale_and_uses_its_range(graph):
    zeros = 0
    for weight in weights_of(graph, "MatMulInteger"):
        largest = np.abs(weight.astype(int)).max(axis=0)
        zeros += (largest == 0).sum()
        assert ((largest >= 60) | (largest == 0)).all()
    # One component of each head of queries and of keys is for the mask.
    assert zeros == 2 * HEADS * LAYERS


def test_embeddings_are_bytes(graph):
    tables = [table for table in weights_of(graph, "Gather") if table.ndim == 2 and table.shape[1] == 32]
    assert len(tables) == 2
    assert {table.dtype.itemsize for table in tables} == {1}


def test_a_quarter_of_the_size(converted):
    # Of the numbers in it: a tiny graph is mostly structure.
    fp32, int8 = (
        sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(path).graph.initializer)
        for path in (converted[0] / "onnx/model.onnx", converted[0] / "onnx/model_quantized.onnx")
    )
    assert int8 < 0.32 * fp32


@pytest.mark.parametrize(
    ("name", "dtype", "least", "largest"),
    [
        # Unsigned bytes are widened to 16 bits before AVX2 multiplies them, so that they may use the whole range.
        ("model_quint8_avx2.onnx", np.uint8, 0, 255),
        ("model_qint8_avx512_vnni.onnx", np.int8, -127, 127),
        ("model_qint8_arm64.onnx", np.int8, -127, 127),
    ],
)
def test_files_for_one_kind_of_cpu_use_its_bytes(name, dtype, least, largest, converted):
    weights = weights_of(onnx.load(converted[0] / "onnx" / name).graph, "MatMulInteger")
    assert len(weights) == 6 * LAYERS
    for weight in weights:
        assert weight.dtype == dtype
        assert least <= weight.min()
        assert weight.max() <= largest
        # Eight bits: more than the seven of the file for every CPU.
        assert int(weight.max()) - int(weight.min()) > 200


def test_a_map_that_the_graph_does_not_have_is_not_passed_over(tiny_student, sentences, tmp_path):
    # Or it would be quantised, though it must stay in fp32.
    source = ExportSource.of_text(tiny_student, ConversionSettings(), sentences[:4])
    with pytest.raises(AssertionError, match="transformer/layer/7/ffn/lin1"):
        quantize_onnx(source.smoothed_graph, tmp_path / "int8.onnx", maps_in_fp32=["transformer.layer.7.ffn.lin1"])


def test_maps_in_fp32_are_found_by_their_names(tiny_student, sentences, tmp_path):
    source = ExportSource.of_text(tiny_student, ConversionSettings(), sentences[:4])
    names = [name for name in source.errors if "layer.1" in name]
    assert len(names) == 6
    quantize_onnx(source.smoothed_graph, tmp_path / "int8.onnx", maps_in_fp32=names)
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node)
    assert operators["MatMulInteger"] == 6 * (LAYERS - 1)


def test_maps_of_one_vector_for_each_text_may_stay_in_fp32(tiny_student_folder, tiny_student, sentences, tmp_path):
    """They are Gemm nodes, which quantize_dynamic takes apart into MatMul and Add."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_student_folder, num_labels=3).eval()
    examples = [tiny_student.tokenizer(text) for text in sentences[:4]]
    settings = ConversionSettings(largest_layer_error=1e-9)
    source = ExportSource.of_examples(model, tiny_student.tokenizer, settings, examples, "text-classification")
    assert {"pre_classifier", "classifier"} < {*source.maps_in_fp32}
    quantize_onnx(source.smoothed_graph, tmp_path / "int8.onnx", source.maps_in_fp32)
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node)
    assert operators["MatMulInteger"] == 0
    quantize_onnx(source.smoothed_graph, tmp_path / "int8.onnx", ["classifier"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node)
    assert operators["MatMulInteger"] == 6 * LAYERS + 1
