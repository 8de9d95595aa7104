import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Measurements, Row
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.model_folder import convert
from distilrubert.evaluation.sentences import suite_scores
from distilrubert.evaluation.sentences.frozen_vectors import OWN, Prompts, SentenceEncoder, Vectors
from distilrubert.evaluation.sentences.suite_scores import measure_suite
from distilrubert.evaluation.sentences.suites import Suite, VectorTask, load_suite
from distilrubert.evaluation.sentences.vector_rows import read_parts
from distilrubert.evaluation.sentences.vector_tasks import score_vectors

sentence_transformers = pytest.importorskip("sentence_transformers")

BASE = {"name": "t", "title": "T", "licence": "CC0-1.0", "source": "here", "test": "test"}


class KnownVectors(SentenceEncoder):
    """Gives texts the vectors that a test wants, those of documents turned by a right angle."""

    poolings = (OWN,)

    def __init__(self, vectors: dict[str, Sequence[float]], prompts: Prompts = Prompts()) -> None:  # noqa: B008
        self.vectors, self.prompts = vectors, prompts

    def encode(self, texts: Iterable[str], side: str = "query") -> dict[str, Vectors]:
        found = {text: np.array(self.vectors[text], dtype=np.float32) for text in texts}
        turn = np.array([[0, 1], [-1, 0]], dtype=np.float32) if side == "document" else np.eye(2, dtype=np.float32)
        return {OWN: Vectors({text: vector / np.linalg.norm(vector) @ turn for text, vector in found.items()})}


def suite_of(folder: Path, parts: dict[str, list[Sequence[Any]]], **task: Any) -> tuple[Suite, VectorTask]:
    for part, rows in parts.items():
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    (folder / "task.yaml").write_text(yaml.safe_dump(BASE | task), encoding="utf-8")
    suite = load_suite(folder / "task.yaml")
    return suite, suite.present()[0]


def score(folder: Path, encoder: SentenceEncoder, parts: dict[str, list[Sequence[Any]]], **task: Any) -> Any:
    suite, definition = suite_of(folder, parts, **task)
    return score_vectors(definition, read_parts(definition, suite), encoder)


def test_similarity_is_spearmans_correlation_with_the_cosine(tmp_path: Path) -> None:
    vectors = {"a": (1, 0), "b": (1, 1), "c": (0, 1), "d": (-2, 0)}
    pairs = [("a", "a", 5), ("a", "b", 2), ("a", "c", 3), ("a", "d", 0)]
    parts = {"test": [("one", "sentence2", "score"), *pairs]}
    task = {"kind": "sentence-similarity", "metric": "spearman", "columns": {"sentence1": "one"}}
    # Ranks of the cosines 1, .71, 0, -1 and of the scores 5, 2, 3, 0: one neighbouring pair is exchanged.
    assert score(tmp_path, KnownVectors(vectors), parts, **task) == {OWN: {"spearman": pytest.approx(0.8)}}
    assert spearmanr([1, 0.71, 0, -1], [5, 2, 3, 0]).correlation == pytest.approx(0.8)
    collapsed = KnownVectors(dict.fromkeys(vectors, (1, 1)))
    assert score(tmp_path, collapsed, parts, **task) == {OWN: {"spearman": 0.0}}


def test_a_class_is_told_from_the_cosine_alone(tmp_path: Path) -> None:
    angles = np.linspace(0, np.pi, 30)
    vectors = {"x": (1, 0)} | {str(i): (np.cos(angle), np.sin(angle)) for i, angle in enumerate(angles)}
    labels = ["near" if angle < np.pi / 2 else "far" for angle in angles]
    parts = {"test": [("sentence1", "sentence2", "label"), *(("x", str(i), label) for i, label in enumerate(labels))]}
    task = {"kind": "similarity-classification", "metric": "accuracy"}
    assert score(tmp_path, KnownVectors(vectors), parts, **task)[OWN]["accuracy"] > 0.9
    unrelated = dict.fromkeys(vectors, (1, 0))
    assert score(tmp_path, KnownVectors(unrelated), parts, **task)[OWN]["accuracy"] < 0.6


