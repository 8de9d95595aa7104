import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerances
from distilrubert.conversion.model_folder import convert
from distilrubert.conversion.openvino import export_openvino, quantize_openvino
from distilrubert.modeling.runtimes import open_model, openvino_core

LAYERS = 2


def test_missing_packages_name_the_extra(tiny_student_folder, sentences, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r'pip install "distilrubert\[openvino\]"'):
        convert(tiny_student_folder, tmp_path / "hub", ConversionSettings(onnx=[], openvino=["fp32"]), sentences[:3])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def graphs(converted):
    openvino = pytest.importorskip("openvino")
    folder = converted[0] / "openvino"
    return {path.stem: openvino.Core().read_model(path) for path in folder.glob("*.xml")}


def operators(graph) -> Counter:
    return Counter(node.get_type_name() for node in graph.get_ops())


@pytest.mark.export
def test_inputs_and_output(graphs):
    for graph in graphs.values():
        assert [entry.get_any_name() for entry in graph.inputs] == ["input_ids", "attention_mask"]
        assert all(axis.is_dynamic for entry in graph.inputs for axis in entry.get_partial_shape())
        assert [entry.get_any_name() for entry in graph.outputs] == ["last_hidden_state"]


@pytest.mark.export
def test_attention_is_written_out(graphs):
    for graph in graphs.values():
        found = operators(graph)
        assert found["ScaledDotProductAttention"] == 0
        assert found["MatMul"] == (6 + 2) * LAYERS


@pytest.mark.export
def test_maps_are_quantised_and_narrow_heads_are_not(graphs):
    # One for each input of linear maps, where query, key and value share theirs.
    assert operators(graphs["openvino_model_qint8_quantized"])["FakeQuantize"] == 4 * LAYERS
    assert operators(graphs["openvino_model"])["FakeQuantize"] == 0
    for node in graphs["openvino_model_qint8_quantized"].get_ops():
        if node.get_type_name() == "Softmax":
            (product,) = [target.get_node() for target in node.output(0).get_target_inputs()]
            assert product.get_type_name() == "MatMul"
            assert product.input_value(1).get_node().get_type_name() != "FakeQuantize"


