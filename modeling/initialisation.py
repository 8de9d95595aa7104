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

**Fewer heads or units, or a smaller width**: :func:`pruned_weights`. The student keeps the most important dimensions of
the hidden states, heads, dimensions of heads and units of the feed-forward networks, as
:mod:`~distilrubert.modeling.importance` ranks them; what is left is dense. Principal components keep more variance and
were tried: LayerNorm works on each dimension, so a rotation of the basis loses more than it keeps.

All of them work on weights by role, see :mod:`~distilrubert.modeling.families.family`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from distilrubert.modeling.architecture import ResolvedArchitecture, spread_layers
from distilrubert.modeling.families import family_of
from distilrubert.modeling.families.family import Weights
from distilrubert.modeling.importance import HIDDEN, Importance, importance_of_weights
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
    importance: Importance | None = None,
) -> Weights:
    """Every weight of a student of this shape and configuration.

    A student with a trained vocabulary needs its :func:`averaging_matrix`. Without an `importance` the parts of the
    teacher are ranked by their weights. The teacher is not changed.
    """
    weights = copied_weights(teacher, student, shape)
    if averaging_VT is not None:
        weights = respelled_weights(weights, averaging_VT)
    if not shape.is_smaller_than(teacher.config):
        return weights
    return pruned_weights(weights, teacher.config, shape, importance or importance_of_weights(teacher))


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
    # Sources of a row, the best first: rows, columns and weights. A token of both is one, however rare it is.
    sources = [
        (shared_V, shared_T, np.maximum(weight_T[shared_T], 1)),
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


def pruned_weights(
    weights: Weights, teacher: PretrainedConfig, shape: ResolvedArchitecture, importance: Importance
) -> Weights:
    """The weights of a student with all of the teacher's sizes, cut down to `shape`.

    Two sizes would change with the number of terms of a sum, and are corrected:

    - An attention score has fewer products, and is divided by a smaller square root of the width of a head: queries are
      scaled.
    - A LayerNorm divides by the deviation over the dimensions that stay, which may be larger or smaller than that over
      all. Its weight is scaled by the root of the ratio of their mean squares, where these were measured.
    """
    assert shape.initialise_from is not None
    hidden = {HIDDEN: _most_important(importance.values[HIDDEN], shape.dim)}
    kept = [hidden | _kept_in_layer(importance, f"layers.{layer}.", teacher, shape) for layer in shape.initialise_from]
    query_scale = (teacher.hidden_size / teacher.num_attention_heads / (shape.dim / shape.heads)) ** 0.5
    pruned: Weights = {}
    for name, weight in weights.items():
        *place, role, kind = name.split(".")
        axes, origin = hidden, place
        if place[:1] == ["layers"]:
            layer = int(place[1])
            axes, origin = kept[layer], ["layers", str(shape.initialise_from[layer])]
        own = AXES.get(role, (HIDDEN,))
        cut = _cut(weight, own if kind == "weight" else own[:1], axes)
        if role == "query":
            cut = query_scale * cut
        if kind == "weight" and role.endswith("norm"):
            cut = _norm_scale(importance, [*origin, role], hidden[HIDDEN]) * cut
        pruned[name] = cut
    return pruned


def _kept_in_layer(
    importance: Importance, place: str, teacher: PretrainedConfig, shape: ResolvedArchitecture
) -> dict[str, Tensor]:
    """What stays of a layer's heads, of their dimensions and of its feed-forward network."""
    width, heads = shape.dim // shape.heads, teacher.num_attention_heads
    ranked = importance.values.get(f"{place}heads")
    # Heads that are not ranked are spread evenly.
    chosen = spread_layers(shape.heads, heads) if ranked is None else _most_important(ranked, shape.heads).tolist()
    kept = {"inner": _most_important(importance.values[f"{place}inner"], shape.hidden_dim)}
    for axis in ("scores", "values"):
        of_heads_HE = importance.values[place + axis].view(heads, -1)
        first = teacher.hidden_size // heads
        kept[axis] = torch.cat([head * first + _most_important(of_heads_HE[head], width) for head in chosen])
    return kept


def _norm_scale(importance: Importance, place: Sequence[str], kept: Tensor) -> float:
    squares_D = importance.norms.get(".".join(place))
    return 1.0 if squares_D is None else float((squares_D[kept].mean() / squares_D.mean()).sqrt())


def _most_important(values: Tensor, number: int) -> Tensor:
    """The indices of the `number` largest values, in order."""
    return values.argsort(descending=True, stable=True)[:number].sort().values


def _cut(weight: Tensor, axes: tuple[str, ...], kept: Axes) -> Tensor:
    for place, axis in enumerate(axes):
        if axis in kept:
            weight = weight.index_select(place, kept[axis])
    return weight
