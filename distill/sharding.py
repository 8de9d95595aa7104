"""Dividing what is trained over the processes, with torch's ``fully_shard``: weights, gradients and moments.

The teacher stays whole on each: divided, it would have to be gathered for every batch, and it has weights alone, a
quarter of what a model in training has.

accelerate turns its own FSDP on for accelerators only (1.15), so that nothing of it could be tested without one.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Literal

from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from distilrubert.distill.paired_objective import AnyObjective
from distilrubert.modeling.heads import blocks_of

Sharding = Literal["none", "full"]

_WHOLE = StateDictOptions(full_state_dict=True)


def place(objective: AnyObjective, accelerator: Accelerator, sharding: Sharding) -> AnyObjective:
    """What is to be trained, on the accelerator's device: `objective` itself, or a copy in parts, one a process.

    A block's weights are gathered for its own passes. All others, among them the matrix that embeddings and output
    share, stay gathered from the forward pass to the end of the backward pass: the losses use them outside modules.
    """
    if sharding == "none" or accelerator.num_processes == 1:
        return objective.to(accelerator.device)
    trained = copy.deepcopy(objective).to(accelerator.device)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in blocks_of(trained.student):
        fully_shard(block, mesh=mesh)
    fully_shard(trained, mesh=mesh, reshard_after_forward=False)
    return trained


def collect_weights(trained: nn.Module, whole: nn.Module) -> None:
    """Bring `whole` up to what was trained, its sharded copy or itself; every process takes part."""
    if trained is not whole:
        whole.load_state_dict(get_model_state_dict(trained, options=_WHOLE))


def spread_weights(whole: nn.Module, trained: nn.Module) -> None:
    """The inverse of :func:`collect_weights`."""
    if trained is not whole:
        set_model_state_dict(trained, whole.state_dict(), options=_WHOLE)


def collect(tensor: Tensor) -> Tensor:
    """A tensor of the optimiser as a process alone would have it; every process takes part."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def spread(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The inverse of :func:`collect` for a tensor that belongs to `parameter`."""
    # AdamW's count of updates has no parts.
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


@contextlib.contextmanager
def gathered(trained: nn.Module) -> Iterator[None]:
    """Hold all weights on every process, which then may run more forward passes than another."""
    sharded = [module for module in trained.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
            module.set_reshard_after_forward(module is not trained, recurse=False)
