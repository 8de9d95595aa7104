from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from distilrubert.common.configuration import NameOrPath, RecipePath, Section


class Example(Section):
    size: int = Field(3, ge=1, description="pieces")
    path: RecipePath | None = None
    model: NameOrPath | None = None


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="sise"):
        Example.model_validate({"sise": 4})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().size = 4


def test_a_relative_path_starts_at_the_recipe(tmp_path: Path) -> None:
    read = Example.model_validate({"path": "data/*.txt"}, context={"folder": tmp_path})
    assert read.path == str(tmp_path / "data/*.txt")
    assert Example(path="data/*.txt").path == "data/*.txt"


def test_variables_are_expanded_and_an_unset_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILRUBERT_EXAMPLE", "/srv/data")
    assert Example(path="${DISTILRUBERT_EXAMPLE}/corpus.txt").path == "/srv/data/corpus.txt"
    monkeypatch.delenv("DISTILRUBERT_EXAMPLE")
    with pytest.raises(ValidationError, match="DISTILRUBERT_EXAMPLE is not set"):
        Example(path="${DISTILRUBERT_EXAMPLE}/corpus.txt")


def test_a_relative_path_in_a_variable_starts_at_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILRUBERT_EXAMPLE", "../data")
    folder = {"folder": tmp_path / "recipes"}
    read = Example.model_validate(
        {"path": "${DISTILRUBERT_EXAMPLE}/corpus.txt", "model": "${DISTILRUBERT_EXAMPLE}/teacher"}, context=folder
    )
    assert read.path == str(tmp_path / "../data/corpus.txt")
    assert read.model == str(tmp_path / "../data/teacher")
    inside = Example.model_validate({"path": "texts/${DISTILRUBERT_EXAMPLE}/corpus.txt"}, context=folder)
    assert inside.path == str(tmp_path / "recipes/texts/../data/corpus.txt")


def test_a_name_stays_a_name_unless_it_is_there(tmp_path: Path) -> None:
    def read(model: str) -> str | None:
        return Example.model_validate({"model": model}, context={"folder": tmp_path}).model

    assert read("someone/rubert") == "someone/rubert"
    assert read("./someone/rubert") == str(tmp_path / "someone/rubert")
    (tmp_path / "someone" / "rubert").mkdir(parents=True)
    assert read("someone/rubert") == str(tmp_path / "someone/rubert")
