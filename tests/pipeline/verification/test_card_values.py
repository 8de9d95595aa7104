"""Figures are read out of sentences and cells, and compared as roundings."""

import pytest

from distilrubert.pipeline.verification.card_values import Facts, Figure, figures_in, figures_of_cell, wording_of


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("It has 6 layers, 12 heads (layers of 3,072).", ["6", "12", "3,072"]),
        ("**OpenVINO int8, takes 21.7 MiB; 8.13 times.**", ["int8", "21.7", "8.13"]),
        ("200 updates over 741,408 tokens: 6.1 minutes on a CPU", ["200", "741,408", "6.1 minutes"]),
        ("with three seeds, 2026-11-24, torch 2.13.0+cpu.", ["three", "2026-11-24", "2.13.0+cpu"]),
        ("the teacher's 177.9 million.", ["177.9 million"]),
        ("5.14e-8 and 1.00", ["5.14e-8", "1.00"]),
        ("None here, neither someone nor tents.", []),
    ],
)
def test_figures_of_a_sentence(line: str, texts: list[str]) -> None:
    assert [figure.text for figure in figures_in(line)] == texts
    assert wording_of(line).count("#") == len(texts)


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        ("0.774 ± 0.002", [0.774, 0.002]),
        ("1,024", [1024]),
        ("63.3 (16-bit)", [63.3]),
        ("5.14e-8", [5.14e-8]),
        ("**0.774 ± 0.002**", [0.774, 0.002]),
        ("×20.7", [20.7]),
        ("97.2 ± 0.3 %", [0.972, 0.003]),
        ("–", []),
        ("ONNX int8", []),
        ("`onnx/model.onnx`", []),
    ],
)
def test_figures_of_a_cell(cell: str, values: list[float]) -> None:
    assert [figure.value for figure in figures_of_cell(cell)] == pytest.approx(values)


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("5.70", "5.7049", True),
        ("5.70", "5.71", False),
        ("6", "5.70", True),
        ("6", "7", False),
        ("three", "3", True),
        ("three", "ten", False),
        ("27.3 hours", "1,638 minutes", True),
        ("27.3 hours", "27.3 minutes", False),
        ("135.4 million", "135,445,755", True),
        ("5.14e-8", "5.1e-8", True),
        ("int8", "int8", True),
        ("int8", "fp32", False),
    ],
)
def test_roundings_of_one_value_agree(one: str, other: str, agree: bool) -> None:
    assert Figure.of(one).agrees(Figure.of(other)) is agree


def test_a_report_states_what_rounds_to_its_values_and_only_telling_digits() -> None:
    facts = Facts([{"a": [0.8812, {"b": 22}], "name": "torch 2.13.0", "on": True}])
    stated = [
        text for text in ("0.881", "0.882", "0.9", "22", "22.0", "23", "1", "2.13.0") if facts.state(Figure.of(text))
    ]
    assert stated == ["0.881", "22", "22.0", "2.13.0"]
