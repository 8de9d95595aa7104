"""The two steps of a masked language model, for both architectures: the encoder, then the head on chosen tokens.

The product with the vocabulary is the largest of a step, and losses need it for some tokens only. So they run the
encoder, gather the rows of these tokens and call the parts of the head.

Axes: N chosen tokens, D width, V vocabulary.
"""

import dataclasses
from collections.abc import Callable

from torch import Tensor, nn
from transformers import BertForMaskedLM, DistilBertForMaskedLM, PreTrainedModel


@dataclasses.dataclass(frozen=True)
class MlmHead:
    """``logits_NV = transform(hidden_ND) @ weight_VD.T + bias_V``.

    Attributes:
        transform: linear map, activation and LayerNorm before the product with the vocabulary.
        weight_VD: output embeddings; the word embeddings are the same parameter if they are tied.
        bias_V: output bias, a parameter.
    """

    transform: Callable[[Tensor], Tensor]
    weight_VD: nn.Parameter
    bias_V: nn.Parameter


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The transformer layers of the encoder.

    Raises:
        TypeError: if `model` is another kind of model.
    """
    if not isinstance(model, BertForMaskedLM | DistilBertForMaskedLM):
        raise _unknown(model)
    is_bert = isinstance(model, BertForMaskedLM)
    layers: nn.ModuleList = model.bert.encoder.layer if is_bert else model.distilbert.transformer.layer
    return layers


def mlm_head_of(model: PreTrainedModel) -> MlmHead:
    """The head of a BERT or DistilBERT masked language model, with the parameters of the model, not copies.

    Raises:
        TypeError: if `model` is another kind of model.
    """
    if isinstance(model, BertForMaskedLM):
        predictions = model.cls.predictions
        return MlmHead(predictions.transform, predictions.decoder.weight, predictions.decoder.bias)
    if isinstance(model, DistilBertForMaskedLM):
        projector = model.vocab_projector
        return MlmHead(lambda hidden_ND: _distilbert_transform(model, hidden_ND), projector.weight, projector.bias)
    raise _unknown(model)


def _unknown(model: PreTrainedModel) -> TypeError:
    return TypeError(f"{type(model).__name__} is neither BertForMaskedLM nor DistilBertForMaskedLM")


def _distilbert_transform(model: DistilBertForMaskedLM, hidden_ND: Tensor) -> Tensor:
    transformed_ND: Tensor = model.vocab_layer_norm(model.activation(model.vocab_transform(hidden_ND)))
    return transformed_ND
