import pytest

from distilrubert.common.errors import UserError
from distilrubert.modeling.scripts import is_of_scripts, script_of
from distilrubert.modeling.vocabulary_settings import TrimSettings
from distilrubert.pipeline.recipe import validated


@pytest.mark.parametrize(
    ("text", "scripts", "expected"),
    [
        ("дом", ["Cyrillic"], True),
        ("дом", ["Latin"], False),
        ("house", ["Cyrillic", "Latin"], True),
        ("домhouse", ["Cyrillic"], False),
        ("кто-то", ["Cyrillic"], True),
        ("е\u0308ж", ["Cyrillic"], True),
        ("2019", ["Cyrillic"], False),
        ("2019", ["Common"], True),
        ("漢字", ["Han"], True),
        ("", ["Han"], False),
    ],
)
def test_by_hand(text: str, scripts: list[str], expected: bool) -> None:
    assert is_of_scripts(text, scripts) == expected


def test_names_are_those_of_unicode() -> None:
    assert [script_of(character) for character in "яѣwα漢7😀"] == [
        "Cyrillic", "Cyrillic", "Latin", "Greek", "Han", "Common", "Common",
    ]  # fmt: skip
    assert script_of("\u0301") == "Inherited"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("Cyrilic", "did you mean Cyrillic"),
        ("latin", "did you mean Latin"),
        ("zz", "for example, Cyrillic, Latin and Greek are"),
    ],
)
def test_an_unknown_name_is_told_with_those_that_are_near(name: str, advice: str) -> None:
    with pytest.raises(
        UserError, match=rf"^keep_scripts\.0: is no script of Unicode \(.*\), found '{name}'$"
    ) as caught:
        validated(TrimSettings, {"keep_scripts": [name]})
    assert advice in str(caught.value)
