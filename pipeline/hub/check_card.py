"""Checks of the card's front matter: what every Hub refuses, without asking it."""

from collections.abc import Iterator
from typing import Any

from huggingface_hub.repocard_data import model_index_to_eval_results

from distilrubert.model_card.front_matter import split_card
from distilrubert.model_card.hub_rules import is_language, is_license, is_repo_id
from distilrubert.pipeline.hub.files import ModelFolder
from distilrubert.pipeline.statement import Statement, problem

CARD = "README.md"
RELATIONS = frozenset({"adapter", "merge", "quantized", "finetune"})


def check_card(folder: ModelFolder) -> Iterator[Statement]:
    """The card exists, and its front matter has the form that the Hub reads."""
    if CARD not in folder:
        yield problem(CARD, "is missing; every published model has a card")
        return
    try:
        metadata, _ = split_card((folder / CARD).read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        yield problem(CARD, str(error))
        return
    for message in _front_matter_problems(metadata):
        yield problem(CARD, f"front matter: {message}")


def _front_matter_problems(metadata: dict[str, Any]) -> Iterator[str]:
    yield from _license_problems(metadata)
    for code in _listed(metadata.get("language")):
        if not isinstance(code, str) or not is_language(code):
            # YAML 1.1 reads an unquoted `no` as false.
            yield f"language: {code!r} is not an ISO 639 code of two or three letters; put quotes around no and on"
    if "language" not in metadata:
        yield "language: is missing"
    for key in ("pipeline_tag", "library_name"):
        if not isinstance(metadata.get(key), str):
            yield f"{key}: is missing, or not a word"
    for key in ("base_model", "datasets"):
        for name in _listed(metadata.get(key)):
            if not isinstance(name, str) or not is_repo_id(name):
                yield f"{key}: {name!r} is not an id of the Hub, OWNER/NAME"
    if metadata.get("base_model_relation", "finetune") not in RELATIONS:
        yield f"base_model_relation: {metadata['base_model_relation']!r} is not one of {', '.join(sorted(RELATIONS))}"
    for key in ("tags", "metrics"):
        if not all(isinstance(item, str) and item for item in _listed(metadata.get(key))):
            yield f"{key}: must be a list of words"
    yield from _model_index_problems(metadata)


def _license_problems(metadata: dict[str, Any]) -> Iterator[str]:
    identifier = metadata.get("license")
    if identifier is None:
        yield "license: is missing"
    elif not isinstance(identifier, str) or not is_license(identifier):
        yield f"license: {identifier!r} is not an identifier; see huggingface.co/docs/hub/repositories-licenses"
    elif identifier == "other" and not (metadata.get("license_name") and metadata.get("license_link")):
        yield "license: other needs license_name and license_link"


def _model_index_problems(metadata: dict[str, Any]) -> Iterator[str]:
    index = metadata.get("model-index")
    if index is None:
        return
    try:
        _, results = model_index_to_eval_results(index)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        yield f"model-index: the Hub cannot read it: {error!r}"
        return
    for result in results:
        if not isinstance(result.metric_value, int | float):
            yield f"model-index: the value of {result.metric_type} is {result.metric_value!r}, not a number"


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
