"""The weights a student starts from: one function for each relation between its shape and the teacher's.

**Same width, heads and vocabulary**: :func:`copied_weights`. Embeddings, their LayerNorm, the head and the listed
blocks are copied. A DistilBERT has no segment embeddings, so the vector of segment 0 is added to every position:
a student with all blocks computes what the teacher computes for a single text, to rounding. What cannot be
carried:

- the vector of segment 1: a pair of texts is read as one segment;
- the pooler and the next-sentence head, which masked language modelling does not use;
- with fewer blocks, whatever the blocks left out computed. Each copied block then reads states that it was not
  trained on; distillation has to mend that. The embeddings output (hidden state 0) is still the teacher's, and
  so is the state after student block k as long as the list begins 0, 1, ..., k.

**Another vocabulary**: :func:`respelt_weights`. A piece that the teacher has too keeps its embedding and bias; another
one gets the mean over the teacher's pieces that it helps to spell, each as often as the corpus has it. Where nothing
counted needs it, it is the mean of the pieces that spell it; where nothing does, of all pieces.

**A smaller width**: :func:`sliced_weights`. The student keeps whole dimensions: of the hidden states those that the
LayerNorms of the teacher scale most, of each head and feed-forward network those with the largest weights. A basis of
principal components keeps more variance and was tried: LayerNorm works on each dimension, so turning the basis costs
more than it keeps (docs/vocabulary.md has the figures).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BertForMaskedLM, PreTrainedTokenizerFast

from distilrubert.modeling.architecture import ResolvedArchitecture, spread_layers
from distilrubert.modeling.splitting import shared_pieces, split_vocabulary

EMBEDDINGS = {
    "bert.embeddings.word_embeddings.weight": "distilbert.embeddings.word_embeddings.weight",
    "bert.embeddings.LayerNorm.weight": "distilbert.embeddings.LayerNorm.weight",
    "bert.embeddings.LayerNorm.bias": "distilbert.embeddings.LayerNorm.bias",
}
BLOCK = {
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
    """Every weight of a student of that shape, by its name in ``DistilBertForMaskedLM``.

    Args:
        teacher: it is left as it is.
        shape: what the student is to look like, with blocks to start from.
        averaging_VT: for a vocabulary of the student's own, :func:`averaging_matrix`.
    """
    assert shape.initialise_from is not None
    sizes = shape.sizes_beside(teacher.config).values()
    weights = copied_weights(teacher, shape.initialise_from)
    if averaging_VT is not None:
        weights = respelt_weights(weights, averaging_VT)
    is_narrower = any(own < its for own, its in sizes)
    return sliced_weights(weights, teacher, shape) if is_narrower else weights


def copied_weights(teacher: BertForMaskedLM, layers: Sequence[int]) -> dict[str, Tensor]:
    """The weights of a student of the teacher's width and vocabulary whose blocks are copies of `layers`."""
    source = teacher.state_dict()
    weights = {own: source[its] for its, own in EMBEDDINGS.items()}
    # Single texts are segment 0 throughout: its vector is a constant of every position.
    weights["distilbert.embeddings.position_embeddings.weight"] = (
        source["bert.embeddings.position_embeddings.weight"] + source["bert.embeddings.token_type_embeddings.weight"][0]
    )
    renamed = HEAD | {
        f"bert.encoder.layer.{its}.{part}": f"distilbert.transformer.layer.{own}.{name}"
        for own, its in enumerate(layers)
        for part, name in BLOCK.items()
    }
    for its, own in renamed.items():
        weights[f"{own}.weight"] = source[f"{its}.weight"]
        weights[f"{own}.bias"] = source[f"{its}.bias"]
    return weights


