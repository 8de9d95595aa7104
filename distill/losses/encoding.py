"""Running student and teacher: encoders with what the losses need of them, and the teacher's lean form."""

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from distilrubert.common.training.compiling import is_compiled, set_compiled
from distilrubert.distill.losses.attention import RecordedAttention
from distilrubert.distill.losses.term import Need, Outputs
from distilrubert.distill.losses.tied import TiedWeight
from distilrubert.modeling.heads import MlmHead, has_head, layers_of, mlm_head_of, states_of

# Longest sequences for which the plain form of attention is faster than the fused one, see :class:`_PlainAttention`.
_PLAIN_ATTENTION_TOKENS = 256


def encode(
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    needs: Collection[Need] = (),
    *,
    head: MlmHead | None = None,
    tied: TiedWeight | None = None,
) -> Outputs:
    """Run the encoder of `model` on a batch and keep what is needed, and nothing else.

    Args:
        model: an encoder, or a model with a head, which is run where logits are needed. That of a masked language model
            is not.
        batch: ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the model takes them; with ``padded``,
            whose length says whether there is padding, no device is waited for to find that out.
        needs: which of the optional fields of :class:`Outputs` are wanted.
        head: of the model, where it is not the model's own.
        tied: holder of the word embeddings, where the output layer shares them and both get gradients.
    """
    encoder = model.base_model
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"]}
    if tied is not None:
        inputs = {"inputs_embeds": tied.look_up(batch["input_ids"], model.get_input_embeddings().padding_idx)}
    if "token_type_ids" in batch:
        inputs["token_type_ids"] = batch["token_type_ids"]
    logits = None
    recorded = RecordedAttention()
    with contextlib.ExitStack() as stack:
        # A compiled encoder does not ask for it.
        if "padded" in batch and not is_compiled(encoder):
            stack.enter_context(_KnownPadding(is_padded=len(batch["padded"]) > 0))
        if _is_plain_attention_faster(batch["input_ids"]):
            stack.enter_context(_PlainAttention())
        if "attention" in needs:
            stack.enter_context(recorded)
        inputs |= {"attention_mask": batch["attention_mask"], "output_hidden_states": "hidden_states" in needs}
        if "logits" in needs:
            output, logits = _run_with_head(model, inputs)
        else:
            output = encoder(**inputs)
    if "head" in needs and head is None:
        head = mlm_head_of(model)
    states = states_of(output) if "hidden_states" in needs else ()
    return Outputs(output.last_hidden_state, states, tuple(recorded.layers), head, tied, logits)


def _run_with_head(model: PreTrainedModel, inputs: Mapping[str, Any]) -> tuple[BaseModelOutput, Tensor]:
    """The output of the encoder, and the logits of the head that follows it."""
    outputs: list[BaseModelOutput] = []
    hook = model.base_model.register_forward_hook(lambda module, given, output: outputs.append(output))
    try:
        result = model(**inputs)
    finally:
        hook.remove()
    if "logits" in result:
        return outputs[0], result.logits
    return outputs[0], torch.stack([result.start_logits, result.end_logits], dim=1)


def _is_plain_attention_faster(ids_BL: Tensor) -> bool:
    kind = ids_BL.device.type
    in_bf16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    return kind == "cpu" and in_bf16 and torch.is_grad_enabled() and ids_BL.shape[1] <= _PLAIN_ATTENTION_TOKENS


def recompute_layers(model: PreTrainedModel, *, training: bool) -> None:
    """Let `model` keep the input of each layer alone for the backward pass, and compute the rest there once more.

    What transformers calls gradient checkpointing, which it leaves out in evaluation mode; here dropout and this have
    nothing to do with each other. The numbers are the same, bit for bit, also with dropout.

    Args:
        model: what is trained. Its layers alone are put into training mode, not what they consist of.
        training: the mode that their parts are in.
    """
    if not model.is_gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": _same_attention})
    model.train(training)
    for layer in layers_of(model):
        layer.training = True


