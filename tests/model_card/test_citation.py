import dataclasses
import re
from pathlib import Path

from distilrubert.model_card.citation import bibliography, method_entry, model_entry
from distilrubert.model_card.inputs import read_card_input


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


def test_bibliography_holds_model_method_and_references(run_folder: Path) -> None:
    text = bibliography(read_card_input(run_folder))
    entries = _entries(text)
    assert list(entries) == [
        "distilrubert-base-cased-conversational", "kolesnikova2022knowledge", "lison2016opensubtitles",
        "shavrina2017taiga", "sanh2019distilbert", "huggingface-distillation",
    ]  # fmt: skip
    assert text == "\n\n".join(entries.values()) + "\n"


def test_method_is_the_paper_of_the_reference_card() -> None:
    entry = method_entry()
    assert "doi           = {10.48550/arXiv.2205.02340}" in entry
    assert "author        = {Kolesnikova, Alina and Kuratov, Yuri and Konovalov, Vasily and Burtsev, Mikhail}" in entry
    assert "year          = {2022}" in entry


def test_model_is_cited_with_its_authors_and_year(run_folder: Path) -> None:
    run = read_card_input(run_folder)
    entry = model_entry(run)
    assert entry is not None
    assert r"author = {Петрова, Анна and Ivanov \& Sons}" in entry
    assert "year   = {2026}" in entry
    assert "url    = {https://huggingface.co/me/distilrubert-base}" in entry
    assert model_entry(dataclasses.replace(run, settings=run.settings.model_copy(update={"authors": []}))) is None
    assert model_entry(dataclasses.replace(run, training=None)) is None
