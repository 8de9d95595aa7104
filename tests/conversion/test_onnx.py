from collections import Counter

import numpy as np
import pytest
import torch

from distilrubert.conversion.onnx import export_onnx, graph_of

pytestmark = pytest.mark.export

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("optimum.onnxruntime")


def signature(values) -> dict[str, list[str | int]]:
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_inputs_outputs_and_opset(converted):
    for name in ("model.onnx", "model_quantized.onnx"):
        graph = onnx.load(converted[0] / "onnx" / name)
        onnx.checker.check_model(graph)
        free = ["batch_size", "sequence_length"]
        assert signature(graph.graph.input) == {"input_ids": free, "attention_mask": free}
        assert signature(graph.graph.output) == {"last_hidden_state": [*free, 32]}
        assert {entry.domain: entry.version for entry in graph.opset_import}[""] == 18


def test_layer_norms_are_single_operators(converted):
    graph = onnx.load(converted[0] / "onnx/model.onnx").graph
    assert [node.op_type for node in graph.node].count("LayerNormalization") == 5  # embeddings and 2 × 2


def test_attention_is_written_out_though_openvino_files_were_asked_for(converted):
    nodes = onnx.load(converted[0] / "onnx/model.onnx").graph.node
    made_by = {name: node for node in nodes for name in node.output}
    masked = [made_by[node.input[0]] for node in nodes if node.op_type == "Softmax"]
    assert [node.op_type for node in masked] == ["Add", "Add"]
    assert [made_by[node.input[1]].op_type for node in masked] == ["Mul", "Mul"], "the mask"


def test_attention_is_one_operator_in_int8(converted):
    for path in (converted[0] / "onnx").glob("model_q*.onnx"):
        operators = Counter(node.op_type for node in onnx.load(path).graph.node)
        assert operators["MultiHeadAttention"] == 2, path.name
        assert not operators.keys() & {"Softmax", "MatMul", "Transpose"}, path.name


@pytest.mark.parametrize("kind", ["tiny_student", "tiny_teacher"])
def test_one_operator_computes_what_attention_written_out_does(kind, request):
    model = request.getfixturevalue(kind).model.base_model
    plain, fused = (graph_of(model, "feature-extraction", fused_attention=fused) for fused in (False, True))
    random = np.random.default_rng(0)
    for length, batch in ((1, 1), (2, 3), (17, 4), (64, 2)):
        mask_BL = (np.arange(length) < random.integers(1, length + 1, (batch, 1))).astype(np.int64)
        inputs = {"input_ids": random.integers(5, 100, (batch, length)), "attention_mask": mask_BL}
        known = [entry.name for entry in plain.graph.input]
        inputs = {name: inputs.get(name, np.zeros_like(mask_BL)) for name in known}
        expected, found = (session(graph.SerializeToString()).run(None, inputs)[0] for graph in (plain, fused))
        np.testing.assert_allclose(found[mask_BL == 1], expected[mask_BL == 1], atol=2e-5)


def test_layers_compute_no_sizes_and_share_the_mask(converted):
    for path, reshapes in (
        ("model.onnx", 2 * [[0, -1, 4, 8], [0, -1, 4, 8], [0, -1, 4, 8], [0, -1, 32]]),
        # That of the mask.
        ("model_quantized.onnx", [[0, -1, 1]]),
    ):
        graph = onnx.load(converted[0] / "onnx" / path).graph
        operators = Counter(node.op_type for node in graph.node)
        # Of the lengths only that of the positions is asked for.
        assert operators["Shape"] == 1
        assert not operators.keys() & {"Expand", "Equal"}
        stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        shapes = [stored[node.input[1]].tolist() for node in graph.node if node.op_type == "Reshape"]
        assert sorted(shapes) == sorted(reshapes)
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        assert all(set(node.output) & read for node in graph.node), "nothing is left that computed the sizes"


def test_the_mask_has_one_row_for_all_queries(converted):
    # Else it is computed, and kept, for each pair of tokens.
    model = onnx.load(converted[0] / "onnx/model.onnx")
    lowest = np.finfo(np.float32).min
    constants = {node.output[0] for node in model.graph.node if node.op_type == "Constant" and _value(node) == lowest}
    (mask,) = {node.output[0] for node in model.graph.node if constants & set(node.input)}
    model.graph.output.append(onnx.helper.make_tensor_value_info(mask, onnx.TensorProto.FLOAT, None))
    ids_BL = np.array([[2, 10, 11, 3], [2, 20, 3, 0]])
    values = session(model.SerializeToString()).run(
        [mask], {"input_ids": ids_BL, "attention_mask": (ids_BL > 0).astype(np.int64)}
    )[0]
    assert values.tolist() == [[[[0, 0, 0, 0]]], [[[0, 0, 0, lowest]]]]


