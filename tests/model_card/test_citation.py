import dataclasses
import re
from pathlib import Path

from distilrubert.model_card.citation import bibliography, describe_method, model_entry
from distilrubert.model_card.inputs import CardInput, read_card_input
from tests.model_card.conftest import distilled


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


def test_method_is_the_paper_of_the_reference_card(run_folder: Path) -> None:
    entry = describe_method(read_card_input(run_folder))["method_entry"]
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


def _english(run: CardInput, **weights: float) -> CardInput:
    """The run as if it had been made of an English teacher."""
    recipe = {**run.recipe, "teacher": {"model": "google-bert/bert-base-cased"}}
    settings = run.settings.model_copy(update={"language": ["en"], "title": None, "authors": []})
    return distilled(
        dataclasses.replace(run, name="distilbert-mine", recipe=recipe, settings=settings), weights=weights
    )


def test_what_is_no_distilrubert_is_not_cited_as_one(run_folder: Path) -> None:
    run = _english(read_card_input(run_folder), kl=5.0, mlm=2.0, cosine=1.0)
    assert list(_entries(bibliography(run))) == ["sanh2019distilbert", "huggingface-distillation"]
    said = describe_method(run)
    assert said["method_entry"].startswith("@misc{sanh2019distilbert,")
    assert said["origins"] == "The losses go back to DistilBERT and its example code [1]."
    assert len(said["references"]) == 1


def test_losses_across_vocabularies_have_their_paper_in_any_language(run_folder: Path) -> None:
    run = _english(read_card_input(run_folder), mlm=2.0, match=1.0)
    assert list(_entries(bibliography(run))) == [
        "sanh2019distilbert", "huggingface-distillation", "kolesnikova2022knowledge",
    ]  # fmt: skip
    said = describe_method(run)
    assert said["origins"].endswith("example code [1]; those across two vocabularies are of [2].")
    assert "2205.02340" in said["references"][1]


def test_a_students_name_or_its_teachers_tells_the_family(run_folder: Path) -> None:
    run = read_card_input(run_folder)
    settings = run.settings.model_copy(update={"title": "My model"})
    by_teacher = dataclasses.replace(run, name="mine", settings=settings)
    assert "first DistilRuBERT" in describe_method(by_teacher)["origins"]
    recipe = {**run.recipe, "teacher": {"model": "ai-forever/ruBert-base"}}
    assert "first DistilRuBERT" in describe_method(dataclasses.replace(by_teacher, recipe=recipe))["origins"]
    recipe = {**run.recipe, "teacher": {"model": "google-bert/bert-base-multilingual-cased"}}
    assert "first DistilRuBERT" not in describe_method(dataclasses.replace(by_teacher, recipe=recipe))["origins"]
