"""Models to measure, in fp32 on the GPU where there is one."""

import os
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.modeling.errors import UserError


def load_to_measure(
    auto_class: Any, folder: str | os.PathLike[str], what: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in evaluation mode, and its tokenizer.

    Args:
        auto_class: the `Auto` class of transformers that gives it the right head, or none.
        folder: a checkpoint.
        what: it is to be, for messages.

    Raises:
        UserError: if the folder holds no such model.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = auto_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False)
        return model.eval().to(device), AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder}: cannot be loaded as {what}: {error}") from error