def test_classifiers_learn_from_other_columns_than_they_are_tested_on(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(60, 2))
    vectors = {f"{language}{i}": point for language in ("ru", "en") for i, point in enumerate(points)}
    labels = [int(point @ (1, 2) + generator.normal() > 0) for point in points]
    rows = [("text", "answer", "class"), *((f"ru{i}", f"en{i}", label) for i, label in enumerate(labels))]
    parts = {"train": rows[:31], "test": [rows[0], *rows[31:]]}
    task = {
        "kind": "vector-classification", "train": "train", "columns": {"label": "class"},
        "train_columns": {"text": "answer"},
    }  # fmt: skip
    both = ["logistic-regression", "nearest-neighbours"]
    found = score(tmp_path, KnownVectors(vectors), parts, metric="accuracy", classifiers=both, **task)
    assert list(found) == ["own, logistic-regression", "own, nearest-neighbours"]
    normal = points / np.linalg.norm(points, axis=1)[:, None]
    model = LogisticRegression(max_iter=10_000).fit(normal[:30], labels[:30])
    assert found["own, logistic-regression"]["accuracy"] == pytest.approx(model.score(normal[30:], labels[30:]))
    area = score(tmp_path, KnownVectors(vectors), parts, metric="roc_auc", **task)[OWN]["roc_auc"]
    assert area == pytest.approx(roc_auc_score(labels[30:], model.predict_proba(normal[30:])[:, 1]), abs=1e-6)


