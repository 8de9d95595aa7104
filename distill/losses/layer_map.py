"""Which layers of the teacher each layer of the student learns from.

Layers are counted as in ``hidden_states``: 0 is the output of the embeddings, k that of the k-th layer.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from distilrubert.common.errors import UserError
from distilrubert.distill.objective_settings import LayerMap


class LayerPair(NamedTuple):
    """Layers of the student (one, but in ``all-mean``) and of the teacher whose means are compared."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]


def pair_layers(
    layer_map: LayerMap,
    student_layers: int,
    teacher_layers: int,
    embeddings_pair: bool = False,
    section: str = "distillation",
) -> list[LayerPair]:
    """The pairs that `layer_map` names.

    With K student and L teacher layers, student layer k has the group of teacher layers ⌊(k-1)·L/K⌋+1 … ⌊k·L/K⌋.
    The groups follow each other and hold every teacher layer once; where K does not divide L they differ by one
    layer in length, and the last one always ends with the teacher's last layer.

    Args:
        layer_map: ``block-mean`` (the mean of the group, as the cards of DistilRuBERT base and small describe),
            ``last-of-block`` (its last layer, as in TinyBERT, arXiv 1909.10351), ``all-mean`` (one pair, of
            all layers on either side, embeddings included), or for each student layer a list of teacher layers to
            average, 0 being the embeddings; an empty list leaves the student layer without a pair.
        student_layers: K.
        teacher_layers: L.
        embeddings_pair: pair the embeddings' outputs too.
        section: of the recipe that says so, for messages.

    Raises:
        UserError: if there are fewer teacher than student layers to make groups of, or the lists do not fit.
    """
    if layer_map == "all-mean":
        return [LayerPair(tuple(range(student_layers + 1)), tuple(range(teacher_layers + 1)))]
    field = f"{section}.layer_map"
    if isinstance(layer_map, str):
        if student_layers > teacher_layers:
            raise UserError(
                f"{field}: {layer_map} needs at least as many teacher layers as student layers, but there are "
                f"{teacher_layers} and {student_layers}; give a list of teacher layers for each student layer"
            )
        teachers = _groups(layer_map, student_layers, teacher_layers)
    else:
        _check(field, layer_map, student_layers, teacher_layers)
        teachers = [tuple(layers) for layers in layer_map]
    pairs = [LayerPair((0,), (0,))] if embeddings_pair else []
    return pairs + [LayerPair((k,), layers) for k, layers in enumerate(teachers, start=1) if layers]


def _groups(kind: str, student_layers: int, teacher_layers: int) -> list[tuple[int, ...]]:
    ends = [k * teacher_layers // student_layers for k in range(student_layers + 1)]
    if kind == "last-of-block":
        return [(end,) for end in ends[1:]]
    return [tuple(range(start + 1, end + 1)) for start, end in itertools.pairwise(ends)]


def _check(field: str, lists: Sequence[Sequence[int]], student_layers: int, teacher_layers: int) -> None:
    if len(lists) != student_layers:
        raise UserError(f"{field}: {len(lists)} lists for {student_layers} student layers; one is needed for each")
    if not any(lists):
        raise UserError(f"{field}: every list is empty; at least one must name a teacher layer")
    for k, layers in enumerate(lists, start=1):
        strange = [layer for layer in layers if not 0 <= layer <= teacher_layers]
        if strange:
            raise UserError(
                f"{field}: teacher layer {strange[0]} for student layer {k}; allowed are 0 to {teacher_layers}"
            )
        if len(set(layers)) < len(layers):
            raise UserError(f"{field}: a teacher layer is named twice for student layer {k}: {list(layers)}")


def compared_layers(what: str, layer_map: LayerMap, student_layers: int, teacher_layers: int) -> str:
    """What is compared with what by the layer map, for a card.

    Args:
        what: the singular of what a layer has: ``hidden state`` or ``attention map``.
        layer_map: of the settings.
        student_layers: K.
        teacher_layers: L.
    """
    if layer_map == "all-mean":
        return f"the mean of all {what}s of the student and that of the teacher's"
    if layer_map == "last-of-block":
        target = f"the last of its group of consecutive {what}s of the teacher"
    elif layer_map != "block-mean":
        target = f"the mean of those {what}s of the teacher that the recipe lists for it"
    elif teacher_layers == student_layers:
        target = "the teacher's at the same depth"
    else:
        lengths = sorted({len(layers) for layers in _groups(layer_map, student_layers, teacher_layers)})
        target = f"the mean of {' or '.join(map(str, lengths))} consecutive {what}s of the teacher"
    return f"each {what} of the student and {target}"