def averaging_matrix(
    teacher: PreTrainedTokenizerFast, student: PreTrainedTokenizerFast, counts_T: NDArray[np.int64] | None = None
) -> Tensor:
    """For each piece of the student the share of each of the teacher's in its embedding, sparse (V, T).

    Rows sum to 1; one of a piece that has nothing to do with any of the teacher's (a character that it lacks) is empty.

    Args:
        teacher: its tokenizer.
        student: its tokenizer.
        counts_T: how often the corpus has each piece of the teacher; None counts each once.
    """
    spelt, spelling = split_vocabulary(teacher, student), split_vocabulary(student, teacher)
    weight_T = np.ones(len(teacher)) if counts_T is None else counts_T.astype(np.float64)
    its, own = shared_pieces(teacher, student)
    # Ways to make a row, the best first: rows, columns and weights.
    ways = [
        (own, its, np.ones(len(own))),
        (spelt.piece_K, spelt.row_K, weight_T[spelt.row_K]),
        (spelling.row_K, spelling.piece_K, np.ones(len(spelling.piece_K))),
    ]
    is_made_V = np.zeros(len(student), dtype=bool)
    entries = []
    for rows, columns, weights in ways:
        sums_V = np.bincount(rows, weights, len(student))
        is_new = ~is_made_V[rows] & (sums_V[rows] > 0)
        entries.append((rows[is_new], columns[is_new], weights[is_new] / sums_V[rows[is_new]]))
        is_made_V[rows[is_new]] = True
    rows, columns, weights = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    places = torch.from_numpy(np.stack((rows, columns)))
    shares = torch.from_numpy(weights.astype(np.float32))
    return torch.sparse_coo_tensor(places, shares, (len(student), len(teacher)), check_invariants=True).coalesce()


def respelt_weights(weights: dict[str, Tensor], averaging_VT: Tensor) -> dict[str, Tensor]:
    """The weights over the vocabulary that the rows of `averaging_VT` make up; an empty row is the mean of all."""
    # A teacher may have rows that no piece of its tokenizer uses.
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

    Queries are scaled such that attention scores stay as large as they were: with fewer products in the sum, and a
    smaller root of the width of a head to divide it by.
    """
    kept = _strongest(_scales(teacher), shape.dim)
    sliced = {
        name: weight[kept] if weight.dim() == 1 else weight[:, kept]
        for name, weight in weights.items()
        if "layer_norm" in name or ".embeddings." in name or name == "vocab_projector.weight"
    }
    sliced["vocab_projector.bias"] = weights["vocab_projector.bias"]
    sliced |= _linear(weights, "vocab_transform", kept, kept)
    heads, its_heads = shape.heads, teacher.config.num_attention_heads
    width, its_width = shape.dim // heads, teacher.config.hidden_size // its_heads
    for layer in range(shape.layers):
        block = f"distilbert.transformer.layer.{layer}."
        rows = {name: weights[f"{block}attention.{name}_lin.weight"].norm(dim=1) for name in ("q", "k", "v")}
        rows["out"] = weights[f"{block}attention.out_lin.weight"].norm(dim=0)
        chosen: dict[str, list[Tensor]] = {"qk": [], "vo": []}
        for head in spread_layers(heads, its_heads):
            within = slice(head * its_width, (head + 1) * its_width)
            for pair, (one, other) in {"qk": ("q", "k"), "vo": ("v", "out")}.items():
                strength = rows[one][within] * rows[other][within]
                chosen[pair].append(head * its_width + _strongest(strength, width))
        scores, values = torch.cat(chosen["qk"]), torch.cat(chosen["vo"])
        sliced |= _linear(weights, f"{block}attention.q_lin", scores, kept, scale=(its_width / width) ** 0.5)
        sliced |= _linear(weights, f"{block}attention.k_lin", scores, kept)
        sliced |= _linear(weights, f"{block}attention.v_lin", values, kept)
        sliced |= _linear(weights, f"{block}attention.out_lin", kept, values)
        strength = weights[f"{block}ffn.lin1.weight"].norm(dim=1) * weights[f"{block}ffn.lin2.weight"].norm(dim=0)
        inner = _strongest(strength, shape.hidden_dim)
        sliced |= _linear(weights, f"{block}ffn.lin1", inner, kept)
        sliced |= _linear(weights, f"{block}ffn.lin2", kept, inner)
    return sliced


def _scales(teacher: BertForMaskedLM) -> Tensor:
    """How much the LayerNorms scale each dimension of the hidden states: squares, added up."""
    norms = [module for module in teacher.modules() if isinstance(module, torch.nn.LayerNorm)]
    return torch.stack([norm.weight.detach() for norm in norms]).square().sum(dim=0)


def _strongest(strength: Tensor, number: int) -> Tensor:
    """The places of the largest values, in order."""
    return strength.argsort(descending=True, stable=True)[:number].sort().values


def _linear(
    weights: dict[str, Tensor], name: str, outputs: Tensor, inputs: Tensor, scale: float = 1.0
) -> dict[str, Tensor]:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return {f"{name}.weight": scale * weight[outputs][:, inputs], f"{name}.bias": scale * bias[outputs]}
