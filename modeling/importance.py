"""How much each part of a model matters that a smaller student can do without.

The parts are dimensions of the hidden states, attention heads, dimensions inside a head, and units of the feed-forward
networks. :func:`measure_importance` ranks them by what they change on text, :func:`importance_of_weights` by the sizes
of their weights.

On text, each part is multiplied by a gate, which is 1 in the whole model and 0 where the part is removed. The
importance is the second derivative by the gate of KL(whole‖gated), the divergence of the predictions. KL is at its
minimum where all gates are 1, so half of this is what removing the part costs, to second order. It is the diagonal of
the Fisher information: the mean over texts of the squared derivative of −log p(token), with tokens drawn from the
model's own predictions (Martens, "New Insights and Perspectives on the Natural Gradient Method", 2020). One backward
pass gives the derivatives by all gates, for each text of a batch. An encoder without a head has half the squared
distance of the last hidden states instead of KL, and their product with standard normal numbers instead of −log p.

Gates of heads are those of Michel et al., "Are Sixteen Heads Really Better than One?" (2019). The squared derivative is
the criterion of Theis et al., "Faster gaze prediction with dense networks and Fisher pruning" (2018), and of Molchanov
et al., "Importance Estimation for Neural Network Pruning" (2019). Kwon et al., "A Fast Post-Training Pruning Framework
for Transformers" (2022), have it for heads and feed-forward units. Muralidharan et al., "Compact Language Models via
Pruning and Knowledge Distillation" (Minitron, 2024), prune the width too, at once before distillation, as is done here.

Axes: B texts, L positions, N predicted positions, D width, H heads, E width of a head, F width of a feed-forward
network, V vocabulary.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from distilrubert.modeling.heads import has_head, mlm_head_of
from distilrubert.modeling.roles import modules_by_role, weights_of

HIDDEN = "hidden"
TEXTS = "texts"


@dataclasses.dataclass(frozen=True)
class Importance:
    """The importance of a teacher's parts; larger is more important.

    Attributes:
        values: by place. ``hidden``, (D,), holds for all layers; a layer has ``layers.3.heads``, (H,), dimensions of
            queries and keys, ``layers.3.scores``, and of values, ``layers.3.values``, both (D,), and units,
            ``layers.3.inner``, (F,). Heads that are not ranked are missing.
        norms: for each LayerNorm, by its role (``layers.3.attention_norm``), the mean square of its normalised input in
            each dimension, (D,): 1 on average. Empty where no text was read.
        texts: the number of texts.
    """

    values: Mapping[str, Tensor]
    norms: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    texts: int = 0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file for :meth:`load`."""
        norms = {f"norms.{place}": value for place, value in self.norms.items()}
        save_file({**self.values, **norms, TEXTS: torch.tensor(self.texts)}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote."""
        tensors = load_file(path)
        texts = int(tensors.pop(TEXTS))
        norms = {name.removeprefix("norms."): tensors.pop(name) for name in list(tensors) if name.startswith("norms.")}
        return cls(tensors, norms, texts)


def importance_of_weights(model: PreTrainedModel) -> Importance:
    """Importance by the sizes of weights, without any text.

    A dimension of the hidden states has the sum of squares of the LayerNorms' weights. A dimension of a head and a unit
    have the norm of their weights, multiplied over the maps on both of their sides. Heads are not ranked.
    """
    weights = weights_of(model)
    norms = [module.weight.detach() for module in model.modules() if isinstance(module, nn.LayerNorm)]
    values = {HIDDEN: torch.stack(norms).square().sum(dim=0)}
    # The maps on both sides of each axis, with the axis of the weight that is summed over.
    sides = {
        "scores": {"query": 1, "key": 1},
        "values": {"value": 1, "attention_output": 0},
        "inner": {"inner": 1, "gate": 1, "outer": 0},
    }
    for layer in range(model.config.num_hidden_layers):
        place = f"layers.{layer}."
        for axis, roles in sides.items():
            found = {role: weights.get(f"{place}{role}.weight") for role in roles}
            sizes = [weight.norm(dim=roles[role]) for role, weight in found.items() if weight is not None]
            values[place + axis] = torch.stack(sizes).prod(dim=0)
    return Importance(values)


def measure_importance(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], seed: int) -> Importance:
    """Importance by what the parts change on text: the docstring of the module says how.

    Args:
        model: in fp32 and evaluation mode; it is not changed.
        batches: on the model's device: ``input_ids`` and ``attention_mask``, and for a model with a head ``labels``,
            which are negative where nothing is predicted; each (B, L). Which tokens they name does not matter.
        seed: of the tokens, or the normal numbers, that are drawn; the global generator is not used.
    """
    generator = torch.Generator(model.device).manual_seed(seed)
    gates = _Gates(model)
    # The fused attention of a GPU adds up its gradients in any order.
    plain = sdpa_kernel(SDPBackend.MATH) if model.device.type == "cuda" else contextlib.nullcontext()
    with gates.applied(), plain:
        for batch in batches:
            gates.begin(batch["attention_mask"].bool())
            gates.add(_sampled_loss(model, batch, generator))
    return gates.importance()


def _sampled_loss(model: PreTrainedModel, batch: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
    """What is differentiated, summed over the positions and texts: the mean square of a text's derivative is sought."""
    encoded = model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    last_BLD: Tensor = encoded.last_hidden_state
    if not has_head(model):
        normal_BLD = torch.randn(last_BLD.shape, generator=generator, device=last_BLD.device)
        return (last_BLD * normal_BLD)[batch["attention_mask"].bool()].sum()
    head = mlm_head_of(model)
    # All positions go through the transform, whose gates are those of their texts.
    logits_NV = F.linear(head.transform(last_BLD)[batch["labels"] >= 0], *head.rows())
    if not len(logits_NV):
        return 0.0 * last_BLD.sum()
    drawn_N1 = torch.multinomial(logits_NV.detach().softmax(dim=-1), 1, generator=generator)
    return F.cross_entropy(logits_NV, drawn_N1[:, 0], reduction="sum")


class _Gates:
    """Multiplies the parts of a model by gates, one for each text of a batch, and adds up the squared derivatives."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._sums: dict[str, Tensor] = {}
        self._norm_sums: dict[str, Tensor] = {}
        self._texts = self._tokens = 0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model with its gates; afterwards it is as before."""
        handles: list[RemovableHandle] = []
        try:
            for prefix, roles, module in modules_by_role(self._model):
                if roles[0].endswith("norm"):
                    handles.append(module.register_forward_hook(partial(self._after_norm, prefix + roles[0])))
                elif roles[0] == "query":
                    handles.append(module.register_forward_hook(partial(self._after_query, prefix, len(roles))))
                elif roles[0] in ("attention_output", "outer"):
                    axis = "values" if roles[0] == "attention_output" else "inner"
                    handles.append(module.register_forward_pre_hook(partial(self._before, prefix + axis)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, is_token_BL: Tensor) -> None:
        """Make the gates of a batch."""
        self._is_token_BL = is_token_BL
        self._gates: dict[str, Tensor] = {}

    def add(self, loss: Tensor) -> None:
        """Add the squared derivatives of a batch's loss by its gates."""
        derivatives = torch.autograd.grad(loss, list(self._gates.values()))
        for place, derivative_B1X in zip(self._gates, derivatives, strict=True):
            by_text_BX = derivative_B1X[:, 0].double()
            self._add(place, by_text_BX)
            if place.endswith("values"):
                # The gate of a head is that of all of its dimensions together.
                heads = self._model.config.num_attention_heads
                self._add(
                    f"{place.removesuffix('values')}heads", by_text_BX.view(len(by_text_BX), heads, -1).sum(dim=-1)
                )
        self._texts += len(self._is_token_BL)
        self._tokens += int(self._is_token_BL.sum())

    def importance(self) -> Importance:
        """The means over all batches."""

        def means(sums: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
            return {place: (found / number).float().cpu() for place, found in sums.items()}

        return Importance(means(self._sums, self._texts), means(self._norm_sums, self._tokens), self._texts)

    def _add(self, place: str, by_text_BX: Tensor) -> None:
        self._sums[place] = self._sums.get(place, 0.0) + by_text_BX.square().sum(dim=0)

    def _gate(self, place: str, like_BLX: Tensor) -> Tensor:
        if place not in self._gates:
            shape = len(like_BLX), 1, like_BLX.shape[-1]
            self._gates[place] = torch.ones(shape, device=like_BLX.device, requires_grad=True)
        return self._gates[place]

    def _before(self, place: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return args[0] * self._gate(place, args[0]), *args[1:]

    def _after_query(self, prefix: str, maps: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Without a dimension of the queries that of the keys adds nothing; the maps may be fused, queries first."""
        query_BLD, *others = output.chunk(maps, dim=-1)
        return torch.cat([query_BLD * self._gate(f"{prefix}scores", query_BLD), *others], dim=-1)

    def _after_norm(self, place: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Hidden states are read behind the norms, so that one gate behind all of them removes a dimension."""
        if isinstance(module, nn.LayerNorm):
            with torch.no_grad():
                normalised_ND = F.layer_norm(args[0], module.normalized_shape, eps=module.eps)[self._is_token_BL]
                sums_D = normalised_ND.double().square().sum(dim=0)
            self._norm_sums[place] = self._norm_sums.get(place, 0.0) + sums_D
        return output * self._gate(HIDDEN, output)
