import numpy as np
import pytest

from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.quantization import quantize_onnx
from distilrubert.conversion.tied_embeddings import tied_embeddings

pytestmark = pytest.mark.export

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def source(tiny_student, sentences):
    return ExportSource.of_text(tiny_student, ConversionSettings(task="fill-mask"), sentences[:4])


def arrays_of(path):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_one_table_has_the_vocabulary(source, tiny_student, tmp_path):
    quantize_onnx(source.smoothed_graph, tmp_path / "int8.onnx", seven_bits=True)
    onnx.checker.check_model(str(tmp_path / "int8.onnx"), full_check=True)
    size, width = tiny_student.model.config.vocab_size, tiny_student.model.config.dim
    tables = [
        array for array in arrays_of(tmp_path / "int8.onnx").values() if sorted(array.shape) == sorted([size, width])
    ]
    assert [(table.shape, table.dtype) for table in tables] == [((size, width), np.int8)]
    assert np.abs(tables[0].astype(int)).max() <= 64, "or the product may saturate"


def test_weights_with_zeros_of_their_own_stay_apart(source, tiny_student, tmp_path):
    quantize_onnx(source.smoothed_graph, tmp_path / "int8.onnx", signed=False)
    onnx.checker.check_model(str(tmp_path / "int8.onnx"), full_check=True)
    size, width = tiny_student.model.config.vocab_size, tiny_student.model.config.dim
    shapes = [
        array.shape for array in arrays_of(tmp_path / "int8.onnx").values() if size in array.shape and array.ndim == 2
    ]
    assert sorted(shapes) == sorted([(size, width), (width, size)])


def test_it_computes_what_two_tables_do(source, sentences, tmp_path, monkeypatch):
    import onnxruntime

    graph = source.smoothed_graph
    quantize_onnx(graph, tmp_path / "one.onnx")
    monkeypatch.setattr("distilrubert.conversion.quantization.tied_embeddings", lambda graph: None)
    quantize_onnx(graph, tmp_path / "two.onnx")
    inputs = dict(source.tokenizer(sentences[:3], padding=True, return_tensors="np"))
    one, two = (
        onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(None, inputs)[0]
        for name in ("one.onnx", "two.onnx")
    )
    truth = source.model(**source.tokenizer(sentences[:3], padding=True, return_tensors="pt")).logits.detach().numpy()
    errors = [np.abs(found - truth)[inputs["attention_mask"] == 1].mean() for found in (one, two)]
    # A scale for each token is no worse than one for all.
    assert errors[0] < 1.1 * errors[1]


def test_an_encoder_and_untied_weights_have_nothing_to_share(source, tiny_student):
    assert tied_embeddings(source.smoothed_graph) is not None
    assert tied_embeddings(source.for_task("feature-extraction").smoothed_graph) is None
