"""The local Hub as a fixture. Another room's tests get it by `from ..hub.conftest import local_hub`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import DistilBertConfig, DistilBertForMaskedLM, PreTrainedTokenizerFast

from distilrubert.pipeline.hub.connection import RetryPolicy
from distilrubert.pipeline.hub.publish_settings import PublishSettings

from .server import LocalHub

HASTY = RetryPolicy(attempts=3, first_wait_s=0.01, longest_wait_s=0.01)


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A running Hub without any repository; see LocalHub for its endpoint, tokens and storage."""
    # Clients from 1.x on do not fall back to LFS where hf_xet is installed, and this Hub has no Xet storage.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with LocalHub(tmp_path / "hub-storage") as hub:
        yield hub


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DistilBERT as a model repository, with a card and a file in a folder below. Not to be changed."""
    return save_model_folder(tmp_path_factory.mktemp("model") / "hub")


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A model folder that a test may change."""
    return Path(shutil.copytree(model_folder, tmp_path / "folder"))


@pytest.fixture
def target(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> PublishSettings:
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["me"])
    return PublishSettings(repo_id="me/demo")


def save_model_folder(folder: Path) -> Path:
    save_tiny_model(folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / "reports").mkdir()
    (folder / "reports" / "speed.json").write_text("{}\n", encoding="utf-8")
    return folder


def save_tiny_model(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Привет", "Как", "дела", "!", "?", "##и", "да"]
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(words), dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=32, pad_token_id=0
    )
    DistilBertForMaskedLM(config).save_pretrained(folder)
    wordpiece = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=False)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.decoder = decoders.WordPiece()
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=wordpiece,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=32,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    ).save_pretrained(folder)


CARD = """\
---
language: ru
license: apache-2.0
library_name: transformers
pipeline_tag: fill-mask
---
# A tiny model
"""
