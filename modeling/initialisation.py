"""The weights that a student starts from: one function for each difference between its shape and the teacher's.

**Same width, heads and vocabulary**: :func:`copied_weights`. Embeddings, their LayerNorm, the head and the chosen
layers are copied. A DistilBERT has no token types, so the vector of type 0 is added to every position. A student with
all layers computes what the teacher computes for a single text, up to rounding. What is lost:

- of a BERT the vector of token type 1: a pair of texts is read as one;
- the pooler and the next-sentence head, which masked language modelling does not use;
- with fewer layers, what the other layers computed. Each copied layer then reads states that it was not trained on,
  which distillation corrects. The output of the embeddings (hidden state 0) is still the teacher's, and so is the
  state after student layer k if the list begins 0, 1, ..., k.

**Another vocabulary**: :func:`respelled_weights`. A token that the teacher also has keeps its embedding and bias.
Another one gets the mean over the teacher's tokens that it helps to spell, weighted by their counts in the corpus. If
all these counts are 0, it gets the mean of the teacher's tokens that spell it; if there are none, the mean of all.

**A smaller width**: :func:`sliced_weights`. The student keeps whole dimensions: of the hidden states those that the
LayerNorms of the teacher scale most, of each head and feed-forward network those with the largest weights. Principal
components keep more variance and were tried: LayerNorm works on each dimension, so a rotation of the basis loses more
than it keeps (docs/vocabulary.md has the values).

All of them work on weights by role, see :mod:`~distilrubert.modeling.families.family`.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.modeling.architecture import ResolvedArchitecture, spread_layers
from distilrubert.modeling.families import family_of
from distilrubert.modeling.families.family import Weights
from distilrubert.modeling.roles import weights_of
from distilrubert.modeling.splitting import shared_tokens, split_vocabulary

Axes = Mapping[str, Tensor]
"""The indices to keep along axes, by their names in :data:`AXES`."""

AXES: dict[str, tuple[str, ...]] = {
    "words": ("vocabulary", "hidden"),
    "positions": ("position", "hidden"),
    "token_types": ("type", "hidden"),
    "query": ("scores", "hidden"),
    "key": ("scores", "hidden"),
    "value": ("values", "hidden"),
    "attention_output": ("hidden", "values"),
    "inner": ("inner", "hidden"),
    "gate": ("inner", "hidden"),
    "outer": ("hidden", "inner"),
    "transform": ("hidden", "hidden"),
    "decoder": ("vocabulary", "hidden"),
}
"""The axes of a weight by its role; a bias has the first, and what is not listed is a norm of hidden states."""


def initial_weights(
    teacher: PreTrainedModel,
    student: PretrainedConfig,
    shape: ResolvedArchitecture,
    averaging_VT: Tensor | None = None,
) -> Weights:
    """Every weight of a student of this shape and configuration.

    A student with a trained vocabulary needs its :func:`averaging_matrix`. The teacher is not changed.
    """
    sizes = shape.sizes_beside(teacher.config).values()
    weights = copied_weights(teacher, student, shape)
    if averaging_VT is not None:
        weights = respelled_weights(weights, averaging_VT)
    is_narrower = any(own < of_teacher for own, of_teacher in sizes)
    return sliced_weights(weights, teacher, shape) if is_narrower else weights


def copied_weights(teacher: PreTrainedModel, student: PretrainedConfig, shape: ResolvedArchitecture) -> Weights:
    """The weights of a student of the teacher's width and vocabulary whose layers are copies of the chosen ones."""
    assert shape.initialise_from is not None
    whole = family_of(teacher.config).carry(weights_of(teacher), teacher.config, student)
    weights = {name: weight for name, weight in whole.items() if not name.startswith("layers.")}
    for layer, of_teacher in enumerate(shape.initialise_from):
        prefix = f"layers.{of_teacher}."
        weights |= {
            f"layers.{layer}.{name.removeprefix(prefix)}": weight
            for name, weight in whole.items()
            if name.startswith(prefix)
        }
    return weights


