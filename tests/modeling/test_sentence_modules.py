import json
from pathlib import Path
from typing import Any

import pytest

from distilrubert.common.errors import UserError
from distilrubert.modeling.sentence_modules import SentenceModules, SentenceSettings, read_sentence_modules

TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
POOLING = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}


def write(folder: Path, modules: Any, pooling: Any = None, config: Any = None) -> Path:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    files = {"modules.json": modules, "1_Pooling/config.json": pooling, "config_sentence_transformers.json": config}
    for name, values in files.items():
        if values is not None:
            (folder / name).write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"word_embedding_dimension": 32}, "mean"),
    ],
)
def test_the_pooling_is_read_in_old_and_new_files(pooling: dict[str, Any], mode: str, tmp_path: Path) -> None:
    found = read_sentence_modules(write(tmp_path, [TRANSFORMER, POOLING, NORMALIZE], pooling))
    assert found is not None
    assert found.pooling == mode


def test_prompts_are_those_of_queries_and_of_documents(tmp_path: Path) -> None:
    assert read_sentence_modules(tmp_path) is None
    modules, pooling = [TRANSFORMER, POOLING], {"pooling_mode": "mean"}
    assert read_sentence_modules(write(tmp_path, modules, pooling)) == SentenceModules()
    prompts = {"query": "query: ", "passage": "passage: "}
    config = {"prompts": prompts, "default_prompt_name": None}
    assert read_sentence_modules(write(tmp_path, modules, pooling, config)) == SentenceModules(
        "mean", "query: ", "passage: "
    )
    config["default_prompt_name"] = "query"
    assert read_sentence_modules(write(tmp_path, modules, pooling, config)) == SentenceModules(
        "mean", "query: ", "passage: "
    )
    config["prompts"] = {"query": "q "}
    assert read_sentence_modules(write(tmp_path, modules, pooling, config)) == SentenceModules("mean", "q ", "q ")


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        (
            [TRANSFORMER, POOLING, DENSE],
            {},
            "modules.json has a module Dense; allowed: Transformer, Pooling, Normalize",
        ),
        (
            [TRANSFORMER | {"type": "elsewhere.Transformer"}],
            {},
            "has a module elsewhere.Transformer, which is not of sentence_transformers; allowed",
        ),
        (
            [TRANSFORMER, POOLING],
            {"pooling_mode": ["cls", "mean"]},
            "its pooling is cls and mean; allowed: mean or cls",
        ),
        ([TRANSFORMER, POOLING], {"pooling_mode_max_tokens": True}, "its pooling is pooling_mode_max_tokens; allowed"),
        ({"modules": []}, {}, "a list of modules is needed"),
    ],
)
def test_what_a_student_cannot_have_is_refused(modules: Any, pooling: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_sentence_modules(write(tmp_path, modules, pooling))
    assert str(error.value).startswith(str(tmp_path))
    assert message in str(error.value)


def test_what_is_set_goes_before_what_the_teacher_says(tmp_path: Path) -> None:
    assert SentenceSettings().completed(tmp_path) == SentenceModules("mean", "", None)
    assert SentenceSettings(pooling="cls").completed(tmp_path).prompts == []
    assert SentenceModules("mean", "да ", "да ").prompts == ["да "]
    config = {"prompts": {"query": "query: "}}
    write(tmp_path, [TRANSFORMER, POOLING], {"pooling_mode": "cls"}, config)
    with pytest.raises(
        UserError, match=r"sentences\.document_prompt: is needed beside the prompt of queries, 'query: '"
    ):
        SentenceSettings().completed(tmp_path)
    found = SentenceSettings(document_prompt="passage: ").completed(tmp_path)
    assert found == SentenceModules("cls", "query: ", "passage: ")
    assert found.prompts == ["query: ", "passage: "]
    # Documents without a prompt are learnt from, too.
    assert SentenceSettings(document_prompt="").completed(tmp_path).prompts == ["query: ", ""]
    assert SentenceSettings(query_prompt="q ", document_prompt="q ").completed(tmp_path).prompts == ["q "]
