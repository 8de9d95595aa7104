"""Models of tasks on the Hub: preflight knows their heads, and they load from an empty cache."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import DistilBertConfig

from distilrubert.pipeline.hub.preflight import preflight
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.verify import verify_folder

from .conftest import HASTY
from .server import LocalHub
from .survival import push_once

HEADS = {
    "tagger": ("TokenClassification", {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}}),
    "reader": ("QuestionAnswering", {}),
    "classifier": ("SequenceClassification", {"id2label": {0: "bad", 1: "good"}}),
    "several": ("SequenceClassification", {"num_labels": 3, "problem_type": "multi_label_classification"}),
    "scores": ("SequenceClassification", {"id2label": {0: "score"}, "problem_type": "regression"}),
}
PIPELINES = {"TokenClassification": "token-classification", "QuestionAnswering": "question-answering"}


@pytest.fixture(params=[*HEADS])
def task_folder(request: pytest.FixtureRequest, folder: Path) -> Path:
    """The model repository with a head for a task in place of that for masks."""
    name, options = HEADS[request.param]
    torch.manual_seed(0)
    config = DistilBertConfig.from_pretrained(folder, **options)
    getattr(transformers, f"DistilBertFor{name}")(config).save_pretrained(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    tag = PIPELINES.get(name, "text-classification")
    (folder / "README.md").write_text(card.replace("fill-mask", tag), encoding="utf-8")
    return folder


def test_a_model_of_a_task_is_published_and_loads(
    task_folder: Path, local_hub: LocalHub, target: PublishSettings
) -> None:
    revision = push_once(task_folder, target, local_hub.endpoint, HASTY).revision
    found = verify_folder(task_folder, target, local_hub.endpoint, HASTY)
    assert (found.revision, found.loads, found.others) == (revision, True, ())


def test_a_head_that_is_not_in_the_weights_is_told(task_folder: Path) -> None:
    """transformers would make a random one without a word."""
    weights = load_file(task_folder / "model.safetensors")
    head = [name for name in weights if not name.startswith("distilbert.")]
    kept = {name: weight for name, weight in weights.items() if name != head[-1]}
    save_file(kept, task_folder / "model.safetensors", metadata={"format": "pt"})
    assert f"{head[-1]}: missing from the weights" in "\n".join(map(str, preflight(task_folder)))