def _same_attention() -> tuple[contextlib.AbstractContextManager[Any], contextlib.AbstractContextManager[Any]]:
    """The contexts of a layer's two forward passes: the second is made by the backward pass, outside :func:`encode`."""
    return contextlib.nullcontext(), _PlainAttention() if _PlainAttention.is_active else contextlib.nullcontext()


class _KnownPadding(TorchFunctionMode):
    """Answers whether all positions are tokens, for which transformers asks the mask on the device.

    Without padding it leaves the mask out.
    """

    def __init__(self, *, is_padded: bool) -> None:
        super().__init__()
        self._answer = not is_padded

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.all, Tensor.all) and len(args) == 1 and not kwargs:
            return self._answer
        return func(*args, **(kwargs or {}))


class _PlainAttention(TorchFunctionMode):
    """Computes ``scaled_dot_product_attention`` step by step.

    On a CPU the backward pass of the fused kernel (torch 2.13) does not use the processor's bf16 products. Forward
    and backward of 16 x 64 tokens take 33 ms fused and 8 ms plain, of 16 x 256 tokens 115 and 85 ms, of 8 x 512 tokens
    155 and 250 ms (one core of a Xeon with AMX).
    """

    is_active: ClassVar[bool] = False

    def __enter__(self) -> Self:
        _PlainAttention.is_active = True
        return super().__enter__()  # type: ignore[no-any-return,no-untyped-call]

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        _PlainAttention.is_active = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    assert not is_causal
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is not None:
        lowest = torch.finfo(scores.dtype).min
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, lowest)
        else:
            scores = scores + attn_mask.clamp(min=lowest).to(scores.dtype)
    return F.dropout(scores.softmax(dim=-1), dropout_p) @ value


class FrozenModel:
    """A model that is only read, kept out of what holds it if that is a module.

    Under autocast its matrices are converted once and not in every call; the numbers are the same.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model.eval()
        self._is_compiled = False
        self._converted: dict[torch.dtype, tuple[PreTrainedModel, MlmHead | None]] = {}

    def get(self) -> tuple[PreTrainedModel, MlmHead | None]:
        """The model and its head, if it has one, for the autocast that is in force."""
        kind = self._model.device.type
        if not torch.is_autocast_enabled(kind):
            return self._model, mlm_head_of(self._model) if has_head(self._model) else None
        dtype = torch.get_autocast_dtype(kind)
        if dtype not in self._converted:
            self._converted[dtype] = _convert(self._model, dtype)
            if self._is_compiled:
                set_compiled(self._converted[dtype][0].base_model, compiled=True)
        return self._converted[dtype]

    def set_compiled(self, *, compiled: bool) -> None:
        """Compile its encoder in every form, or undo it."""
        self._is_compiled = compiled
        for model in (self._model, *(model for model, _ in self._converted.values())):
            set_compiled(model.base_model, compiled=compiled)

    def apply(self, function: Callable[[Tensor], Tensor]) -> None:
        """Change every tensor in place, as :meth:`torch.nn.Module._apply` does."""
        self._model._apply(function)
        self._converted.clear()


def _convert(model: PreTrainedModel, dtype: torch.dtype) -> tuple[PreTrainedModel, MlmHead | None]:
    """A copy whose linear maps are of `dtype` and that shares all else, embeddings and LayerNorms, with `model`."""
    head = mlm_head_of(model) if has_head(model) else None
    copies = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    for module in model.modules():
        # The embeddings may be tied to the last linear map; they are looked up in full precision.
        if isinstance(module, nn.Linear) and not (head and module.weight is head.weight_VD):
            for parameter in module.parameters():
                copies[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
    converted = copy.deepcopy(model, copies)
    if head is None:
        return converted, None
    weight_VD = nn.Parameter(head.weight_VD.detach().to(dtype), requires_grad=False)
    return converted, dataclasses.replace(mlm_head_of(converted), weight_VD=weight_VD)
