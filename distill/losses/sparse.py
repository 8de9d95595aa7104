"""What the comparisons through a sparse map between two vocabularies have in common."""

import warnings

from torch import Tensor, nn

# In place of the logarithm of 0, where its product with 0 is wanted.
LOWEST = -1e4


def register_sparse(module: nn.Module, name: str, matrix: Tensor) -> None:
    """Register a sparse matrix in the form (CSR) whose products are the fast ones; it moves along, unsaved."""
    with warnings.catch_warnings():
        # torch calls it a beta.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        module.register_buffer(name, matrix.to_sparse_csr(), persistent=False)
