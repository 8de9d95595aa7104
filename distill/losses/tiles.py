"""Logits of a chunk of rows, made tile by tile: the ground that :mod:`.vocabulary` works on.

What is made of a tile between two products is a function of its own, which can be compiled: a GPU then reads and writes
the tile once for all of it. Products are left to the libraries, and sums over chunks are made in place.

Axes: C rows of a chunk, M labelled rows (the first of them), V vocabulary, D width, K tiles.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from distilrubert.common.training.compiling import compiled

Pass = TypeVar("Pass", bound=Callable[..., Any])

# Tokens of the vocabulary in a tile on a CPU: some megabytes, so that what is made from a tile is found in the cache,
# and products large enough to run at full speed. A GPU takes the vocabulary whole.
CPU_TILE = 4096

# On a GPU torch.dot counts in 32 bits, and a chunk of 17,964 rows of 119,547 tokens has more elements.
DOT_LIMIT = 2**31 - 1


class Buffers:
    """Memory by name, reused from call to call: fresh pages cost as much as a pass over them."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def __reduce__(self) -> Any:
        # A copy in another process has memory of its own.
        return Buffers, ()

    def get(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Uninitialised memory; what the name was given for before is overwritten."""
        if torch.compiler.is_compiling():
            # A compiler plans the memory of a function itself, and most of it away.
            return torch.empty(*shape, dtype=dtype, device=device)
        size = torch.Size(shape).numel()
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size or flat.dtype != dtype or flat.device != device:
            self._flat.pop(name, None)
            flat = self._flat[name] = torch.empty(size, dtype=dtype, device=device)
        return flat[:size].view(*shape)


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """How numbers are held and the vocabulary is cut.

    Attributes:
        narrow: type of the operands of products and of stored logits.
        wide: type of everything else: softmax, sums, gradients.
        device: where.
        tiles: consecutive parts of the vocabulary.
        buffers: work space.
        is_compiled: whether what is made of a tile is compiled.
    """

    narrow: torch.dtype
    wide: torch.dtype
    device: torch.device
    tiles: list[slice]
    buffers: Buffers
    is_compiled: bool

    @classmethod
    def choose(cls, hidden: Tensor, vocabulary: int, buffers: Buffers, *, is_compiled: bool) -> Self:
        """bf16 products under bf16 autocast, else those of the type of `hidden`; float32 or more for the rest."""
        kind = hidden.device.type
        in_bf16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
        narrow = torch.bfloat16 if in_bf16 else hidden.dtype
        edges = [*range(0, vocabulary, CPU_TILE if kind == "cpu" else vocabulary), vocabulary]
        tiles = [slice(*edge) for edge in itertools.pairwise(edges)]
        return cls(narrow, torch.promote_types(narrow, torch.float32), hidden.device, tiles, buffers, is_compiled)

    def form_of(self, function: Pass) -> Pass:
        """A function of tiles, compiled or as it is."""
        return compiled(function) if self.is_compiled else function

    def cast(self, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """`tensor` in a type; a copy, in work space, only where its own differs."""
        # What a compiled function changes in place, it would have to write.
        if tensor.dtype == dtype and not torch.compiler.is_compiling():
            return tensor
        return self.buffers.get(name, tensor.shape, dtype, self.device).copy_(tensor)

    def scratch(self, name: str, shape: Sequence[int]) -> Tensor:
        """Uninitialised wide work space."""
        return self.buffers.get(name, shape, self.wide, self.device)

    def add_product(self, total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
        """Add a product of narrow operands to a wide `total`, or set it where this is the `first`."""
        if self.narrow == self.wide:
            torch.addmm(total, left, right, beta=0 if first else 1, out=total)
            return
        product = torch.mm(left, right, out=self.buffers.get("product", total.shape, self.narrow, self.device))
        if first:
            total.copy_(product)
        else:
            total.add_(product)


class ChunkLogits(NamedTuple):
    """Logits z of a chunk of rows over a temperature T, and their normalisers.

    Attributes:
        scaled_VC: z/T.
        normaliser_C: log Σ exp z/T.
        label_normaliser_M: log Σ exp z of the labelled rows.
    """

    scaled_VC: Tensor
    normaliser_C: Tensor
    label_normaliser_M: Tensor

    def of_tile(self, tile: slice) -> Self:
        """The same for a part of the vocabulary."""
        return self._replace(scaled_VC=self.scaled_VC[tile])


def chunk_logits(
    arithmetic: Arithmetic,
    name: str,
    hidden_CD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    temperature: float,
    labelled: int,
) -> ChunkLogits:
    """The logits of a chunk, in work space of that name, with normalisers taken while each tile is in the cache."""
    a, rows = arithmetic, len(hidden_CD)
    scaled_DC = (hidden_CD / temperature).to(a.narrow).t()
    bias_V1 = None if bias_V is None else (bias_V / temperature).to(a.narrow)[:, None]
    scaled_VC = a.buffers.get(f"{name} logits", (len(weight_VD), rows), a.narrow, a.device)
    sums = []
    for tile in a.tiles:
        tile_VC = scaled_VC[tile]
        if bias_V1 is None:
            torch.mm(weight_VD[tile], scaled_DC, out=tile_VC)
        else:
            torch.addmm(bias_V1[tile], weight_VD[tile], scaled_DC, out=tile_VC)
        sums.append(a.form_of(_log_sums)(a, tile_VC, temperature, labelled))
    return ChunkLogits(scaled_VC, *(torch.stack(each).logsumexp(dim=0) for each in zip(*sums, strict=True)))


def _log_sums(a: Arithmetic, scaled_VC: Tensor, temperature: float, labelled: int) -> tuple[Tensor, Tensor]:
    """A tile's log Σ exp z/T, (C,), and log Σ exp z of its labelled rows, (M,)."""
    powers_VC = a.scratch("powers", scaled_VC.shape).copy_(scaled_VC)
    maxima_C = powers_VC.amax(dim=0)
    sums_C = powers_VC.sub_(maxima_C).exp_().sum(dim=0)
    # A power is much cheaper than an exponential for T = 1, 2, 3.
    label_sums_M = powers_VC[:, :labelled].pow_(temperature).sum(dim=0)
    return maxima_C + sums_C.log_(), temperature * maxima_C[:labelled] + label_sums_M.log_()


def inner_product(left_N: Tensor, right_N: Tensor) -> Tensor:
    """The sum of the products of two vectors of any length."""
    if torch.compiler.is_compiling():
        return torch.sum(left_N * right_N)
    cuts = list(range(DOT_LIMIT, len(left_N), DOT_LIMIT))
    parts = zip(torch.tensor_split(left_N, cuts), torch.tensor_split(right_N, cuts), strict=True)
    return torch.stack([torch.dot(left, right) for left, right in parts]).sum()


def subtract_at_labels(values_VC: Tensor, labels_M: Tensor, amount: Tensor) -> None:
    """Subtract from one token of each labelled row, in place; a label that is not in the tile changes nothing."""
    if torch.compiler.is_compiling():
        # A choice among all values is a part of the passes around it; an update of some of them is a pass of its own.
        tokens_V1 = torch.arange(len(values_VC), device=values_VC.device)[:, None]
        values_VC[:, : len(labels_M)] -= torch.where(tokens_V1 == labels_M, amount, 0)
        return
    places_M = labels_M.clamp(0, len(values_VC) - 1)
    rows_M = torch.arange(len(labels_M), device=labels_M.device)
    values_VC[places_M, rows_M] -= torch.where(places_M == labels_M, amount, 0)
