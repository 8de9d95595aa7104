"""Logits of a chunk of rows, made tile by tile: the ground that :mod:`.vocabulary` works on.

Axes: C rows of a chunk, M labelled rows (the first of them), V vocabulary, D width, K tiles.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

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
    """

    narrow: torch.dtype
    wide: torch.dtype
    device: torch.device
    tiles: list[slice]
    buffers: Buffers

    @classmethod
    def choose(cls, hidden: Tensor, vocabulary: int, buffers: Buffers) -> Self:
        """bf16 products under bf16 autocast, else those of the type of `hidden`; float32 or more for the rest."""
        kind = hidden.device.type
        in_bf16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
        narrow = torch.bfloat16 if in_bf16 else hidden.dtype
        edges = [*range(0, vocabulary, CPU_TILE if kind == "cpu" else vocabulary), vocabulary]
        tiles = [slice(*edge) for edge in itertools.pairwise(edges)]
        return cls(narrow, torch.promote_types(narrow, torch.float32), hidden.device, tiles, buffers)

    def cast(self, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """`tensor` in a type; a copy, in work space, only where its own differs."""
        if tensor.dtype == dtype:
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
    maxima_KC, sums_KC = a.scratch("maxima and sums", (2, len(a.tiles), rows))
    label_sums_KM = a.scratch("sums of labelled rows", (len(a.tiles), labelled))
    for k, tile in enumerate(a.tiles):
        tile_VC = scaled_VC[tile]
        if bias_V1 is None:
            torch.mm(weight_VD[tile], scaled_DC, out=tile_VC)
        else:
            torch.addmm(bias_V1[tile], weight_VD[tile], scaled_DC, out=tile_VC)
        powers_VC = a.scratch("powers", tile_VC.shape).copy_(tile_VC)
        torch.amax(powers_VC, dim=0, out=maxima_KC[k])
        powers_VC.sub_(maxima_KC[k]).exp_()
        torch.sum(powers_VC, dim=0, out=sums_KC[k])
        if labelled:
            # A power is much cheaper than an exponential for T = 1, 2, 3.
            torch.sum(powers_VC[:, :labelled].pow(temperature), dim=0, out=label_sums_KM[k])
    return ChunkLogits(
        scaled_VC,
        (maxima_KC + sums_KC.log_()).logsumexp(dim=0),
        (temperature * maxima_KC[:, :labelled] + label_sums_KM.log_()).logsumexp(dim=0),
    )


def inner_product(left_N: Tensor, right_N: Tensor) -> Tensor:
    """The sum of the products of two vectors of any length."""
    cuts = list(range(DOT_LIMIT, len(left_N), DOT_LIMIT))
    parts = zip(torch.tensor_split(left_N, cuts), torch.tensor_split(right_N, cuts), strict=True)
    return torch.stack([torch.dot(left, right) for left, right in parts]).sum()


def labels_of_tiles(labels_M: Tensor, tiles: Sequence[slice]) -> list[tuple[Tensor, Tensor]]:
    """For each tile the labels in it, counted from its start, and the columns (rows of the chunk) that have them."""
    if len(tiles) == 1:
        return [(labels_M, torch.arange(len(labels_M), device=labels_M.device))]
    labels_M, columns_M = labels_M.sort()
    starts = torch.tensor([tile.start for tile in tiles[1:]], device=labels_M.device)
    parts = [tensor.tensor_split(torch.searchsorted(labels_M, starts).cpu()) for tensor in (labels_M, columns_M)]
    return [(labels - tile.start, columns) for tile, labels, columns in zip(tiles, *parts, strict=True)]
