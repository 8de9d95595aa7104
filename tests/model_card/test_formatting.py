import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from distilrubert.model_card.formatting import count, duration, escape, listing, number, score, short_count


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.32849, "0.328"),
        (36.4902, "36.5"),
        (52, "52.0"),
        (678.9, "679"),
        (9.996, "10.0"),
        (999.6, "1,000"),
        (135445.7, "135,446"),
        (0, "0"),
        (0.001, "0.00100"),
        (0.00001234, "1.23e-5"),
        (-0.5, "-0.500"),
    ],
)
def test_figure(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-9, 1e12))
def test_figure_is_near_the_value(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("value", "text"),
    [(135_445_755, "135.4 million"), (2_400, "2,400"), (999_999, "999,999"), (1.5e9, "1.5 billion")],
)
def test_short_count(value: float, text: str) -> None:
    assert short_count(value) == text


def test_count() -> None:
    assert count(119547) == "119,547"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (42.4, "42 seconds"),
        (90, "90 seconds"),
        (150, "2.5 minutes"),
        (5400, "90.0 minutes"),
        (7200, "2.0 hours"),
        (98312.6, "27.3 hours"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_score() -> None:
    assert score(0.76446, 0.00435) == "0.764 ± 0.004"
    assert score(-0.5) == "-0.500"
    assert score(15.8812) == "15.9"
    assert score(3.2174) == "3.22"


def test_listing() -> None:
    assert [listing(list(items)) for items in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]


@given(st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="&-+=.)"), min_size=1))
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    shown = MarkdownIt("commonmark").enable("table").parse(f"| {escape(text)} | x |\n| --- | --- |")
    cells = [token for token in shown if token.type == "inline"]
    assert len(cells) == 2
    assert "".join(child.content for child in cells[0].children or []) == text
