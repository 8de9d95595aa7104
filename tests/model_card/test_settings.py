import pytest
from pydantic import ValidationError

from distilrubert.model_card.card_settings import MASK, CardSettings
from distilrubert.model_card.examples import KNOWN
from distilrubert.model_card.hub_rules import is_license, language_name


@pytest.mark.parametrize("language", ["ru", ["ru", "en"], "rus", "multilingual"])
def test_languages_that_the_hub_knows(language: str | list[str]) -> None:
    settings = CardSettings(language=language, license="mit")
    assert settings.language == ([language] if isinstance(language, str) else language)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"language": "Russian"}, "ISO 639"),
        ({"language": "RU"}, "ISO 639"),
        ({"language": "qq"}, "ISO 639"),
        ({"language": "zzz"}, "ISO 639"),
        ({"language": []}, "at least 1"),
        ({"license": "apache 2.0"}, "apache-2.0"),
        ({"license": "other"}, "license_name and license_link"),
        ({"license": "other", "license_name": "mine"}, "license_name and license_link"),
        ({"license_name": "mine"}, "license other only"),
        ({"license": "other", "license_name": "mine", "license_link": "javascript:alert(1)"}, "an https address"),
        ({"license": "other", "license_name": "mine", "license_link": "https://a.org/x) [y](z"}, "an https address"),
        ({"datasets": ["a/b/c"]}, "Hub id"),
        ({"example": "Без маски"}, r"exactly one \[MASK\]"),
        ({"example": "[MASK] и [MASK]"}, r"exactly one \[MASK\]"),
        ({"sentences": []}, "at least 1"),
        ({"language": "xal"}, "no greeting in xal .*give example"),
        ({"language": ["xal"], "sentences": ["Менд"]}, "no greeting in xal"),
        ({"watts": 0}, "greater than 0"),
        ({"licence": "mit"}, "Extra inputs"),
    ],
)
def test_what_the_hub_would_refuse(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CardSettings.model_validate({"language": "ru", "license": "mit"} | values)


def test_examples_are_in_the_models_language() -> None:
    english, german = (CardSettings.model_validate({"language": code, "license": "mit"}) for code in ("en", "de"))
    assert (english.example, english.sentences[0]) == ("Hello! How are [MASK] today?", "Hello! How are you?")
    assert german.example != english.example
    both = CardSettings.model_validate({"language": ["xal", "rus"], "license": "mit"})
    assert both.example == "Привет! Как у тебя [MASK]?"
    own = CardSettings.model_validate(
        {"language": "xal", "license": "mit", "example": "Менд [MASK]", "sentences": ["А"]}
    )
    assert (own.example, own.sentences) == ("Менд [MASK]", ["А"])


def test_every_greeting_has_one_mask_and_sentences_without() -> None:
    for code in KNOWN:
        settings = CardSettings.model_validate({"language": code, "license": "mit"})
        assert settings.example.count(MASK) == 1
        assert not any(MASK in sentence for sentence in settings.sentences)


def test_a_licence_outside_the_list() -> None:
    settings = CardSettings(language="ru", license="other", license_name="Ours", license_link="LICENSE")
    assert settings.license_name == "Ours"


def test_every_field_is_described() -> None:
    assert [name for name, field in CardSettings.model_fields.items() if not field.description] == []


def test_licenses_are_known_by_their_form() -> None:
    """The Hub's list grows: llama3.3 was added after llama2."""
    assert all(map(is_license, ("apache-2.0", "cc-by-nc-sa-4.0", "openrail++", "llama3.3", "other")))
    assert not any(map(is_license, ("Apache-2.0", "apache 2.0", "", "-mit")))
    assert CardSettings(language="ru", license="llama3.3").license == "llama3.3"


def test_languages_have_english_names() -> None:
    names = [language_name(code) for code in ("ru", "rus", "ht", "xal", "multilingual", "code")]
    assert names == ["Russian", "Russian", "Haitian Creole", "Kalmyk", "several languages", "program code"]
