"""Texts of 8,192 tokens from the corpus to the published files: a tiny ModernBERT."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from distilrubert.conversion import export_source
from distilrubert.conversion.conversion_settings import ConversionSettings, Tolerance, Tolerances
from distilrubert.conversion.model_folder import convert
from distilrubert.distill.corpus.build import build_corpus
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.distillation import distill
from distilrubert.distill.distillation_settings import DistillationSettings
from distilrubert.distill.losses import LossWeights
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.student import build_student, save_student

from ..random_teachers import make_teacher

LONGEST = 8192
# Random weights: int8 has to work at this length, not to be close.
LOOSE = Tolerances(int8=Tolerance(token_cosine=0.5, pooled_cosine=-1))
# One head, because onnxruntime has the whole map of attention of each: 268 MB.
SIZES = {
    "hidden_size": 16,
    "num_attention_heads": 1,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "global_attn_every_n_layers": 2,
}


@pytest.fixture(scope="module")
def tokenizer(tokenizers_of_all_kinds: dict[str, PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    own = copy.deepcopy(tokenizers_of_all_kinds["modernbert-bpe"])
    own.model_max_length = LONGEST
    return own


@pytest.fixture(scope="module")
def long_text(sentences: list[str], tokenizer: PreTrainedTokenizerFast) -> str:
    """More tokens than a sequence has."""
    generator, texts = random.Random(0), []
    while len(tokenizer(" ".join(texts), verbose=False)["input_ids"]) <= 1.2 * LONGEST:
        texts += generator.sample(sentences, len(sentences))
    return " ".join(texts)


@pytest.mark.export
@pytest.mark.slow
def test_from_corpus_to_files(
    tokenizer: PreTrainedTokenizerFast,
    sentences: list[str],
    long_text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "texts.txt").write_text(long_text + "\n", encoding="utf-8")
    sources = [{"path": str(tmp_path / "texts.txt")}]
    chosen = CorpusSettings(sources=sources, max_length=LONGEST, processes=1, validation=0)
    corpus = build_corpus(chosen, tokenizer, tmp_path / "corpus", seed=1)
    assert max(corpus.train.lengths) > 0.99 * LONGEST

    teacher = make_teacher("modernbert", tokenizer, max_position_embeddings=LONGEST, **SIZES)
    student = build_student(teacher, StudentArchitecture(layers=2))
    before = student.model.base_model.layers[1].mlp.Wi.weight.clone()
    settings = DistillationSettings(
        weights=LossWeights(kl=1.0, mlm=1.0, cosine=1.0),
        layer_map="last-of-block",
        batch_tokens=LONGEST,
        batches_per_update=1,
        max_steps=2,
        log_every=1,
        precision="fp32",
    )
    report = distill(teacher, student, corpus, settings, tmp_path / "training", seed=1)
    assert np.isfinite(report.details["curves"][-1]["loss"])
    assert not torch.equal(student.model.base_model.layers[1].mlp.Wi.weight, before)

    save_student(student, tmp_path / "student")
    monkeypatch.setattr(export_source, "FULL_LENGTH_TEXTS", 1)
    parity = convert(
        tmp_path / "student",
        tmp_path / "hub",
        ConversionSettings(onnx=["fp32", "int8"], tolerance=LOOSE),
        sentences[:8],
        sentences[8:16],
    )
    assert parity.details["full_length_tokens"] == LONGEST

    loaded = AutoTokenizer.from_pretrained(tmp_path / "hub")
    inputs = loaded(long_text, truncation=True, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, LONGEST)
    with torch.inference_mode():
        expected_BLD = student.model.base_model(**inputs).last_hidden_state
        stock_BLD = AutoModel.from_pretrained(tmp_path / "hub")(**inputs).last_hidden_state
    torch.testing.assert_close(stock_BLD, expected_BLD, atol=1e-5, rtol=1e-5)
    runtime = pytest.importorskip("optimum.onnxruntime")
    model = runtime.ORTModelForFeatureExtraction.from_pretrained(
        tmp_path / "hub", subfolder="onnx", file_name="model.onnx"
    )
    torch.testing.assert_close(model(**inputs).last_hidden_state, expected_BLD, atol=1e-4, rtol=1e-3)
    library = pytest.importorskip("sentence_transformers")
    encoder = library.SentenceTransformer(str(tmp_path / "hub"), device="cpu")
    assert encoder.max_seq_length == LONGEST
    vector_D = torch.from_numpy(encoder.encode(long_text))
    torch.testing.assert_close(vector_D, expected_BLD[0].mean(dim=0), atol=1e-4, rtol=1e-3)