def averaging_matrix(
    teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast, counts_T: NDArray[np.int64] | None = None
) -> Tensor:
    """For each token of the student the weight of each teacher token in its embedding, sparse (V, T).

    Rows sum to 1. The row of a token without any relation to the teacher's (a character that is missing there) is
    empty.

    `counts_T` is how often the corpus has each token of the teacher; None counts each once.
    """
    spelt, spelling = split_vocabulary(teacher, student), split_vocabulary(student, teacher)
    weight_T = np.ones(len(teacher)) if counts_T is None else counts_T.astype(np.float64)
    shared_T, shared_V = shared_tokens(teacher, student)
    # Sources of a row, the best first: rows, columns and weights.
    sources = [
        (shared_V, shared_T, np.ones(len(shared_V))),
        (spelt.token_K, spelt.row_K, weight_T[spelt.row_K]),
        (spelling.row_K, spelling.token_K, np.ones(len(spelling.token_K))),
    ]
    is_made_V = np.zeros(len(student), dtype=bool)
    entries = []
    for rows, columns, weights in sources:
        sums_V = np.bincount(rows, weights, len(student))
        is_new = ~is_made_V[rows] & (sums_V[rows] > 0)
        entries.append((rows[is_new], columns[is_new], weights[is_new] / sums_V[rows[is_new]]))
        is_made_V[rows[is_new]] = True
    rows, columns, weights = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    places = torch.from_numpy(np.stack((rows, columns)))
    shares = torch.from_numpy(weights.astype(np.float32))
    return torch.sparse_coo_tensor(places, shares, (len(student), len(teacher)), check_invariants=True).coalesce()


def respelled_weights(weights: Weights, averaging_VT: Tensor) -> Weights:
    """The weights for the vocabulary of the rows of `averaging_VT`; an empty row becomes the mean of all."""
    # A teacher may have rows that no token of its tokenizer uses.
    used = averaging_VT.shape[1]
    is_empty_V = torch.sparse.sum(averaging_VT, dim=1).to_dense() == 0

    def averaged(weight_TD: Tensor) -> Tensor:
        made_VD: Tensor = torch.sparse.mm(averaging_VT, weight_TD)
        made_VD[is_empty_V] = weight_TD.mean(dim=0)
        return made_VD

    embeddings_VD = averaged(weights["words.weight"][:used])
    made = {"words.weight": embeddings_VD, "head.decoder.weight": embeddings_VD}
    if (bias_T := weights.get("head.decoder.bias")) is not None:
        made["head.decoder.bias"] = averaged(bias_T[:used, None])[:, 0]
    return weights | {name: weight for name, weight in made.items() if name in weights}


def sliced_weights(weights: Weights, teacher: PreTrainedModel, shape: ResolvedArchitecture) -> Weights:
    """The weights of a student of the teacher's width, cut down to `shape`.

    Queries are scaled so that attention scores keep their size: the sum has fewer products, and it is divided by a
    smaller square root of the width of a head.
    """
    hidden = {"hidden": _strongest(_scales(teacher), shape.dim)}
    kept = [hidden | _kept_in_layer(weights, f"layers.{layer}", teacher, shape) for layer in range(shape.layers)]
    scale = (teacher.config.hidden_size / teacher.config.num_attention_heads / (shape.dim / shape.heads)) ** 0.5
    sliced: Weights = {}
    for name, weight in weights.items():
        *place, role, kind = name.split(".")
        axes = kept[int(place[1])] if place[:1] == ["layers"] else hidden
        own = AXES.get(role, ("hidden",))
        cut = _sliced(weight, own if kind == "weight" else own[:1], axes)
        sliced[name] = scale * cut if role == "query" else cut
    return sliced


def _kept_in_layer(
    weights: Weights, place: str, teacher: PreTrainedModel, shape: ResolvedArchitecture
) -> dict[str, Tensor]:
    """What a layer keeps of its heads and of its feed-forward network: what has the largest weights on both sides."""

    def strength(*roles: str) -> Tensor:
        found = [(role, weights.get(f"{place}.{role}.weight")) for role in roles]
        norms = [weight.norm(dim=int(AXES[role][0] != "hidden")) for role, weight in found if weight is not None]
        return torch.stack(norms).prod(dim=0)

    teacher_heads, width = teacher.config.num_attention_heads, shape.dim // shape.heads
    teacher_width = teacher.config.hidden_size // teacher_heads
    kept = {"inner": _strongest(strength("inner", "gate", "outer"), shape.hidden_dim)}
    for axis, roles in {"scores": ("query", "key"), "values": ("value", "attention_output")}.items():
        of_heads = strength(*roles).view(teacher_heads, teacher_width)
        chosen = spread_layers(shape.heads, teacher_heads)
        kept[axis] = torch.cat([head * teacher_width + _strongest(of_heads[head], width) for head in chosen])
    return kept


def _scales(teacher: PreTrainedModel) -> Tensor:
    """How much the LayerNorms scale each dimension of the hidden states: the sum of squares, (D,)."""
    norms = [module for module in teacher.modules() if isinstance(module, torch.nn.LayerNorm)]
    return torch.stack([norm.weight.detach() for norm in norms]).square().sum(dim=0)


def _strongest(strength: Tensor, number: int) -> Tensor:
    """The indices of the `number` largest values, in order."""
    return strength.argsort(descending=True, stable=True)[:number].sort().values


def _sliced(weight: Tensor, axes: tuple[str, ...], kept: Axes) -> Tensor:
    for place, axis in enumerate(axes):
        if axis in kept:
            weight = weight.index_select(place, kept[axis])
    return weight
