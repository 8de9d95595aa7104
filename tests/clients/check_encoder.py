"""A published encoder of sentences in the libraries that people load it with, by its id, from a Hub.

Run by ``make test-clients`` through on_hub.py, without this package: in the clients' environment, and for the backend
ONNX, whose classes in optimum ask for transformers 4, in the project's own.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

REPO_ID = os.environ["REPO_ID"]
EXPECTED = json.loads((Path(os.environ["FOLDER"]) / "expected.json").read_text(encoding="utf-8"))
SENTENCES, PROMPTS = EXPECTED["sentences"], EXPECTED["prompts"]
QUERIES, DOCUMENTS = (np.array(EXPECTED["prompted_vectors"][kind]) for kind in ("query", "document"))


def assert_close(found_BD, expected_BD, precision="fp32") -> None:
    found_BD = np.asarray(found_BD)
    np.testing.assert_allclose(np.linalg.norm(found_BD, axis=1), 1, atol=1e-3)
    cosines = (found_BD * expected_BD).sum(axis=1)
    assert cosines.min() > EXPECTED["least_cosine"][precision], cosines


@pytest.mark.parametrize(
    ("backend", "file_name", "precision"),
    [
        ("torch", None, "fp32"),
        # What a backend takes where nobody names a file.
        ("onnx", None, "fp32"),
        ("onnx", "onnx/model_quantized.onnx", "int8"),
        ("openvino", None, "bf16"),
        ("openvino", "openvino/openvino_model_qint8_quantized.xml", "int8"),
    ],
)
def test_sentence_transformers(backend, file_name, precision):
    from sentence_transformers import SentenceTransformer

    if backend == "onnx":
        pytest.importorskip("optimum.onnxruntime")
    options = {"file_name": file_name} if file_name else {}
    model = SentenceTransformer(REPO_ID, backend=backend, model_kwargs=options, device="cpu")
    assert_close(model.encode_query(SENTENCES), QUERIES, precision)
    assert_close(model.encode_document(SENTENCES), DOCUMENTS, precision)
    assert_close(model.encode(SENTENCES), QUERIES, precision)
    scores = model.similarity(model.encode_query(SENTENCES[:2]), model.encode_document(SENTENCES))
    np.testing.assert_allclose(scores, QUERIES[:2] @ DOCUMENTS.T, atol=0.1)


def test_langchain():
    from langchain_huggingface import HuggingFaceEmbeddings

    # As docs/sentence-encoders.md has it.
    model = HuggingFaceEmbeddings(
        model_name=REPO_ID, encode_kwargs={"prompt_name": "document"}, query_encode_kwargs={"prompt_name": "query"}
    )
    assert_close([model.embed_query(sentence) for sentence in SENTENCES], QUERIES)
    assert_close(model.embed_documents(SENTENCES), DOCUMENTS)


def test_llama_index():
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    # As docs/sentence-encoders.md has it.
    model = HuggingFaceEmbedding(
        REPO_ID, query_instruction=PROMPTS["query"], text_instruction=PROMPTS["document"], device="cpu"
    )
    assert_close([model.get_query_embedding(sentence) for sentence in SENTENCES], QUERIES)
    assert_close(model.get_text_embedding_batch(SENTENCES), DOCUMENTS)


def test_mteb():
    import mteb
    from datasets import Dataset
    from mteb.abstasks import AbsTaskSTS
    from sentence_transformers import SentenceTransformer

    class Pairs(AbsTaskSTS):
        """Each sentence with the next one; people's judgement is what PyTorch said."""

        metadata = mteb.TaskMetadata(
            name="Pairs",
            dataset={"path": "none/pairs", "revision": "1"},
            description="Pairs of sentences.",
            type="STS",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["rus-Cyrl"],
            main_score="cosine_spearman",
        )
        min_score, max_score = -1, 1

        def load_data(self, *_, **__):
            scores = (QUERIES[:-1] * QUERIES[1:]).sum(axis=1)
            rows = {"sentence1": SENTENCES[:-1], "sentence2": SENTENCES[1:], "score": scores}
            self.dataset, self.data_loaded = {"test": Dataset.from_dict(rows)}, True

    model = SentenceTransformer(REPO_ID, device="cpu")
    found = mteb.evaluate(model, Pairs(), cache=None, co2_tracker=False)
    (scores,) = found.task_results[0].scores["test"]
    assert scores["cosine_spearman"] == pytest.approx(1)


def test_what_text_embeddings_inference_reads():
    """The files and keys that its router and its backend in Candle ask for (1.8); one that is missing ends it."""
    from huggingface_hub import hf_hub_download
    from safetensors import safe_open
    from tokenizers import Tokenizer

    def read(name):
        return json.loads(Path(hf_hub_download(REPO_ID, name)).read_text(encoding="utf-8"))

    config, pooling = read("config.json"), read("1_Pooling/config.json")
    assert config["model_type"] == "distilbert"
    assert not any(name.endswith("Classification") for name in config["architectures"])
    sizes = [config[name] for name in ("vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "pad_token_id")]
    assert all(type(size) is int for size in sizes)
    assert config["activation"] == "gelu"
    # In every version a mode that is not named is a mistake, not false.
    modes = {name: value for name, value in pooling.items() if name.startswith("pooling_mode_")}
    needed = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    assert {f"pooling_mode_{mode}" for mode in needed} <= modes.keys()
    assert [name for name, value in modes.items() if value is not False] == ["pooling_mode_mean_tokens"]
    assert type(read("sentence_bert_config.json")["max_seq_length"]) is int
    assert read("config_sentence_transformers.json")["prompts"] == PROMPTS
    assert [module["path"] for module in read("modules.json")] == ["", "1_Pooling", "2_Normalize"]
    ids = Tokenizer.from_file(hf_hub_download(REPO_ID, "tokenizer.json")).encode(SENTENCES[0]).ids
    assert max(ids) < config["vocab_size"]
    with safe_open(hf_hub_download(REPO_ID, "model.safetensors"), "pt") as weights:
        names = set(weights.keys())
        assert weights.get_slice("embeddings.word_embeddings.weight").get_shape() == [sizes[0], sizes[1]]
        assert weights.get_slice("embeddings.word_embeddings.weight").get_dtype() == "F32"
    parts = ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2")
    parts += ("sa_layer_norm", "output_layer_norm")
    layers = range(config["n_layers"])
    wanted = {f"transformer.layer.{i}.{part}.{kind}" for i in layers for part in parts for kind in ("weight", "bias")}
    assert wanted <= names


@pytest.mark.parametrize("name", ["onnx/model.onnx"])
def test_the_graph_that_text_embeddings_inference_runs(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    from huggingface_hub import hf_hub_download

    session = onnxruntime.InferenceSession(hf_hub_download(REPO_ID, name), providers=["CPUExecutionProvider"])
    assert {graph_input.name for graph_input in session.get_inputs()} == {"input_ids", "attention_mask"}
    assert session.get_outputs()[0].name == "last_hidden_state"
