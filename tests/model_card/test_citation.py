import dataclasses
import re

from distilrubert.model_card.card import render_card
from distilrubert.model_card.citation import bibliography, describe_method, model_entry
from distilrubert.model_card.inputs import CardInput
from tests.model_card.example_run import with_settings


def _entries(text: str) -> dict[str, str]:
    """The entries of a BibTeX file by key: from each @ to the brace that closes it."""
    found = {}
    for start in re.finditer(r"@\w+\{([^,]+),", text):
        depth, end = 0, start.start()
        for end in range(start.start(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end] if text[end - 1] != "\\" else "", 0)
            if depth == 0 and text[end] == "}":
                break
        found[start[1]] = text[start.start() : end + 1]
    return found


def test_bibliography_holds_model_method_and_references(run: CardInput) -> None:
    text = bibliography(run)
    entries = _entries(text)
    assert list(entries) == [
        "distilrubert-base-cased-conversational", "kolesnikova2022knowledge", "lison2016opensubtitles",
        "shavrina2017taiga", "sanh2019distilbert", "huggingface-distillation",
    ]  # fmt: skip
    assert text == "\n\n".join(entries.values()) + "\n"


def test_method_is_the_paper_of_the_reference_card(run: CardInput) -> None:
    entry = describe_method(run)["method_entry"]
    assert "doi           = {10.48550/arXiv.2205.02340}" in entry
    assert "author        = {Kolesnikova, Alina and Kuratov, Yuri and Konovalov, Vasily and Burtsev, Mikhail}" in entry
    assert "year          = {2022}" in entry


def test_model_is_cited_with_its_authors_and_year(run: CardInput) -> None:
    entry = model_entry(run)
    assert entry is not None
    assert r"author = {Петрова, Анна and Ivanov \& Sons}" in entry
    assert "year   = {2026}" in entry
    assert "url    = {https://huggingface.co/me/distilrubert-base}" in entry
    assert model_entry(with_settings(run, authors=[])) is None
    assert model_entry(dataclasses.replace(run, training=None)) is None


def test_the_method_distilbert_cites_neither_the_paper_nor_the_corpora_of_distilrubert(run: CardInput) -> None:
    other = with_settings(run, method="distilbert", authors=[])
    assert list(_entries(bibliography(other))) == ["sanh2019distilbert", "huggingface-distillation"]
    described = describe_method(other)
    assert described["method_entry"].startswith("@misc{sanh2019distilbert,")
    assert len(described["references"]) == 1


def test_losses_across_vocabularies_have_their_paper(run: CardInput) -> None:
    assert run.training is not None
    losses = {"match": {"weight": 1.0, "title": "KL", "meaning": "KL"}}
    training = dataclasses.replace(run.training, details=run.training.details | {"losses": losses})
    other = with_settings(dataclasses.replace(run, training=training), method="distilbert", authors=[])
    assert list(_entries(bibliography(other))) == [
        "sanh2019distilbert", "huggingface-distillation", "kolesnikova2022knowledge",
    ]  # fmt: skip
    described = describe_method(other)
    assert "The losses across two vocabularies follow [2].\n" in render_card(other)
    assert "two vocabularies" not in render_card(run)
    assert "2205.02340" in described["references"][1]
