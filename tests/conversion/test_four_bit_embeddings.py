"""Axes: V vocabulary, D width."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from transformers import DistilBertConfig, DistilBertModel

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerance
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.four_bit_embeddings import BLOCK, pack_onnx_table
from distilrubert.conversion.model_folder import convert

pytestmark = pytest.mark.export

onnx = pytest.importorskip("onnx")


def graph_with(table_VD: np.ndarray) -> "onnx.ModelProto":
    """Rows of a table by input_ids."""
    from onnx import TensorProto, helper, numpy_helper

    gather = helper.make_node("Gather", ["table", "input_ids"], ["rows"], name="word/Gather", axis=0)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "length", table_VD.shape[1]])
    graph = helper.make_graph([gather], "rows", [ids], [rows], [numpy_helper.from_array(table_VD, "table")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def read_rows(model: "onnx.ModelProto", rows: int) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": np.arange(rows)[None]})[0][0]


# The second width ends in a block of eight.
@pytest.mark.parametrize("width", [2 * BLOCK, 40])
def test_rows_come_back_within_half_a_step(width: int) -> None:
    generator = np.random.default_rng(0)
    table_VD = generator.standard_normal((7, width), dtype=np.float32)
    model = graph_with(table_VD)
    pack_onnx_table(model)
    onnx.checker.check_model(model)
    found_VD = read_rows(model, 7)
    for start in range(0, width, BLOCK):
        block_VD = table_VD[:, start : start + BLOCK]
        # Steps of an eighth of the largest number; at the other end of the range 8 steps become 7.
        step_V1 = np.abs(block_VD).max(axis=1, keepdims=True) / 8
        error_VD = np.abs(found_VD[:, start : start + BLOCK] - block_VD) / step_V1
        assert error_VD.max() < 1.01
        assert np.median(error_VD) < 0.3
    assert sum(len(tensor.raw_data) for tensor in model.graph.initializer) == 7 * (width // 2 + 2 * -(-width // BLOCK))


def test_numbers_of_four_bits_and_zeros_are_exact() -> None:
    table_VD = np.zeros((3, BLOCK), np.float32)
    table_VD[0, :16] = 0.25 * np.arange(-8, 8)
    # The largest number may be positive: its scale is negative then.
    table_VD[1] = -table_VD[0]
    too_small_VD = np.full((1, BLOCK), 1e-9, np.float32)
    model = graph_with(np.concatenate([table_VD, too_small_VD]))
    pack_onnx_table(model)
    np.testing.assert_array_equal(read_rows(model, 4), np.concatenate([table_VD, 0 * too_small_VD]))


def test_both_runtimes_get_smaller_and_stay_close(tiny_student_folder, sentences, tmp_path) -> None:
    import openvino

    files = ["onnx/model_quantized.onnx", "openvino/openvino_model_qint8_quantized.bin"]
    sizes = {}
    for bits in (8, 4):
        # Random weights suffer more than those of a real model.
        bounds = {"int8": Tolerance(token_cosine=0.97, pooled_cosine=0.8)}
        settings = ConversionSettings(onnx=["int8"], openvino=["int8"], embedding_bits=bits, tolerance=bounds)
        folder = tmp_path / str(bits)
        report = derive(convert(tiny_student_folder, folder, settings, sentences[6:], sentences[:6]))
        assert report.details["int8"]["embedding_bits"] == bits
        sizes[bits] = [(folder / file).stat().st_size for file in files]
    config = DistilBertConfig.from_pretrained(tiny_student_folder)
    table = config.vocab_size * config.dim
    # Half a byte a number less, and a scale in 16 bits for each block.
    for before, after in zip(sizes[8], sizes[4], strict=True):
        assert before - after > 0.3 * table
    stored = onnx.load(tmp_path / "4" / files[0])
    operators = Counter(node.op_type for node in stored.graph.node)
    assert operators["GatherBlockQuantized"] == 1
    graph = openvino.Core().read_model(str((tmp_path / "4" / files[1]).with_suffix(".xml")))
    constants = [node for node in graph.get_ops() if node.get_type_name() == "Constant"]
    assert Counter(node.get_element_type().get_type_name() for node in constants)["i4"] == 1


def test_a_head_over_the_vocabulary_keeps_eight_bits(tiny_student, sentences) -> None:
    settings = ConversionSettings(task="fill-mask", embedding_bits=4)
    source = ExportSource.of_text(tiny_student, settings, sentences[:2])
    assert source.embedding_bits == 8
    assert source.for_task("feature-extraction").embedding_bits == 4


def test_an_odd_width_is_refused(tiny_student, sentences) -> None:
    source = ExportSource.of_text(tiny_student, ConversionSettings(embedding_bits=4), sentences[:2])
    model = DistilBertModel(DistilBertConfig(vocab_size=9, dim=33, n_layers=1, n_heads=3, hidden_dim=8))
    odd = dataclasses.replace(source, model=model)
    with pytest.raises(UserError, match=r"conversion\.embedding_bits: 4 needs an even width, and the model has 33"):
        _ = odd.embedding_bits
