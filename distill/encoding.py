"""Running student and teacher: encoders with what the losses need of them, and the teacher's lean form."""

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilrubert.distill.losses.attention import record_queries_keys
from distilrubert.distill.losses.layer import Activations, QueryKey
from distilrubert.modeling.heads import MlmHead, encoder_of, mlm_head_of


def encode(model: PreTrainedModel, batch: Mapping[str, Tensor], needs: Collection[str]) -> Activations:
    """Run the encoder of `model` on a batch and keep what is needed, and nothing else.

    Args:
        model: a masked language model; its head is not run.
        batch: ``input_ids`` and ``attention_mask``.
        needs: which of the optional fields of :class:`Activations` are wanted.
    """
    encoder = encoder_of(model)
    queries_keys: list[QueryKey] = []
    with contextlib.ExitStack() as stack:
        if "queries_keys" in needs:
            queries_keys = stack.enter_context(record_queries_keys(encoder))
        output = encoder(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            output_hidden_states="hidden_states" in needs,
        )
    return Activations(output.last_hidden_state, output.hidden_states or (), tuple(queries_keys))


class FrozenModel:
    """A model that is only read, kept out of what holds it if that is a module.

    Under autocast its matrices are converted once and not in every call; the numbers are the same.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model.eval()
        self._converted: dict[torch.dtype, tuple[PreTrainedModel, MlmHead]] = {}

    def get(self) -> tuple[PreTrainedModel, MlmHead]:
        """The model and its head, for the autocast that is in force."""
        kind = self._model.device.type
        if not torch.is_autocast_enabled(kind):
            return self._model, mlm_head_of(self._model)
        dtype = torch.get_autocast_dtype(kind)
        if dtype not in self._converted:
            self._converted[dtype] = _convert(self._model, dtype)
        return self._converted[dtype]

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Change every tensor in place, as :meth:`torch.nn.Module._apply` does."""
        self._model._apply(function)
        self._converted.clear()


def _convert(model: PreTrainedModel, dtype: torch.dtype) -> tuple[PreTrainedModel, MlmHead]:
    """A copy whose linear maps are of `dtype` and that shares all else, embeddings and LayerNorms, with `model`."""
    head = mlm_head_of(model)
    copies = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    for module in model.modules():
        # The embeddings may be tied to the last linear map; they are looked up in full precision.
        if isinstance(module, nn.Linear) and module.weight is not head.weight_VD:
            for parameter in module.parameters():
                copies[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
    converted = copy.deepcopy(model, copies)
    weight_VD = nn.Parameter(head.weight_VD.detach().to(dtype), requires_grad=False)
    return converted, dataclasses.replace(mlm_head_of(converted), weight_VD=weight_VD)
