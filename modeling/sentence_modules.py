"""The files by which sentence-transformers knows how a folder makes a vector of a sentence."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from distilrubert.common.configuration import Section
from distilrubert.common.errors import UserError
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
        """Both, if they are not empty, each once."""
        return list(dict.fromkeys(filter(None, (self.query_prompt, self.document_prompt))))


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
    modules = modules_in(folder)
    if not modules:
        return None
    for module in modules:
        name = kind_of_module(module)
        if name not in SENTENCE_MODULES or not _is_theirs(module):
            raise UserError(f"{folder}: modules.json has a module {name}; allowed: {', '.join(SENTENCE_MODULES)}")
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


def refuse_foreign_modules(folder: Path) -> None:
    """Refuse a folder whose modules.json names code from outside sentence-transformers, which would be run.

    Raises:
        UserError: if it does.
    """
    for module in modules_in(folder):
        if not _is_theirs(module):
            raise UserError(
                f"{folder}: modules.json names {module.get('type')!r}, code that does not come with {_PACKAGE[:-1]}"
            )


def _is_theirs(module: Mapping[str, Any]) -> bool:
    return str(module.get("type", "")).startswith(_PACKAGE)
