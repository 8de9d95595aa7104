"""What the comparisons through a sparse map between two vocabularies have in common."""

import warnings
from typing import Self

from torch import Tensor, nn

# In place of the logarithm of 0, where its product with 0 is wanted.
LOWEST = -1e4


class SparseComparison(nn.Module):
    """A comparison that holds sparse matrices, which nothing changes.

    Args:
        temperature: T.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self._temperature = temperature

    def __deepcopy__(self, memo: object) -> Self:
        # Nothing in it changes, and torch (2.13) makes no deep copy of a sparse matrix.
        return self

    def hold(self, name: str, matrix: Tensor) -> None:
        """Register a sparse matrix in the form (CSR) whose products are the fast ones; it moves along, unsaved."""
        with warnings.catch_warnings():
            # torch calls it a beta.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            self.register_buffer(name, matrix.to_sparse_csr(), persistent=False)
