"""Tokenizers on disk: every version of transformers writes the same complete set of files."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from transformers import AutoTokenizer, BertTokenizerFast, DistilBertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.common.persistence import read_json

# They describe the machine or the version of transformers that saved the tokenizer, and confuse other readers.
DROPPED_KEYS = ("name_or_path", "is_local", "local_files_only", "tokenizer_file", "vocab_file", "backend")
GENERAL_CLASS = "PreTrainedTokenizerFast"  # both lines of transformers know it, and read tokenizer.json alone for it

Edit = Callable[[dict[str, Any], dict[str, Any]], None]


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | os.PathLike[str]) -> None:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json and, for WordPiece, vocab.txt.

    The files do not depend on how the tokenizer was used: transformers leaves the padding and truncation of the last
    call in it, which are removed first.
    """
    folder = Path(folder)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    if isinstance(tokenizer.backend_tokenizer.model, WordPiece):
        tokenizer.backend_tokenizer.model.save(str(folder))
    _dump(folder / "special_tokens_map.json", dict(tokenizer.special_tokens_map))
    config = {
        key: value for key, value in read_json(folder / "tokenizer_config.json").items() if key not in DROPPED_KEYS
    }
    if not _is_bert(tokenizer):
        # The class of a model may make its tokenizer anew from the vocabulary and leave out the rest of tokenizer.json:
        # transformers 5 does so for XLM-R, without the normaliser, and with the unknown token at id 3.
        config |= {"tokenizer_class": GENERAL_CLASS}
    config["model_input_names"] = tokenizer.model_input_names
    _dump(folder / "tokenizer_config.json", config)
    # What tokenizer.json says as well, and would say otherwise once a vocabulary is trimmed.
    for file in {"added_tokens.json", *tokenizer.vocab_files_names.values()} - {"tokenizer.json", "vocab.txt"}:
        (folder / file).unlink(missing_ok=True)


def student_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer of a student: the same tokens and ids, but only the inputs that a student takes.

    A BERT tokenizer also yields token_type_ids, with which ``model(**tokenizer(text))`` fails.

    Args:
        tokenizer: the teacher's.
    """

    def without_segments(_: dict[str, Any], config: dict[str, Any]) -> None:
        config["model_input_names"] = ["input_ids", "attention_mask"]
        if _is_bert(tokenizer):
            config["tokenizer_class"] = "DistilBertTokenizer"

    return rewritten(tokenizer, without_segments)


def rewritten(tokenizer: PreTrainedTokenizerFast, edit: Edit) -> PreTrainedTokenizerFast:
    """A tokenizer with changed files, loaded from them as users will load it.

    Args:
        tokenizer: it is not changed.
        edit: called with the contents of tokenizer.json and tokenizer_config.json, which it changes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_tokenizer(tokenizer, folder)
        state, config = (read_json(folder / file) for file in ("tokenizer.json", "tokenizer_config.json"))
        edit(state, config)
        _dump(folder / "tokenizer.json", state)
        _dump(folder / "tokenizer_config.json", config)
        if (folder / "vocab.txt").exists():
            Tokenizer.from_file(str(folder / "tokenizer.json")).model.save(name)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _is_bert(tokenizer: PreTrainedTokenizerFast) -> bool:
    return isinstance(tokenizer, BertTokenizerFast | DistilBertTokenizerFast)


def _dump(path: Path, value: Any) -> None:
    # Plain writes: these folders are renamed to their place once they are complete.
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