def test_retrieval_ranks_all_passages(tmp_path: Path) -> None:
    vectors = {"q": (1, 0), "r": (0, 1), "p": (0, -1), "s": (1, 0.1), "noise": (0.1, -1)}
    assert KnownVectors(vectors).encode(["p"], "document")[OWN].encode(["p"])[0].tolist() == [1, 0]
    parts = {"test": [("query", "passage"), ("q", "p"), ("r", "s"), ("r", "p"), ("", "noise")]}
    task = {"kind": "retrieval", "metric": "ndcg@10"}
    found = score(tmp_path, KnownVectors(vectors), parts, **task)[OWN]
    # q finds p first; r finds s, noise, p.
    of_r = (1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    assert found == {"ndcg@10": pytest.approx((1 + of_r) / 2), "recall@10": 1}
    with pytest.raises(UserError, match=r"task t: queries have the prompt 'query: ' and passages none; name both"):
        score(tmp_path, KnownVectors(vectors, Prompts("query: ")), parts, **task)


@pytest.mark.parametrize(
    ("header", "message"),
    [(("query",), "has no column passage; it has query"), (("query", "passage"), "test.csv: has no rows")],
)
def test_rows_that_cannot_be_used(header: tuple[str, ...], message: str, tmp_path: Path) -> None:
    rows = [header] if len(header) == 2 else [header, ("a",)]
    with pytest.raises(UserError, match=message):
        score(tmp_path, KnownVectors({}), {"test": rows}, kind="retrieval", metric="ndcg@10")


def test_both_poolings_of_a_model_are_those_of_transformers(tiny_teacher: Any, tiny_teacher_folder: Path) -> None:
    texts = ["Привет! Как дела?", "Да.", "Привет! Как дела?"]
    suite = Suite(name="s", title="S", tasks=["t"], poolings=["mean", "cls"], max_length=8)
    found = SentenceEncoder(tiny_teacher_folder, suite, prompts=Prompts("Ёж: ")).encode(texts)
    for text in texts:
        inputs = tiny_teacher.tokenizer(f"Ёж: {text}", truncation=True, max_length=8, return_tensors="pt")
        states_LD = tiny_teacher.model.base_model(**inputs).last_hidden_state[0].numpy()
        for pooling, vector in {"mean": states_LD.mean(0), "cls": states_LD[0]}.items():
            expected = vector / np.linalg.norm(vector)
            np.testing.assert_allclose(found[pooling].encode([text])[0], expected, atol=1e-5)


def test_a_table_of_word_vectors_has_its_own_pooling_alone(tiny_teacher: Any, tmp_path: Path) -> None:
    """As model2vec makes it: the mean over the vectors of a text's tokens, however long it is."""
    text = "вчера кот опять спал на столе у бабушки дома за рекой"
    # A tokenizer of its own: that of the session keeps what other tests set.
    tokenizer = Tokenizer.from_str(tiny_teacher.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    module = sentence_transformers.sentence_transformer.modules.StaticEmbedding(tokenizer, embedding_dim=16)
    sentence_transformers.SentenceTransformer(modules=[module]).save_pretrained(str(tmp_path))
    encoder = SentenceEncoder(tmp_path, Suite(name="s", title="S", tasks=["t"], poolings=["mean", "cls"], max_length=8))
    found = encoder.encode([text, ""])
    assert list(found) == [OWN]
    assert not found[OWN].encode([""]).any(), "a text without tokens has no direction"
    expected = module.embedding.weight[tokenizer.encode(text, add_special_tokens=False).ids].mean(0).detach().numpy()
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(found[OWN].encode([text])[0], expected, atol=1e-6)


def test_a_report_has_the_best_way_of_each_task_and_is_measured_once(
    tiny_teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite("questions")
    report = measure_suite({"model": tiny_teacher_folder}, suite, tmp_path / "cache")
    scores, tasks = report["model"].values["scores"], report.details["tasks"]
    assert set(scores["questions"]) == {OWN}
    found = derive(report)["model"].values
    assert 0 < found["best"]["questions"] == found["mean_score"] == scores["questions"][OWN]["ndcg@10"] < 1
    assert tasks["questions"]["rows"] == {"test": 49}
    made_up = {"a": {"mean": {"x": 0.5, "y": 9}, "cls": {"x": 0.7, "y": 0}}, "b": {"mean": {"y": 0.1}}}
    metrics = {"a": {"metric": "x"}, "b": {"metric": "y"}}
    other = Measurements(report.environment, [Row("model", {"scores": made_up})], "model", {"tasks": metrics})
    assert derive(other)["model"].values["best"] == {"a": 0.7, "b": 0.1}
    assert derive(other)["model"].values["mean_score"] == pytest.approx(0.4)
    report.save(tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["rows"][0]["scores"] == scores
    monkeypatch.setattr(suite_scores, "SentenceEncoder", None)
    again = measure_suite({"model": tiny_teacher_folder}, suite, tmp_path / "cache")
    assert again.rows == report.rows
    with pytest.raises(TypeError):
        measure_suite({"model": tiny_teacher_folder}, suite, tmp_path / "cache", prompts=Prompts("а ", "б "))


@pytest.mark.parametrize("changed", ["2_Dense/model.safetensors", "sentence_bert_config.json", "1_Pooling/config.json"])
def test_scores_are_those_of_all_files_of_the_modules(
    changed: str, tiny_teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    encoder = Transformer(str(tiny_teacher_folder))
    width = encoder.get_embedding_dimension()
    modules = [encoder, Pooling(width), Dense(width, 8)]
    sentence_transformers.SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"))
    suite = load_suite("questions")
    report = measure_suite({"model": tmp_path / "model"}, suite, tmp_path / "cache")
    monkeypatch.setattr(suite_scores, "SentenceEncoder", None)
    assert measure_suite({"model": tmp_path / "model"}, suite, tmp_path / "cache").rows == report.rows
    with (tmp_path / "model" / changed).open("ab") as file:
        file.write(b" ")
    with pytest.raises(TypeError):
        measure_suite({"model": tmp_path / "model"}, suite, tmp_path / "cache")


@pytest.mark.export
def test_an_exported_file_gives_the_vectors_of_the_checkpoint(teacher_folder: Path, tmp_path: Path) -> None:
    texts = ["Привет! Как дела?", "Да."]
    settings = ConversionSettings(onnx=["fp32"], openvino=["fp32"])
    convert(teacher_folder, tmp_path / "exported", settings, texts)
    suite = load_suite("questions")
    expected = SentenceEncoder(tmp_path / "exported", suite).encode(texts)[OWN].encode(texts)
    for case in ("onnx-fp32", "openvino-fp32"):
        found = SentenceEncoder(tmp_path / "exported", suite, FORMATS[case]).encode(texts)[OWN].encode(texts)
        # OpenVINO computes in bf16 where the processor can.
        assert (found * expected).sum(axis=1).min() > 0.999
    with pytest.raises(UserError, match=r"onnx/model_quantized\.onnx is missing"):
        SentenceEncoder(tmp_path / "exported", suite, FORMATS["onnx-int8"])


def test_foreign_code_in_a_folder_is_not_run(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    suite, package = load_suite("questions"), "sentence_transformers.sentence_transformer.modules"
    (tmp_path / "config.json").write_text('{"activation_function": "torch.utils.collect_env.main"}')
    for kind, message in (
        (
            "evil.Transformer",
            r"a module evil\.Transformer, which is not of sentence_transformers; allowed: Transformer",
        ),
        (f"{package}.Router", "modules.json has a module Router; allowed: Transformer, Pooling, Normalize, Dense"),
        (
            f"{package}.Dense",
            r"config\.json: activation_function is 'torch\.utils.*; one of torch\.nn\.modules is taken",
        ),
    ):
        (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
        with pytest.raises(UserError, match=message):
            SentenceEncoder(tmp_path, suite)
    with pytest.raises(UserError, match=r"cannot be loaded by sentence-transformers"):
        SentenceEncoder(tmp_path / "nothing", suite)


def test_an_error_without_a_text_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", fail)
    with pytest.raises(UserError, match=r"cannot be loaded by sentence-transformers"):
        SentenceEncoder(tmp_path, load_suite("questions"))
