"""Encoders that Encodechka has measured: their published figures, and models of their shapes with random weights."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedTokenizerFast


@dataclasses.dataclass(frozen=True)
class Encoder:
    """One of them: its figures in the README of github.com/avidale/encodechka, and its shape in its config.json.

    Attributes:
        name: its id on the Hub.
        mean_score: over the eight tasks on sentences, the column "Mean S".
        scores: of three of them, which the table has in two digits.
        size_mib: of its weights in fp32.
        kind: ``model_type`` as transformers names it.
        layers: transformer layers.
        dim: width of the hidden states.
        heads: attention heads of a layer.
        hidden_dim: width inside the feed-forward networks.
        vocabulary: tokens.
        positions: of the longest sequence.
    """

    name: str
    mean_score: float
    scores: dict[str, float]
    size_mib: float
    kind: str
    layers: int
    dim: int
    heads: int
    hidden_dim: int
    vocabulary: int
    positions: int = 512

    @property
    def short_name(self) -> str:
        """Without its owner."""
        return self.name.rpartition("/")[2]

    @property
    def published(self) -> dict[str, Any]:
        """The figures of the table."""
        names = ("name", "mean_score", "scores", "size_mib")
        return {name: getattr(self, name) for name in names}

    def scaled_down(self) -> "Encoder":
        """A tiny one of the kind, to see that a program runs."""
        return dataclasses.replace(self, layers=1, dim=32, heads=2, hidden_dim=64, vocabulary=64, positions=512)


def _scores(sts: float, pi: float, nli: float) -> dict[str, float]:
    return {"sts": sts, "pi": pi, "nli": nli}


ENCODERS = (
    Encoder(
        "deepvk/USER-bge-m3", 0.799, _scores(0.87, 0.76, 0.58), 1371.1, "xlm-roberta", 24, 1024, 16, 4096, 46_166, 8194
    ),
    Encoder(
        "sergeyzh/rubert-tiny-turbo", 0.749, _scores(0.83, 0.72, 0.48), 111.4, "bert", 3, 312, 12, 600, 83_828, 2048
    ),
    Encoder(
        "intfloat/multilingual-e5-small", 0.742, _scores(0.82, 0.71, 0.46), 449.0, "bert", 12, 384, 12, 1536, 250_037
    ),
    Encoder("cointegrated/LaBSE-en-ru", 0.739, _scores(0.79, 0.66, 0.43), 489.7, "bert", 12, 768, 12, 3072, 55_083),
    Encoder(
        "cointegrated/rubert-tiny2", 0.704, _scores(0.75, 0.65, 0.42), 111.4, "bert", 3, 312, 12, 600, 83_828, 2048
    ),
    Encoder(
        "DeepPavlov/distilrubert-base-cased-conversational",
        0.676, _scores(0.70, 0.56, 0.39), 514.0, "distilbert", 6, 768, 12, 3072, 119_547,
    ),
    Encoder(
        "DeepPavlov/distilrubert-tiny-cased-conversational",
        0.670, _scores(0.70, 0.55, 0.40), 405.8, "distilbert", 2, 768, 12, 3072, 119_547,
    ),
    Encoder(
        "DeepPavlov/rubert-base-cased-conversational",
        0.653, _scores(0.68, 0.52, 0.38), 678.5, "bert", 12, 768, 12, 3072, 119_547,
    ),
)  # fmt: skip


def write_random(encoder: Encoder, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """A model of its shape with random weights, which reads texts with another model's tokenizer.

    It has at least as many word embeddings as that tokenizer has tokens. To look one up takes no time that depends on
    their number.
    """
    torch.manual_seed(0)
    config = _config(encoder, max(encoder.vocabulary, len(tokenizer)))
    config.pad_token_id = tokenizer.pad_token_id
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def count_parameters(encoder: Encoder) -> int:
    """Numbers in the weights of its shape."""
    with torch.device("meta"):
        return int(AutoModel.from_config(_config(encoder, encoder.vocabulary)).num_parameters())


def _config(encoder: Encoder, vocabulary: int) -> PretrainedConfig:
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    if encoder.kind == "distilbert":
        names = ("n_layers", "dim", "n_heads", "hidden_dim")
    shape = (encoder.layers, encoder.dim, encoder.heads, encoder.hidden_dim)
    return AutoConfig.for_model(
        encoder.kind,
        vocab_size=vocabulary,
        max_position_embeddings=encoder.positions,
        **dict(zip(names, shape, strict=True)),
    )
