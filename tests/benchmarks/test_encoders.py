"""The benchmarks of encoders of sentences: what is collected, compared and drawn, out of invented figures."""

import argparse
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.evaluation.sentences.suites import load_suite

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MACHINE = Environment("Invented CPU", [], 2, {}, "2026-01-01", 2, 8.0)
TASKS = {
    name: {"title": name, "kind": "sentence-similarity", "metric": "spearman", "rows": {"test": 10}}
    for name in ("sts", "pi")
}
SUITE = {"name": "encodechka", "title": "Encodechka", "published": {}}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    for folder in (BENCHMARKS, *(BENCHMARKS / name for name in ("distillation", "inference", "reference"))):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


def scored(case: str, sts: float, pi: float, **more: Any) -> Row:
    """Mean pooling is the better one for `sts`, CLS for `pi`."""
    ways = {"sts": {"mean": sts, "cls": sts - 0.1}, "pi": {"mean": pi - 0.1, "cls": pi}}
    scores = {task: {way: {"spearman": value} for way, value in of_task.items()} for task, of_task in ways.items()}
    return Row(case, {"scores": scores, **more})


def timed(case: str, latency_s: float, batch_s: float, size_mib: float = 10.0) -> Row:
    batches = {"1": {"starts_s": [latency_s] * 5}, "32": {"starts_s": [batch_s] * 5}}
    return Row(case, {"batches": batches, "device": "cpu", "size_mib": size_mib})


@pytest.fixture
def scores() -> Measurements:
    rows = [
        scored("teacher-pytorch-fp32", 0.82, 0.70, size_mib=448.0),
        scored("small-pytorch-fp32", 0.81, 0.69, size_mib=90.0, updates=1200, training_minutes=61.4, tokenizer_mib=2.0),
        scored("small-onnx-int8", 0.80, 0.68, size_mib=23.0, tokenizer_mib=2.0, vector_cosine_p1=0.9935),
    ]
    return Measurements(MACHINE, rows, rows[0].case, {"suite": SUITE, "tasks": TASKS, "absent": ["nli"]})


@pytest.fixture
def speeds() -> Measurements:
    rows = [timed("teacher-pytorch-fp32", 0.03, 0.64), timed("small-onnx-int8", 0.006, 0.08)]
    rows.append(timed("yardstick-rubert-tiny2", 0.004, 0.16))
    published = {"name": "cointegrated/rubert-tiny2", "mean_score": 0.704, "size_mib": 111.4}
    published["scores"] = {"sts": 0.75, "pi": 0.65, "nli": 0.42}
    return Measurements(MACHINE, rows, rows[0].case, {"yardstick": {"yardstick-rubert-tiny2": published}})


def test_the_yardstick_is_that_of_the_suite(script: Callable[[str], ModuleType]) -> None:
    yardstick = script("yardstick")
    scores = {encoder.name: encoder.mean_score for encoder in yardstick.ENCODERS}
    published = load_suite("encodechka").published
    assert {name: scores[name] for name in published} == published
    assert len({encoder.short_name for encoder in yardstick.ENCODERS}) == len(scores)


def test_the_shapes_of_the_yardstick_have_the_published_sizes(script: Callable[[str], ModuleType]) -> None:
    yardstick = script("yardstick")
    for encoder in yardstick.ENCODERS:
        size = 4 * yardstick.count_parameters(encoder) / 2**20
        assert size == pytest.approx(encoder.size_mib, rel=0.003), encoder.name


def test_points_have_the_best_scores_the_sizes_and_the_speeds(
    script: Callable[[str], ModuleType], scores: Measurements, speeds: Measurements
) -> None:
    encoders = script("encoders")
    teacher, whole, int8, peer = encoders.encoder_points(scores, speeds)
    assert (teacher.model, teacher.file, teacher.speed) == ("teacher", "pytorch-fp32", 1)
    assert (whole.score, whole.speed, whole.milliseconds) == (pytest.approx(0.75), None, None)
    # 0.64 s over 0.08 s for a batch; 6 ms for a text.
    assert (int8.model, int8.size_mib, int8.speed, int8.milliseconds) == ("small", 23.0, pytest.approx(8), 6)
    assert int8.score == pytest.approx(0.74)
    # Over the same two tasks.
    assert (peer.model, peer.file, peer.score, peer.size_mib) == ("rubert-tiny2", "", pytest.approx(0.70), 111.4)
    assert encoders.measure_title(scores) == "mean of 2 tasks of Encodechka, sts, pi"
    lines = encoders.encoder_table([whole, int8, peer]).splitlines()[2:]
    assert lines == [
        "| small | PyTorch | 0.750 | 90.0 | – | – |",
        "| small | ONNX int8 | 0.740 | 23.0 | 8.0 | 6.0 |",
        "| rubert-tiny2 | PyTorch, published score | 0.700 | 111.4 | 4.0 | 4.0 |",
    ]


