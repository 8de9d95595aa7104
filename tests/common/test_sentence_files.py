import json
from pathlib import Path
from typing import Any

import pytest

from distilrubert.common.errors import UserError
from distilrubert.common.sentence_files import (
    MODULES_FILE,
    PROMPTS_FILE,
    SentencePrompts,
    pooling_in,
    read_pooling,
    read_prompts,
)


@pytest.mark.parametrize(
    ("config", "query", "document"),
    [
        ({}, "", None),
        ({"prompts": None}, "", None),
        ({"prompts": {"query": "q ", "document": "d ", "passage": "p "}}, "q ", "d "),
        ({"prompts": {"query": "q ", "passage": "p "}, "default_prompt_name": "query"}, "q ", "p "),
        ({"prompts": {"corpus": ""}}, "", ""),
        ({"prompts": {"query": "q ", "document": None}}, "q ", ""),
        ({"prompts": {"all": "a "}, "default_prompt_name": "all"}, "a ", "a "),
        ({"prompts": {"all": "a "}, "default_prompt_name": "absent", "model_type": "other"}, "", None),
    ],
)
def test_prompts_of_queries_and_documents(config: Any, query: str, document: str | None, tmp_path: Path) -> None:
    assert read_prompts(tmp_path) is None
    (tmp_path / PROMPTS_FILE).write_text(json.dumps(config), encoding="utf-8")
    found = read_prompts(tmp_path)
    assert found is not None
    assert (found.query, found.document) == (query, document)


@pytest.mark.parametrize("config", [[], {"prompts": ["q "]}, {"prompts": {"query": 1}}, {"default_prompt_name": {}}])
def test_a_file_of_another_form_is_named(config: Any, tmp_path: Path) -> None:
    (tmp_path / PROMPTS_FILE).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_prompts(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / PROMPTS_FILE}: ")
    assert "\n" not in str(error.value)


def test_prompts_by_name_are_text() -> None:
    assert SentencePrompts(prompts={"a": None, "b": "c"}).by_name == {"a": "", "b": "c"}


@pytest.mark.parametrize("config", [[], {"pooling_mode": 3}, {"pooling_mode": [["cls"]]}, {"pooling_mode": []}])
def test_a_pooling_of_another_form_is_refused(config: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json: "):
        read_pooling(tmp_path / "config.json")


def test_the_pooling_is_where_the_list_of_modules_says(tmp_path: Path) -> None:
    assert pooling_in(tmp_path) == "mean"
    encoder = {"path": "", "type": "sentence_transformers.models.Transformer"}
    (tmp_path / MODULES_FILE).write_text(json.dumps([encoder]), encoding="utf-8")
    assert pooling_in(tmp_path) == "mean"
    pooling = {"path": "last/pooling", "type": "sentence_transformers.models.Pooling"}
    (tmp_path / MODULES_FILE).write_text(json.dumps([encoder, pooling]), encoding="utf-8")
    with pytest.raises(UserError, match=r"last/pooling/config\.json: cannot be read"):
        pooling_in(tmp_path)
    (tmp_path / "last/pooling").mkdir(parents=True)
    (tmp_path / "last/pooling/config.json").write_text('{"pooling_mode": "cls"}', encoding="utf-8")
    assert pooling_in(tmp_path) == "cls"
    file = tmp_path / "last/pooling/config.json"
    file.write_text('{"pooling_mode": "cls", "include_prompt": false}', encoding="utf-8")
    assert pooling_in(tmp_path) == "cls"
    (tmp_path / PROMPTS_FILE).write_text('{"prompts": {"query": "q "}}', encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json: include_prompt is false"):
        pooling_in(tmp_path)
    (tmp_path / MODULES_FILE).write_text('{"path": ""}', encoding="utf-8")
    with pytest.raises(UserError, match=r"modules\.json: a list of modules is needed"):
        pooling_in(tmp_path)
