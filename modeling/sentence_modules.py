"""The files by which sentence-transformers knows how a folder makes a vector of a sentence."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from distilrubert.common.configuration import Section
from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.common.sentence_files import (
    PROMPTS_FILE,
    PoolingMode,
    kind_of_module,
    modules_in,
    pooling_in,
    read_prompts,
)

_PACKAGE = "sentence_transformers."
SENTENCE_MODULES = ("Transformer", "Pooling", "Normalize")
"""What may be done with the hidden states; a map that follows them would have to be learned too."""
OPENED_MODULES = (*SENTENCE_MODULES, "Dense", "Dropout", "LayerNorm", "StaticEmbedding")
"""What sentence-transformers may open: others, as its Router, import what their own files name."""
# Dense imports its activation, and calls it.
_ACTIVATIONS = "torch.nn.modules."


@dataclasses.dataclass(frozen=True)
class SentenceModules:
    """How a model makes the vector of a sentence.

    Attributes:
        pooling: what becomes of its tokens' states.
        query_prompt: put before a text that is looked for, and before both of two that are compared.
        document_prompt: put before a text that is found; None where that is not said.
    """

    pooling: PoolingMode = "mean"
    query_prompt: str = ""
    document_prompt: str | None = None

    @property
    def prompts(self) -> list[str]:
        """What may stand before a text, each once: nothing, too, where that is one of the two; empty without any."""
        found = [prompt for prompt in (self.query_prompt, self.document_prompt) if prompt is not None]
        return list(dict.fromkeys(found)) if any(found) else []


class SentenceSettings(Section):
    """An encoder of sentences: what its vectors are, and what is put before texts.

    What is empty here is what the teacher's sentence-transformers files say; without these, the mean and no prompts.
    """

    pooling: PoolingMode | None = Field(
        None, description="What becomes of the last hidden states: their mean, or the first one (cls)."
    )
    query_prompt: str | None = Field(
        None, description="Put before texts that are looked for, or compared, as 'query: '."
    )
    document_prompt: str | None = Field(None, description="Put before texts that are found, as 'passage: '.")

    def completed(self, teacher: Path) -> SentenceModules:
        """What is set here, and the rest out of the teacher's files.

        Raises:
            UserError: as :func:`read_sentence_modules`, and if there is a prompt for queries and none for documents.
        """
        own = read_sentence_modules(teacher) or SentenceModules()
        found = dataclasses.replace(own, **self.model_dump(exclude_none=True))
        if found.query_prompt and found.document_prompt is None:
            raise UserError(
                f"sentences.document_prompt: is needed beside the prompt of queries, {found.query_prompt!r}; "
                "it may be the same, or ''"
            )
        return found


def read_sentence_modules(folder: Path) -> SentenceModules | None:
    """What the files of a folder say; None for a folder without them.

    Raises:
        UserError: if there is a module that a student cannot have, or a pooling that is neither mean nor CLS.
    """
    if not checked_modules(folder, SENTENCE_MODULES):
        return None
    return SentenceModules(pooling_in(folder), *prompts_in(folder))


def prompts_in(folder: Path) -> tuple[str, str | None]:
    """The prompts of queries (empty without) and of documents (None without).

    Raises:
        UserError: if the file that has them is not of its form.
    """
    found = read_prompts(folder)
    return (found.query, found.document) if found else ("", None)


def encoder_in(folder: Path) -> SentenceModules | None:
    """What the vectors of a model are that is made to encode sentences; None for other models.

    Raises:
        UserError: as :func:`read_sentence_modules`.
    """
    return read_sentence_modules(folder) if (folder / PROMPTS_FILE).is_file() else None


def checked_modules(folder: Path, allowed: Sequence[str], name: str = "") -> list[dict[str, Any]]:
    """The modules of a folder, which are all of `allowed` classes; none for a folder without their file.

    `name` is the model's, for messages; empty: the folder.

    Raises:
        UserError: if there is another one, code from outside sentence-transformers, or an activation that is not
            PyTorch's.
    """
    modules = modules_in(folder)
    for module in modules:
        kind, found = kind_of_module(module), str(module.get("type"))
        is_theirs = found.startswith(_PACKAGE)
        if kind not in allowed or not is_theirs:
            named = kind if is_theirs else f"{found}, which is not of {_PACKAGE[:-1]}"
            raise UserError(f"{name or folder}: modules.json has a module {named}; allowed: {', '.join(allowed)}")
        config = folder / str(module.get("path") or "") / "config.json"
        if kind == "Dense" and config.is_file():
            values = read_json(config)
            activation = values.get("activation_function", _ACTIVATIONS) if isinstance(values, dict) else None
            if not str(activation).startswith(_ACTIVATIONS):
                raise UserError(f"{config}: activation_function is {activation!r}; one of {_ACTIVATIONS[:-1]} is taken")
    return modules