def test_with_all_tasks_the_yardstick_has_its_published_mean(
    script: Callable[[str], ModuleType], scores: Measurements, speeds: Measurements
) -> None:
    encoders = script("encoders")
    scores.details["absent"] = []
    assert encoders.encoder_points(scores, speeds)[-1].score == 0.704
    assert encoders.measure_title(scores) == "mean of the 2 tasks of Encodechka (S)"
    # Without speeds there is nobody to compare with.
    assert [point.model for point in encoders.encoder_points(scores, None)] == ["teacher", "small", "small"]


def test_the_pictures_show_what_is_known(
    script: Callable[[str], ModuleType], scores: Measurements, speeds: Measurements
) -> None:
    encoders = script("encoders")
    points = encoders.encoder_points(scores, speeds)
    by_size, by_speed = (encoders.draw_encoders(points, "score", axis) for axis in ("size_mib", "speed"))
    shown = [[text.get_text() for text in picture.axes[0].texts] for picture in (by_size, by_speed)]
    names = ["teacher, PyTorch", "small, PyTorch", "small, ONNX int8", "rubert-tiny2"]
    assert [sorted(set(texts) & set(names)) for texts in shown] == [
        sorted(names),
        sorted(set(names) - {"small, PyTorch"}),
    ]
    faces = [marks.get_facecolor()[0].tolist() for marks in by_size.axes[0].collections]
    assert [face == [1, 1, 1, 1] for face in faces] == [False, False, False, True]
    assert encoders.draw_encoders(points[:1], "score", "speed") is None


def test_the_tables_of_the_documentation(
    script: Callable[[str], ModuleType], scores: Measurements, speeds: Measurements
) -> None:
    document = script("document")
    lines = document.VIEWS["sentences", "scores"](scores).splitlines()
    assert lines[0].startswith("| case | `sts` | `pi` | mean of 2 | MiB | tokenizer, MiB |")
    assert lines[3] == "| small-pytorch-fp32 | 0.810 | 0.690 | 0.750 | 90.0 | 2.0 |  | 1,200 | 61 |"
    assert lines[4] == "| small-onnx-int8 | 0.800 | 0.680 | 0.740 | 23.0 | 2.0 | 0.9935 |  |  |"
    rows = document.VIEWS["sentence_speed", "rows"](speeds).splitlines()
    assert rows[3] == "| small-onnx-int8 | 10.0 | 6.0 | 5.0 (5.0 to 5.0) | 400.0 | 8.0 (8.0 to 8.0) |"


def test_the_gain_of_kept_vectors_by_hand(script: Callable[[str], ModuleType]) -> None:
    cached = script("cached_vectors")
    # Start by start 0.6/0.2, 0.5/0.25, 0.9/0.3; the medians of the times alone would say 0.6/0.25.
    starts = {f"6 layers, {cached.WHOLE}": [0.6, 0.5, 0.9], f"6 layers, {cached.CACHED}": [0.2, 0.25, 0.3]}
    whole, kept = cached.gains(starts)
    assert (whole.ratio, kept.ratio) == (1, pytest.approx(3))
    assert kept.values["updates_per_s"] == pytest.approx(4)
    assert kept.values["ratio_range"] == pytest.approx([2, 3])
    report = Measurements(MACHINE, [whole, kept])
    lines = script("document").VIEWS["cached_vectors", "rows"](report).splitlines()
    assert lines[3] == f"| 6 layers, {cached.CACHED} | 4.00 | 3.00 (2.00 to 3.00) |"


