"""Whether recorded settings still are the same: a new field at its default is, a changed default is not."""

import json

import pytest
from pydantic import Field, create_model

from distilrubert.common.configuration import Section
from distilrubert.common.recorded_inputs import agrees, difference, recorded


class Inner(Section):
    """A section inside another one."""

    depth: int = 2


class Settings(Section):
    """A section of a version."""

    rate: float = 0.1
    inner: Inner = Field(default_factory=Inner)
    parts: list[Inner] = Field(default_factory=lambda: [Inner(depth=1)])


def record(section: Section) -> dict[str, object]:
    """As it comes back from its file."""
    values: dict[str, object] = json.loads(json.dumps({"settings": recorded(section)}))
    return values


def now(section: Section) -> dict[str, object]:
    return {"settings": recorded(section)}


def test_a_section_agrees_with_its_own_record() -> None:
    assert agrees(record(Settings()), now(Settings()))
    assert not agrees(record(Settings()), now(Settings(rate=0.2)))
    assert not agrees(record(Settings()), now(Settings(inner=Inner(depth=3))))
    assert not agrees(record(Settings()), now(Settings(parts=[])))
    assert not agrees(record(Settings()), {})


def test_a_new_field_at_its_default_is_no_change() -> None:
    new_inner = create_model("NewInner", __base__=Inner, width=(int, 4))
    new_settings = create_model(
        "NewSettings",
        __base__=Settings,
        clip=(float, 1.0),
        inner=(new_inner, Field(default_factory=new_inner)),
        parts=(list[new_inner], Field(default_factory=list)),
        more=(Inner | None, None),
    )
    old = record(Settings(parts=[Inner(depth=5)]))
    same = {"parts": [{"depth": 5}]}
    assert agrees(old, now(new_settings.model_validate(same)))
    assert difference(old, now(new_settings.model_validate(same))) == ""
    other = new_settings.model_validate(same | {"rate": 0.2, "inner": {"width": 5}})
    assert difference(old, now(other)) == "settings.inner.width was not set and is 5 (and 1 more)"
    for changes in ({"clip": 2.0}, {"inner": {"width": 5}}, {"parts": [{"depth": 5, "width": 1}]}, {"more": {}}):
        assert not agrees(old, now(new_settings.model_validate(same | changes)))


def test_a_changed_default_is_a_change() -> None:
    new_settings = create_model("NewSettings", __base__=Settings, rate=(float, 0.3))
    assert not agrees(record(Settings()), now(new_settings()))
    assert agrees(record(Settings()), now(new_settings(rate=0.1)))


def test_values_that_json_holds_otherwise_agree() -> None:
    values = {"betas": (0.9, 0.98), "none": None}
    assert agrees(json.loads(json.dumps(values)), values)


def test_what_is_left_out_does_not_count() -> None:
    assert recorded(Settings(), exclude=("parts", "inner")) == {"rate": 0.1}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 3]}}, "b.c.1 was 2 and is 3"),
        ({"a": 1, "b": [1]}, {"a": 2, "b": []}, "a was 1 and is 2 (and 2 more)"),
        ({"a": 1}, {"a": None}, "a was 1 and is null"),
        ({}, {"a": None}, "a was not set and is null"),
        ({"a": []}, {}, "a was [] and is not set"),
        ({"a": "да"}, {"a": "да"}, ""),
        ({"a": [0, 1]}, {"a": ["0", 1]}, 'a.0 was 0 and is "0"'),
    ],
)
def test_whatever_changed_is_told(old: dict[str, object], new: dict[str, object], said: str) -> None:
    assert difference(old, new) == said
