"""The two steps of a masked language model, for every architecture: the encoder, then the head on chosen tokens.

The product with the vocabulary is the largest of a step, and losses need it for some tokens only. So they run the
encoder, gather the rows of these tokens and call the parts of the head. An encoder may have no head.

Axes: N chosen tokens, D width, V vocabulary.
"""

import dataclasses
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput

from distilrubert.modeling.families import family_of


@dataclasses.dataclass(frozen=True)
class MlmHead:
    """``logits_NV = transform(hidden_ND) @ weight_VD.T + bias_V``.

    Attributes:
        transform: linear map, activation and LayerNorm before the product with the vocabulary.
        weight_VD: output embeddings; the word embeddings are the same parameter if they are tied.
        bias_V: output bias, a parameter; None where there is none.
    """

    transform: Callable[[Tensor], Tensor]
    weight_VD: nn.Parameter
    bias_V: nn.Parameter | None

    def rows(self, tokens: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the first `tokens`: a model may have further rows, which no token uses."""
        return self.weight_VD[:tokens], None if self.bias_V is None else self.bias_V[:tokens]

    def logits(self, hidden_ND: Tensor, tokens: int | None = None) -> Tensor:
        """The logits of the first `tokens`, (N, V)."""
        return F.linear(self.transform(hidden_ND), *self.rows(tokens))


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The transformer layers of the encoder."""
    layers = model.base_model.get_submodule(family_of(model.config).layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def states_of(output: BaseModelOutput) -> tuple[Tensor, ...]:
    """The outputs of the embeddings and of each layer, the last of them as the encoder puts it out.

    transformers 4.57 has a ModernBERT's last state before its final norm, transformers 5 after it.
    """
    return (*output.hidden_states[:-1], output.last_hidden_state)


def has_head(model: PreTrainedModel) -> bool:
    """Whether a model has a masked-language head; else it is an encoder."""
    return model.get_output_embeddings() is not None


def mlm_head_of(model: PreTrainedModel) -> MlmHead:
    """The head of a masked language model, with the parameters of the model, not copies."""
    family = family_of(model.config)
    modules = {role: model.get_submodule(name) for name, role in family.head.items()}
    dense, norm, decoder = modules["transform"], modules["transform_norm"], modules["decoder"]
    activate = ACT2FN[family.head_activation(model.config)]
    return MlmHead(lambda hidden_ND: norm(activate(dense(hidden_ND))), decoder.weight, decoder.bias)