@pytest.mark.parametrize("form", ["WHOLE", "CACHED"])
def test_an_update_with_and_without_kept_vectors_is_measured(script: Callable[[str], ModuleType], form: str) -> None:
    cached = script("cached_vectors")
    options = argparse.Namespace(threads=1, shape="small", tokens=6, sentences=4, steps=1, precision="fp32")
    figures = cached.measure(f"3 layers, {getattr(cached, form)}", options)
    assert figures["update_s"] > 0
    assert 4 * 3 <= figures["tokens"] <= 4 * 9


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Two finished runs, of which nothing is there but what is collected."""
    return {name: write_run(tmp_path / name, tmp_path / "teacher") for name in ("small", "tiny")}


def write_run(run: Path, teacher: Path, sts: float = 0.82) -> Path:
    for folder, files in ((teacher, ["model.safetensors"]), (run / "exported", ["model.safetensors", "onnx"])):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_bytes(bytes(2**19))
        for name in files:
            path = folder / (FORMATS["onnx-int8"].path if name == "onnx" else name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(bytes(2**20 if name == "onnx" else 2**21))
    rows = [scored("teacher", sts, 0.70), scored("student", 0.80, 0.68), scored("student-onnx-int8", 0.79, 0.67)]
    Measurements(MACHINE, rows, "teacher", {"suite": SUITE, "tasks": TASKS, "absent": ["nli"]}).save(
        run / "reports" / "suite.json"
    )
    parity = [Row("pytorch-fp32", {}), Row("onnx-int8", {"single": {"vector_cosine_p1": 0.995}})]
    Measurements(MACHINE, parity).save(run / "reports" / "parity.json")
    trained = {"parameters": 22_000_000, "steps": 1200, "tokens": 900_000, "wall_time_s": 3660.0}
    Measurements(MACHINE, [Row("distillation", trained)]).save(run / "reports" / "training.json")
    text = f"# distilrubert 0.1.0, git revision abc\n# torch 2\nteacher:\n  model: {json.dumps(str(teacher))}\n"
    (run / "recipe.yaml").write_text(text, encoding="utf-8")
    return run


def test_runs_become_one_file(script: Callable[[str], ModuleType], runs: dict[str, Path]) -> None:
    report = derive(script("encoder_results").collect(runs))
    cases = [f"{name}-{file}" for name in runs for file in ("pytorch-fp32", "onnx-int8")]
    assert [row.case for row in report.rows] == ["teacher-pytorch-fp32", *cases]
    assert report["teacher-pytorch-fp32"].values["size_mib"] == 2
    whole, int8 = (report[case].values for case in cases[:2])
    assert (whole["size_mib"], whole["tokenizer_mib"], int8["size_mib"]) == (2, 0.5, 1)
    assert (whole["training_minutes"], whole["updates"]) == (61, 1200)
    assert whole["revision"] == "distilrubert 0.1.0, git revision abc"
    assert int8["vector_cosine_p1"] == 0.995
    assert int8["best"] == pytest.approx({"sts": 0.79, "pi": 0.67})


def test_runs_that_were_not_measured_alike_are_refused(
    script: Callable[[str], ModuleType], runs: dict[str, Path], tmp_path: Path
) -> None:
    collect = script("encoder_results").collect
    write_run(runs["tiny"], tmp_path / "teacher", sts=0.81)
    with pytest.raises(UserError, match=r"tiny and .*small differ in the scores of their teacher"):
        collect(runs)
    report = Measurements.load(runs["tiny"] / "reports" / "suite.json")
    report.details["absent"] = []
    report.save(runs["tiny"] / "reports" / "suite.json")
    with pytest.raises(UserError, match="their absent differs"):
        collect(runs)
    (runs["tiny"] / "reports" / "suite.json").unlink()
    with pytest.raises(UserError, match=r"suite\.json"):
        collect(runs)


def test_another_model_takes_the_place_of_its_row(
    script: Callable[[str], ModuleType], runs: dict[str, Path], tmp_path: Path
) -> None:
    results = script("encoder_results")
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(2**20))
    (folder / "tokenizer.json").write_bytes(b"{}")
    details = {"suite": SUITE, "tasks": TASKS, "absent": ["nli"]}
    rows = [scored("model", 0.58, 0.42)]
    Measurements(MACHINE, rows, "model", details).save(tmp_path / "table.json")
    once = results.with_others(results.collect(runs), {"model2vec": folder})
    twice = results.with_others(once, {"model2vec": folder})
    for report in (once, twice):
        assert [row.case for row in report.rows].count("model2vec-pytorch-fp32") == 1
        assert derive(report)["model2vec-pytorch-fp32"].values["best"] == pytest.approx({"sts": 0.58, "pi": 0.42})
        assert report["model2vec-pytorch-fp32"].values["size_mib"] == 1
    Measurements(MACHINE, rows, "model", details | {"absent": []}).save(tmp_path / "table.json")
    with pytest.raises(UserError, match=r"table\.json and the others were not measured alike: their absent differs"):
        results.with_others(once, {"model2vec": folder})


@pytest.mark.export
@pytest.mark.slow
def test_the_speed_of_files_and_of_the_yardstick_is_measured(
    script: Callable[[str], ModuleType], converted: Path, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    speed = script("encoder_speed")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    table = pyarrow.table({"text": ["Привет!", "Как дела?", "Спасибо, всё хорошо.", "Да."]})
    pyarrow.parquet.write_table(table, corpus / "a.parquet")
    texts = speed.texts_of(corpus, 3)
    assert texts == ["Привет!", "Как дела?", "Да."]
    found = {case.name: case for case in speed.student_cases("small", converted)}
    cases = [speed.Case(speed.BASELINE, str(converted)), found["small-onnx-int8"], found["small-openvino-int8"]]
    cases.append(speed.write_yardstick(converted, tmp_path / "yardstick", quick=True)[0])
    tokenizer = AutoTokenizer.from_pretrained(converted)
    table_of_words = sentence_transformers.sentence_transformer.modules.StaticEmbedding(tokenizer, embedding_dim=16)
    sentence_transformers.SentenceTransformer(modules=[table_of_words]).save_pretrained(str(tmp_path / "table"))
    cases += speed.student_cases("table", tmp_path / "table")
    report = speed.measure(cases, texts, argparse.Namespace(starts=1, threads=1, batch=2))
    for row in derive(report).rows:
        assert row.values["latency_s"] > 0
        assert row.values["ratio_to"] == speed.BASELINE
        assert row.values["tokens_per_text"] > 3
    assert report["small-onnx-int8"].values["size_mib"] == FORMATS["onnx-int8"].size_mib(converted)


def test_a_folder_without_files_or_texts_is_refused(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    speed = script("encoder_speed")
    with pytest.raises(UserError, match="has no file of a model"):
        speed.student_cases("small", tmp_path)
    with pytest.raises(UserError, match="has no Parquet files with texts"):
        speed.texts_of(tmp_path, 3)


def test_english_texts_of_two_clones(
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clinc, snips, output = tmp_path / "clinc", tmp_path / "snips", tmp_path / "english.txt"
    arguments = ["english_texts.py", "--clinc", str(clinc), "--snips", str(snips), "--output", str(output)]
    monkeypatch.setattr("sys.argv", arguments)
    main = script("english_texts").main
    assert main() == 2
    assert "data_full.json'" in capsys.readouterr().err

    (clinc / "data").mkdir(parents=True)
    parts = {"train": [["wake me at six", "alarm"], ["hello", "greeting"]], "oos_test": [["who am i", "oos"]]}
    (clinc / "data" / "data_full.json").write_text(json.dumps(parts))
    (clinc / "data" / "all_wiki_sents.txt").write_text("it is a town\nhello\n")
    assert main() == 2, "the other clone is missing"
    assert not output.exists()

    kind = snips / "2017-06-custom-intent-engines" / "PlayMusic"
    kind.mkdir(parents=True)
    pieces = [{"text": "Play "}, {"text": "caf\u00e9 jazz", "entity": "genre"}, {"text": " now\n"}]
    text = json.dumps({"PlayMusic": [{"data": pieces}]}, ensure_ascii=False)
    (kind / "train_PlayMusic_full.json").write_text(text, encoding="latin-1")
    assert main() == 0
    assert output.read_text().splitlines() == [
        "wake me at six", "hello", "who am i", "it is a town", "Play caf\ufffd jazz now",
    ]  # fmt: skip
