"""What `compile: true` compiles: modules in place, and functions of tensors; both for tensors of any shape."""

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Function = TypeVar("Function", bound=Callable[..., object])
# Of torch.compile.
BACKEND = "inductor"


def set_compiled(module: nn.Module, *, compiled: bool) -> None:
    """Compile a module in place, or undo it; weights and their names stay."""
    if compiled:
        module.compile(backend=BACKEND, dynamic=True)
    else:
        module._compiled_call_impl = None


def is_compiled(module: nn.Module) -> bool:
    """Whether :func:`set_compiled` has compiled it."""
    return module._compiled_call_impl is not None


def compiled(function: Function) -> Function:
    """The compiled form of a function, one for all its callers."""
    return _compiled(function, BACKEND)  # type: ignore[return-value]


@functools.cache
def _compiled(function: Callable[..., object], backend: str) -> Callable[..., object]:
    form = torch.compile(function, backend=backend, dynamic=True)

    @functools.wraps(function)
    def call(*arguments: object) -> object:
        # By itself torch 2.13 makes a variable of a float, and yet computes powers with the one that it saw first.
        with torch._dynamo.config.patch(specialize_float=True):
            return form(*arguments)

    return call
