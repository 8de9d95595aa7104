"""The teacher's vectors of sentences, computed once, kept in files and read from mapped memory.

Nothing is masked where only vectors of sentences are compared, so that they are the same in each epoch.
Axes: N examples, B batch, D width.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilrubert.common.sentence_files import PoolingMode
from distilrubert.common.training.batching import Collator, Examples
from distilrubert.common.training.padding import collate
from distilrubert.common.training.ranks import computed_in_parts
from distilrubert.distill.losses.encoding import encode
from distilrubert.distill.losses.sentence_vectors import pool
from distilrubert.modeling.teacher import Teacher, on_gpu

BATCH_TOKENS = 8192
SEQUENCES_AT_ONCE = 2**15
PARTS_AT_ONCE = 64

Example = TypeVar("Example")


def vectors_of(
    teacher: Teacher, sequences: Examples[NDArray[np.int32]], pooling: PoolingMode, folder: Path
) -> list[Path]:
    """Files with the vector of each sequence, (N, D) in fp32: those that are there, the others new.

    The name of their folder tells the teacher and the sequences. Of several processes the first one computes, and the
    others wait.
    """
    digest = hashlib.sha256(f"{teacher.sha256()} {pooling} ".encode())
    for index in range(len(sequences)):
        digest.update(np.asarray(sequences[index], dtype=np.int32).tobytes() + b"|")
    kept = folder / f"teacher-vectors-{digest.hexdigest()[:20]}"
    compute = functools.partial(_compute, teacher, sequences, pooling)
    return computed_in_parts(kept, len(sequences), SEQUENCES_AT_ONCE, compute, "teacher's vectors")


@torch.inference_mode()
def _compute(
    teacher: Teacher, sequences: Examples[NDArray[np.int32]], pooling: PoolingMode, part: range, path: Path
) -> None:
    shape = len(part), teacher.model.config.hidden_size
    vectors_ND = np.empty(shape, dtype=np.float32)
    with on_gpu(teacher.model.eval()) as model:
        for chosen in _batches(sequences.lengths[part.start : part.stop]):
            ids = [np.asarray(sequences[part[place]], dtype=np.int32) for place in chosen.tolist()]
            joined_N = np.concatenate(ids)
            batch = collate(joined_N, joined_N, np.array([len(own) for own in ids]), teacher.tokenizer.pad_token_id)
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            states_BLD = encode(model, batch).last_BLD
            vectors_ND[chosen] = pool(states_BLD, batch["attention_mask"].bool(), pooling).cpu().numpy()
    with path.open("wb") as file:
        np.save(file, vectors_ND)


def _batches(lengths: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Sequences of similar lengths, at most :data:`BATCH_TOKENS` in a batch."""
    order = np.argsort(lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= BATCH_TOKENS:
            stop += 1
        batches.append(order[start:stop])
        start = stop
    return batches


class WithVectors(Generic[Example]):
    """Examples, each with the teacher's vector of it. Worker processes map the files themselves."""

    def __init__(self, examples: Examples[Example], paths: Sequence[Path]) -> None:
        self._examples, self._paths = examples, paths
        # Few at once: each is an open file, and there is one for each 32,768 sequences.
        self._part_ND = functools.lru_cache(maxsize=PARTS_AT_ONCE)(self._map)
        self.lengths = examples.lengths

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Example, NDArray[np.float32]]:
        part, place = divmod(index, len(self._part_ND(0)))
        return self._examples[index], self._part_ND(part)[place]

    def _map(self, part: int) -> NDArray[np.float32]:
        vectors_ND: NDArray[np.float32] = np.load(self._paths[part], mmap_mode="r")
        return vectors_ND

    def __reduce__(self) -> Any:
        return WithVectors, (self._examples, self._paths)


class VectorCollator(Generic[Example]):
    """Adds ``teacher_vectors``, (B, D), to the batches of another collator."""

    def __init__(self, collator: Collator[Example]) -> None:
        self._collator = collator

    def collate(
        self, examples: Sequence[tuple[Example, NDArray[np.float32]]], epoch: int, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """The other collator's batch, and the vectors."""
        plain: Mapping[str, Tensor] = self._collator.collate([example for example, _ in examples], epoch, indices)
        return {**plain, "teacher_vectors": torch.from_numpy(np.stack([vector for _, vector in examples]))}
