"""The weights that a student starts from: one function for each difference between its shape and the teacher's.

**Same width, heads and vocabulary**: :func:`copied_weights`. Embeddings, their LayerNorm, the head and the chosen
layers are copied. A DistilBERT has no segment embeddings, so the vector of segment 0 is added to every position. A
student with all layers computes what the teacher computes for a single text, up to rounding. What is lost:

- the vector of segment 1: a pair of texts is read as one segment;
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
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BertForMaskedLM, PreTrainedTokenizerFast

from distilrubert.modeling.architecture import ResolvedArchitecture, spread_layers
from distilrubert.modeling.splitting import shared_tokens, split_vocabulary

EMBEDDINGS = {
    "bert.embeddings.word_embeddings.weight": "distilbert.embeddings.word_embeddings.weight",
    "bert.embeddings.LayerNorm.weight": "distilbert.embeddings.LayerNorm.weight",
    "bert.embeddings.LayerNorm.bias": "distilbert.embeddings.LayerNorm.bias",
}
LAYER = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
HEAD = {
    "cls.predictions.transform.dense": "vocab_transform",
    "cls.predictions.transform.LayerNorm": "vocab_layer_norm",
    "cls.predictions.decoder": "vocab_projector",
}
WORD_EMBEDDINGS = "distilbert.embeddings.word_embeddings.weight"


def initial_weights(
    teacher: BertForMaskedLM, shape: ResolvedArchitecture, averaging_VT: Tensor | None = None
) -> dict[str, Tensor]:
    """Every weight of a student of this shape, by its name in ``DistilBertForMaskedLM``.

    A student with a trained vocabulary needs its :func:`averaging_matrix`. The teacher is not changed.
    """
    assert shape.initialise_from is not None
    sizes = shape.sizes_beside(teacher.config).values()
    weights = copied_weights(teacher, shape.initialise_from)
    if averaging_VT is not None:
        weights = respelled_weights(weights, averaging_VT)
    is_narrower = any(student < of_teacher for student, of_teacher in sizes)
    return sliced_weights(weights, teacher, shape) if is_narrower else weights


def copied_weights(teacher: BertForMaskedLM, layers: Sequence[int]) -> dict[str, Tensor]:
    """The weights of a student of the teacher's width and vocabulary whose layers are copies of `layers`."""
    source = teacher.state_dict()
    weights = {name: source[of_teacher] for of_teacher, name in EMBEDDINGS.items()}
    # A single text is segment 0, whose vector is added at every position.
    weights["distilbert.embeddings.position_embeddings.weight"] = (
        source["bert.embeddings.position_embeddings.weight"] + source["bert.embeddings.token_type_embeddings.weight"][0]
    )
    renamed = HEAD | {
        f"bert.encoder.layer.{of_teacher}.{part}": f"distilbert.transformer.layer.{layer}.{name}"
        for layer, of_teacher in enumerate(layers)
        for part, name in LAYER.items()
    }
    for of_teacher, name in renamed.items():
        weights[f"{name}.weight"] = source[f"{of_teacher}.weight"]
        weights[f"{name}.bias"] = source[f"{of_teacher}.bias"]
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


def respelled_weights(weights: dict[str, Tensor], averaging_VT: Tensor) -> dict[str, Tensor]:
    """The weights for the vocabulary of the rows of `averaging_VT`; an empty row becomes the mean of all."""
    # A teacher may have rows that no token of its tokenizer uses.
    used = averaging_VT.shape[1]
    is_empty_V = torch.sparse.sum(averaging_VT, dim=1).to_dense() == 0

    def averaged(weight_TD: Tensor) -> Tensor:
        made_VD: Tensor = torch.sparse.mm(averaging_VT, weight_TD)
        made_VD[is_empty_V] = weight_TD.mean(dim=0)
        return made_VD

    embeddings_VD = averaged(weights[WORD_EMBEDDINGS][:used])
    return weights | {
        WORD_EMBEDDINGS: embeddings_VD,
        "vocab_projector.weight": embeddings_VD,
        "vocab_projector.bias": averaged(weights["vocab_projector.bias"][:used, None])[:, 0],
    }


def sliced_weights(
    weights: dict[str, Tensor], teacher: BertForMaskedLM, shape: ResolvedArchitecture
) -> dict[str, Tensor]:
    """The weights of a student of the teacher's width, cut down to `shape`.

    Queries are scaled so that attention scores keep their size: the sum has fewer products, and it is divided by a
    smaller square root of the width of a head.
    """
    kept = _strongest(_scales(teacher), shape.dim)
    sliced = {
        name: weight[kept] if weight.dim() == 1 else weight[:, kept]
        for name, weight in weights.items()
        if "layer_norm" in name or ".embeddings." in name or name == "vocab_projector.weight"
    }
    sliced["vocab_projector.bias"] = weights["vocab_projector.bias"]
    sliced |= _linear(weights, "vocab_transform", kept, kept)
    heads, teacher_heads = shape.heads, teacher.config.num_attention_heads
    width, teacher_width = shape.dim // heads, teacher.config.hidden_size // teacher_heads
    for layer in range(shape.layers):
        prefix = f"distilbert.transformer.layer.{layer}."
        rows = {name: weights[f"{prefix}attention.{name}_lin.weight"].norm(dim=1) for name in ("q", "k", "v")}
        rows["out"] = weights[f"{prefix}attention.out_lin.weight"].norm(dim=0)
        chosen: dict[str, list[Tensor]] = {"qk": [], "vo": []}
        for head in spread_layers(heads, teacher_heads):
            within = slice(head * teacher_width, (head + 1) * teacher_width)
            for pair, (one, other) in {"qk": ("q", "k"), "vo": ("v", "out")}.items():
                strength = rows[one][within] * rows[other][within]
                chosen[pair].append(head * teacher_width + _strongest(strength, width))
        scores, values = torch.cat(chosen["qk"]), torch.cat(chosen["vo"])
        sliced |= _linear(weights, f"{prefix}attention.q_lin", scores, kept, scale=(teacher_width / width) ** 0.5)
        sliced |= _linear(weights, f"{prefix}attention.k_lin", scores, kept)
        sliced |= _linear(weights, f"{prefix}attention.v_lin", values, kept)
        sliced |= _linear(weights, f"{prefix}attention.out_lin", kept, values)
        strength = weights[f"{prefix}ffn.lin1.weight"].norm(dim=1) * weights[f"{prefix}ffn.lin2.weight"].norm(dim=0)
        inner = _strongest(strength, shape.hidden_dim)
        sliced |= _linear(weights, f"{prefix}ffn.lin1", inner, kept)
        sliced |= _linear(weights, f"{prefix}ffn.lin2", kept, inner)
    return sliced


def _scales(teacher: BertForMaskedLM) -> Tensor:
    """How much the LayerNorms scale each dimension of the hidden states: the sum of squares, (D,)."""
    norms = [module for module in teacher.modules() if isinstance(module, torch.nn.LayerNorm)]
    return torch.stack([norm.weight.detach() for norm in norms]).square().sum(dim=0)


def _strongest(strength: Tensor, number: int) -> Tensor:
    """The indices of the `number` largest values, in order."""
    return strength.argsort(descending=True, stable=True)[:number].sort().values


def _linear(
    weights: dict[str, Tensor], name: str, outputs: Tensor, inputs: Tensor, scale: float = 1.0
) -> dict[str, Tensor]:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return {f"{name}.weight": scale * weight[outputs][:, inputs], f"{name}.bias": scale * bias[outputs]}
