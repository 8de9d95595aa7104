"""Weights by the roles of :mod:`~distilrubert.modeling.families.family`, out of a model and into one."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distilrubert.modeling.families import family_of
from distilrubert.modeling.families.family import Weights
from distilrubert.modeling.heads import has_head, layers_of


def modules_by_role(model: PreTrainedModel) -> Iterator[tuple[str, list[str], nn.Module]]:
    """Each module with its place (``layers.3.``) and its roles: more than one where it fuses maps, in their order."""
    family = family_of(model.config)
    places = [("", model.base_model, family.encoder)]
    places += [(f"layers.{number}.", layer, family.layer) for number, layer in enumerate(layers_of(model))]
    if has_head(model):
        places.append(("head.", model, family.head))
    for prefix, parent, modules in places:
        for name, roles in modules.items():
            yield prefix, roles.split(), parent.get_submodule(name)


def parameters_by_role(model: PreTrainedModel) -> Iterator[tuple[list[str], nn.Parameter]]:
    """Each parameter with the names of what its rows are, in their order: more than one where a module fuses maps."""
    for prefix, roles, module in modules_by_role(model):
        for kind, parameter in module.named_parameters(recurse=False):
            yield [f"{prefix}{role}.{kind}" for role in roles], parameter


def weights_of(model: PreTrainedModel) -> Weights:
    """The weights of a model by place and role: views, not copies."""
    weights: Weights = {}
    for names, parameter in parameters_by_role(model):
        weights |= dict(zip(names, parameter.detach().chunk(len(names)), strict=True))
    return weights


@torch.no_grad()
def set_weights(model: PreTrainedModel, weights: Weights) -> None:
    """Copy weights into a model, all that it has; further ones, of places that it does not have, are left out."""
    untouched = {id(parameter) for parameter in model.parameters()}
    for names, parameter in parameters_by_role(model):
        parts: list[Tensor] = [weights[name] for name in names]
        parameter.copy_(torch.cat(parts) if len(parts) > 1 else parts[0])
        untouched.discard(id(parameter))
    assert not untouched, f"{len(untouched)} parameters of {type(model).__name__} have no role"
