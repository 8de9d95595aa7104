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

Another width or vocabulary would leave weights random, so it is refused until there is a function for it.
"""

from collections.abc import Sequence

from torch import Tensor
from transformers import BertForMaskedLM

from distilrubert.modeling.errors import UserError
from distilrubert.modeling.presets import ResolvedArchitecture

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


def initial_weights(teacher: BertForMaskedLM, shape: ResolvedArchitecture) -> dict[str, Tensor]:
    """Every weight of a student of that shape, by its name in ``DistilBertForMaskedLM``.

    Raises:
        UserError: if the shape differs from the teacher's in more than the number of layers.
    """
    config = teacher.config
    asked = {
        "width (dim)": (shape.dim, config.hidden_size),
        "heads": (shape.heads, config.num_attention_heads),
        "hidden_dim": (shape.hidden_dim, config.intermediate_size),
        "vocabulary": (shape.vocabulary_size, config.vocab_size),
    }
    if differing := [f"{what} {own} (teacher: {its})" for what, (own, its) in asked.items() if own != its]:
        raise UserError(
            f"student: {', '.join(differing)}: a student starts as a copy of its teacher's layers, so for now it "
            "needs the teacher's width, heads, hidden_dim and vocabulary; only layers may differ"
        )
    return copied_weights(teacher, shape.initialise_from)


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
