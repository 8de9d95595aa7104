"""What the tables of the documentation say of invented results."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements, Row

MACHINE = Environment("Invented CPU", [], 2, {}, "2026-01-01", 2, 8.0)


def row(case: str, latency_s: float, samples_per_s: float, **more: int) -> Row:
    return Row(case, {"latency_s": latency_s, "samples_per_s": samples_per_s, **more})


def test_a_peer_that_is_ahead_is_told(document: ModuleType) -> None:
    ours = [row("student-base-openvino-int8", 0.1, 10.0), row("student-base-onnx-int8", 0.2, 5.0)]
    peers = [row("student-base-peer-nncf-int8", 0.1, 12.5), row("student-base-peer-ortquantizer-int8", 0.3, 4.0)]
    view = document.VIEWS["inference", "peers"]
    text = view(Measurements(MACHINE, [*ours, *peers]))
    assert "| student-base-peer-nncf-int8 | student-base-openvino-int8 | 1.00, 0.80 |  |  |  |" in text
    assert "| student-base-peer-ortquantizer-int8 | student-base-onnx-int8 | 1.50, 1.25 |  |  |  |" in text
    told = [line for line in text.splitlines() if line.startswith("- ")]
    ahead = "`student-base-peer-nncf-int8` is ahead of `student-base-openvino-int8`"
    assert told == [f"- {ahead} by 25 % in throughput with 512 tokens."]
    assert "No peer is ahead of our file." in view(Measurements(MACHINE, [*ours, peers[1]]))


def test_each_kind_of_input_is_compared(document: ModuleType) -> None:
    ours = row("student-base-openvino-int8", 0.1, 10.0)
    peer = row("student-base-peer-nncf-int8", 0.2, 5.0)
    for each, seconds in ((ours, 0.02), (peer, 0.01)):
        own = {"latency_s": each.values["latency_s"], "samples_per_s": each.values["samples_per_s"]}
        each.values["inputs"] = {"512-tokens": own, "texts": {"latency_s": seconds, "samples_per_s": 100.0}}
    text = document.VIEWS["inference", "peers"](Measurements(MACHINE, [ours, peer]))
    assert "| student-base-openvino-int8 | 2.00, 2.00 |  |  | 0.50, 1.00 |" in text
    assert "is ahead of `student-base-openvino-int8` by 100 % in latency with texts." in text


def test_shapes_are_compared_by_the_gains_of_their_best_files(document: ModuleType) -> None:
    """The machine was twice as fast in the turns of tiny-256: gains count, and not times."""
    gains = {
        "base-openvino-int8": (8.0, 10.0), "base-onnx-int8": (4.0, 12.0), "base-peer-nncf-int8": (99.0, 99.0),
        "base-openvino-int8-two-streams": (1.0, 50.0), "tiny-256-openvino-int8": (20.0, 24.0),
        "tiny-256-openvino-int8-in-bf16": (10.0, 30.0),
    }  # fmt: skip
    rows = [
        Row(
            f"student-{name}",
            {"latency_s": seconds, "samples_per_s": 1.0, "latency_ratio": latency, "throughput_ratio": throughput},
        )
        for name, (latency, throughput) in gains.items()
        for seconds in [0.05 / latency if "256" in name else 0.1 / latency]
    ]
    lines = document.VIEWS["inference", "shapes"](Measurements(MACHINE, rows)).splitlines()[2:]
    assert lines == ["| base | 1.00, 1.00 |  |  |  |", "| tiny-256 | 2.50, 2.50 |  |  |  |"]


@pytest.mark.parametrize(
    ("starts", "details", "note"),
    [
        ({}, {}, "One start of"),
        ({}, {"starts": 2}, "2 starts of"),
        ({"starts": 4}, {}, "4 starts of"),
        ({"starts": 5}, {}, ""),
    ],
)
def test_few_starts_are_told(document: ModuleType, starts: dict[str, int], details: dict[str, int], note: str) -> None:
    values = {"size_mib": 1.0, "latency_ratio": 1.0, "throughput_ratio": 1.0, "share_of_ceiling": 0.5, **starts}
    case = Row("teacher-pytorch-fp32", {"latency_s": 0.1, "samples_per_s": 10.0, **values})
    text = document.VIEWS["inference", "rows"](Measurements(MACHINE, [case], case.case, details))
    assert text.strip().splitlines()[-1].startswith(note or "| teacher")


def test_the_range_over_the_starts_is_shown(document: ModuleType) -> None:
    values = {"size_mib": 1.0, "latency_ratio": 2.0, "latency_ratio_range": [1.9, 2.25], "throughput_ratio": 3.0}
    case = Row("teacher-pytorch-fp32", {"latency_s": 0.1, "samples_per_s": 10.0, "share_of_ceiling": None, **values})
    text = document.VIEWS["inference", "rows"](Measurements(MACHINE, [case]))
    assert "| 100.0 | 2.0 (1.9 to 2.2) | 10.0 | 3.0 |" in text


def test_what_trimming_leaves_is_told(document: ModuleType) -> None:
    shares = {"held_out_resplit_token_share": 0.0012, "held_out_resplit_text_share": 0.034}
    proof = {"corpus_resplit_text_share": 0.0, "largest_difference": 3e-7}
    rows = [
        Row("whole", {"tokens": 250_002, "file_mib": 448.27}, 1.0),
        Row("needed once", {"tokens": 23_459, "file_mib": 116.37, **shares, **proof}, 3.85),
    ]
    text = document.VIEWS["trimming", "rows"](Measurements(MACHINE, rows, "whole", {"texts": 257_888, "lines": 10_000}))
    assert "| whole | 250,002 | 448.3 | 1.00 |  |  |" in text
    assert "| needed once | 23,459 | 116.4 | 3.85 | 0.12% | 3.40% |" in text
    assert "0% of the 257,888 texts are tokenised differently, and the vectors of 10,000 of them" in text
    assert text.endswith("differ from the whole model's by at most 3e-07.\n")


def test_what_is_exact_of_a_family_and_who_opens_it(document: ModuleType) -> None:
    close, rough = (
        {"maximal_difference": 3e-6, "token_cosine": 1.0},
        {"maximal_difference": 0.3, "token_cosine": 0.9876},
    )
    values = {
        "tokenizer": "unigram", "exact_to": 1.2e-6, "tokens": 220, "trimmed_tokens": 150, "trimmed_difference": 0.0,
        "files": {"onnx-fp32": close, "onnx-int8": rough}, "clients": ["transformers 5", "transformers.js"],
    }  # fmt: skip
    text = document.VIEWS["families", "rows"](Measurements(MACHINE, [Row("xlm-roberta", values)]))
    shown = "ONNX fp32 (1e-5), int8 (0.99) | transformers 5, transformers.js |"
    assert text.splitlines()[-1] == f"| `xlm-roberta` | unigram | 1e-5 | 150 of 220 tokens, 0 | {shown}"


def test_a_client_that_opened_only_some_models_is_told(
    document: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(document.__file__).parent / "conversion"))
    clients = importlib.import_module("family_clients")
    report = Measurements(MACHINE, [Row("bert", {}), Row("roberta", {})])
    opened = [{"model": model, "client": client} for client in ("one", "other") for model in ("bert", "roberta")]
    assert [row.values["clients"] for row in clients.with_clients(report, opened).rows] == [["one", "other"]] * 2
    with pytest.raises(UserError, match="roberta: was not opened by other"):
        clients.with_clients(report, opened[:-1])


def test_what_is_lost_without_token_types_is_told(document: ModuleType) -> None:
    guesses = {"masked_accuracy": 0.4, "masked_cross_entropy": 3.0}
    closeness = {"top1_agreement": 0.985, "token_cosine_first": 0.9991, "token_cosine_second": 0.99}
    rows = [Row("with", guesses, 1.0), Row("without", {**guesses, "masked_accuracy": 0.395, **closeness}, 0.9875)]
    report = Measurements(MACHINE, rows, "with", {"masked_tokens": 1234, "pairs": 10})
    text = document.VIEWS["token_types", "rows"](report)
    assert "| without | 39.5% | 3.00 |" in text
    assert "1,234 masked tokens in 10 pairs. Without types 98.5% of the guesses are the same." in text
    assert "0.9991 in the first texts and 0.9900 in the second." in text


def test_memory_is_extrapolated_over_the_texts_that_are_remembered(document: ModuleType) -> None:
    def at(gigabytes: int, million_texts: float, peak_mib: float) -> Row:
        sizes = {"bytes": gigabytes * 10**9, "texts": million_texts * 1e6, "cpu_s": 7.0}
        return Row(f"memory-{gigabytes}", {**sizes, "peak_mib": peak_mib, "worker_peak_mib": 100.0})

    text = document.VIEWS["scale", "memory"](Measurements(MACHINE, [at(1, 5.0, 500.0), at(2, 10.0, 600.0)]))
    assert "| 1 | 500 | 100 | 7 |\n| 2 | 600 | 100 | 7 |" in text
    # 400 MiB and 20 for each million texts; 10 GB have 50 million, of which 16 million are remembered.
    assert "the preparing process 400 + 20.0 × million texts, 720 at 10 GB;" in text
    assert "a tokenising one 100 + 0.0 × million texts, 100 at 10 GB" in text.replace("-0.0", "0.0")


def test_corpora_that_differ_are_told(document: ModuleType) -> None:
    values = {"bytes": 3 * 10**8, "seconds": {"1": 9.0, "2": 8.0, "4": 7.0}}
    for identical, said in ((True, "the same to the byte"), (False, "NOT the same")):
        report = Measurements(MACHINE, [Row("parts-0.3", {**values, "identical": identical})])
        assert document.VIEWS["scale", "parts"](report) == (
            f"0.3 GB by 1, 2 and 4 processes, one of the 4 killed after its first shard: {said}.\n"
        )


def test_cells_have_units_and_stay_empty_without_a_value(document: ModuleType) -> None:
    rows = [Row("one", {"time_s": 0.25, "peak": {"mib": 1536}}), Row("other", {"time_s": None})]
    view = importlib.import_module("documented.view").View(
        "case | ms | GiB", "{case} | {time_s:ms .1f} | {peak[mib]:GiB .2f}", note="Of {rows[0][case]}."
    )
    lines = view(Measurements(MACHINE, rows)).splitlines()
    assert lines[2:] == ["| one | 250.0 | 1.50 |", "| other |  |  |", "", "Of one."]


def test_the_files_of_base_by_hand(document: ModuleType) -> None:
    paths = {"model.safetensors": 8.0, "onnx/model_quantized.onnx": 2.0}
    paths["openvino/openvino_model_qint8_quantized.bin"] = 2.5
    base = {"files_mib": paths, "throughput_ratio": {"pytorch-fp32": 2.0, "onnx-int8": 6.0, "openvino-int8": 7.0}}

    def scored(case: str, *values: float, **more: object) -> Row:
        return Row(case, {"tasks": {"rusentiment": {"f1_weighted": {"values": [*values]}}}, **more})

    rows = [scored("teacher", 0.6, 0.7, parameters=4 * 2**20), scored("base", 0.5, 0.6, **base)]
    rows += [scored(f"student-{file}", 0.5) for file in ("onnx-int8", "openvino-int8")]
    rows += [scored("bag-of-words", 0.55), scored("majority-class", 0.3)]
    lines = document.VIEWS["reference/base", "files"](Measurements(MACHINE, rows)).splitlines()
    # Four bytes for each of the teacher's parameters; the deviation is the distance over the root of 2.
    assert lines[2] == "| teacher: 12 layers × 384 | 16.0 | 1.0 | 65.0 ± 7.1 |  |  |"
    assert lines[3] == "| base: 6 layers × 384 | 8.0 | 2.0 | 55.0 ± 7.1 |  |  |"
    assert lines[4:6] == [
        "| base, ONNX int8 | 2.0 | 6.0 | 50.0 |  |  |",
        "| base, OpenVINO int8 | 2.5 | 7.0 | 50.0 |  |  |",
    ]
    assert lines[6] == "| bag of words |  |  | 55.0 |  |  |"