@pytest.mark.export
@pytest.mark.parametrize(("heads", "quantised"), [(2, True), (3, False)], ids=["48 wide", "32 wide"])
def test_scores_of_attention(heads, quantised):
    """A text of as many tokens as a head has dimensions is where OpenVINO's bf16 went wrong, on a CPU with AMX."""
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    shape = DistilBertConfig(
        vocab_size=50, dim=96, n_heads=heads, n_layers=LAYERS, hidden_dim=96, max_position_embeddings=64,
        initializer_range=0.1,
    )  # fmt: skip
    graph = export_openvino(DistilBertModel(shape).eval(), "feature-extraction")
    texts = [{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in np.arange(96).reshape(2, 1, 48) % 50]
    made = quantize_openvino(graph, texts, [])
    # Beside the inputs of the six maps, queries and keys.
    assert operators(made)["FakeQuantize"] == (6 + 2 * quantised) * LAYERS
    text = {name: array[:, : 96 // heads] for name, array in texts[0].items()}
    both = [
        next(iter(openvino_core().compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": hint})(text).values()))
        for hint in ("f32", "bf16")
    ]
    found, expected = (hidden / np.linalg.norm(hidden, axis=-1, keepdims=True) for hidden in both)
    assert (found * expected).sum(axis=-1).min() > 0.99


@pytest.mark.export
def test_weights_and_embeddings_are_bytes(graphs):
    stored = [
        node.data
        for node in graphs["openvino_model_qint8_quantized"].get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in ("i8", "u8")
    ]
    assert len(stored) == 6 * LAYERS + 2
    maps = [weight for weight in stored if weight.shape in {(32, 32), (64, 32), (32, 64)}]
    assert len(maps) >= 6 * LAYERS
    for weight in maps:
        # A scale for each output channel uses the range in each.
        assert (np.abs(weight.astype(int)).max(axis=1) >= 126).all()


@pytest.mark.export
@pytest.mark.parametrize(("task", "of_head"), [("feature-extraction", 0), ("fill-mask", 2)])
def test_a_map_that_int8_hurts_stays_and_is_named(task, of_head, tiny_student_folder, sentences, tmp_path):
    settings = ConversionSettings(onnx=["int8"], openvino=["int8"], task=task, largest_layer_error=1e-6)
    measured = derive(convert(tiny_student_folder, tmp_path / "hub", settings, sentences[:6], sentences))
    assert len(measured.details["int8"]["kept_in_fp32"]) == 6 * LAYERS + of_head
    import onnx
    import openvino

    # Scores of narrow heads are never quantised.
    assert operators(openvino.Core().read_model(next((tmp_path / "hub").rglob("*.xml"))))["FakeQuantize"] == 0
    graph = onnx.load(tmp_path / "hub/onnx/model_quantized.onnx").graph
    assert "MatMulInteger" not in {node.op_type for node in graph.node}


@pytest.mark.export
def test_a_map_that_the_graph_does_not_have_is_not_passed_over(converted):
    openvino = pytest.importorskip("openvino")
    graph = openvino.Core().read_model(converted[0] / "openvino/openvino_model.xml")
    with pytest.raises(AssertionError, match=r"transformer\.layer\.7\.ffn\.lin1"):
        quantize_openvino(graph, [], ["transformer.layer.7.ffn.lin1"])


@pytest.mark.export
def test_files_for_fill_mask_return_logits(tiny_student, tiny_student_folder, all_files, sentences, tmp_path):
    files = {"onnx": ["fp32", "int8"], "openvino": ["fp32", "int8"], "task": "fill-mask"}
    settings = all_files.model_copy(update=files)
    measured = derive(convert(tiny_student_folder, tmp_path / "hub", settings, sentences, sentences))
    assert measured["onnx-fp32"].values["top1_agreement"] == measured["openvino-fp32"].values["top1_agreement"] == 1
    assert measured["openvino-int8"].values["top1_agreement"] > 0.9
    model = open_model(tmp_path / "hub", FORMATS["openvino-fp32"], "fill-mask")
    inputs = tiny_student.tokenizer(sentences[0], return_tensors="np")
    with torch.no_grad():
        expected_BLV = tiny_student.model(**tiny_student.tokenizer(sentences[0], return_tensors="pt")).logits
    cosine = torch.cosine_similarity(torch.tensor(model(dict(inputs))[0]), expected_BLV, dim=-1)
    assert cosine.min() > 0.999


@pytest.mark.export
@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_int8_holds_its_tolerance_without_vnni(instructions, converted, tiny_student, sentences, tmp_path):
    # oneDNN's limit takes VNNI, and what came after it, from the runtime; sums in 16 bits can saturate then. These
    # random weights suffer more (0.987) than those of a real model, see quantize_openvino.
    lines = {"path": str(converted[0] / "openvino/openvino_model_qint8_quantized.xml"), "batches": []}
    expected = []
    for text in sentences[:20]:
        inputs = tiny_student.tokenizer(text, return_tensors="pt")
        lines["batches"].append({name: tensor.tolist() for name, tensor in inputs.items()})
        with torch.no_grad():
            expected.append(tiny_student.model.base_model(**inputs).last_hidden_state[0])
    (tmp_path / "inputs.json").write_text(json.dumps(lines))
    program = (
        "import json, numpy, openvino\n"
        "given = json.load(open('inputs.json'))\n"
        "model = openvino.Core().compile_model(given['path'], 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
        "run = lambda inputs: model({name: numpy.array(rows) for name, rows in inputs.items()})[0][0]\n"
        "numpy.save('hidden.npy', numpy.concatenate([run(inputs) for inputs in given['batches']]))\n"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, env=environment)
    cosine = torch.cosine_similarity(torch.tensor(np.load(tmp_path / "hidden.npy")), torch.cat(expected), dim=-1)
    assert cosine.mean() > Tolerances().int8.token_cosine