def _value(node):
    (value,) = (onnx.numpy_helper.to_array(attribute.t) for attribute in node.attribute)
    return value if value.ndim == 0 else None


def test_others_can_quantise_the_fp32_file(converted, tmp_path):
    # As optimum does it by default: attention too, each operand by its largest number.
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    quantizer = ORTQuantizer.from_pretrained(converted[0] / "onnx", file_name="model.onnx")
    settings = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
    quantizer.quantize(settings, save_dir=tmp_path)
    ids_BL = np.array([[2, 10, 11, 12, 13, 14, 15, 3], [2, 20, 21, 22, 3, 0, 0, 0]])
    inputs = {"input_ids": ids_BL, "attention_mask": (ids_BL > 0).astype(np.int64)}
    expected, found = (
        session(path).run(None, inputs)[0][ids_BL > 0]
        for path in (converted[0] / "onnx/model.onnx", tmp_path / "model_quantized.onnx")
    )
    cosines = (expected * found).sum(-1) / np.linalg.norm(expected, axis=-1) / np.linalg.norm(found, axis=-1)
    assert cosines.min() > 0.95


def test_every_length_and_batch_agrees_with_pytorch(converted, tiny_student):
    run = session(converted[0] / "onnx/model.onnx").run
    generator = torch.Generator().manual_seed(0)
    for length in range(1, tiny_student.model.config.max_position_embeddings + 1):
        batch = length % 3 + 1
        ids_BL = torch.randint(5, 100, (batch, length), generator=generator)
        mask_BL = torch.ones_like(ids_BL)
        for row in range(1, batch):
            mask_BL[row, max(1, length - 2 * row) :] = 0
        with torch.no_grad():
            expected_BLD = tiny_student.model.base_model(ids_BL, attention_mask=mask_BL).last_hidden_state
        found_BLD = run(None, {"input_ids": ids_BL.numpy(), "attention_mask": mask_BL.numpy()})[0]
        difference_BLD = np.abs(found_BLD - expected_BLD.numpy())
        assert difference_BLD[mask_BL.numpy() == 1].max() < 1e-4, (length, batch)


def test_the_mask_hides_what_is_padded(converted):
    run = session(converted[0] / "onnx/model.onnx").run
    ids_BL = np.array([[2, 10, 11, 12, 3, 20, 21]])
    mask_BL = np.array([[1, 1, 1, 1, 1, 0, 0]])
    other_BL = np.where(mask_BL, ids_BL, 77)
    first, second = (run(None, {"input_ids": ids, "attention_mask": mask_BL})[0] for ids in (ids_BL, other_BL))
    np.testing.assert_allclose(first[:, :5], second[:, :5], atol=1e-6)
    unmasked = run(None, {"input_ids": ids_BL, "attention_mask": np.ones_like(ids_BL)})[0]
    assert np.abs(unmasked[:, :5] - first[:, :5]).max() > 1e-2


def test_a_bert_keeps_its_token_types(tiny_teacher, tmp_path):
    export_onnx(tiny_teacher.model.base_model, tmp_path / "model.onnx", "feature-extraction")
    run = session(tmp_path / "model.onnx").run
    inputs = tiny_teacher.tokenizer("Кто там?", "Это я.", return_tensors="pt")
    assert inputs["token_type_ids"].sum() > 0
    with torch.no_grad():
        expected_BLD = tiny_teacher.model.base_model(**inputs).last_hidden_state
    found_BLD = run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    np.testing.assert_allclose(found_BLD, expected_BLD.numpy(), atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx"]


def test_export_leaves_warnings_and_logging_as_they_were(tiny_student, tmp_path, capfd, recwarn):
    import logging

    handlers = list(logging.getLogger().handlers)
    export_onnx(tiny_student.model.base_model, tmp_path / "model.onnx", "feature-extraction")
    assert logging.getLogger().handlers == handlers
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert tiny_student.model.training is False
