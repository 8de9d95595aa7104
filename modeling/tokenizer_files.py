"""Tokenizers on disk: every version of transformers writes the same complete set of files."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tokenizers.models import WordPiece
from transformers import AutoTokenizer, BertTokenizerFast, DistilBertTokenizerFast, PreTrainedTokenizerFast

from distilrubert.common.persistence import read_json

# They describe the machine or the version of transformers that saved the tokenizer, and confuse other readers.
DROPPED_KEYS = ("name_or_path", "is_local", "local_files_only", "tokenizer_file", "vocab_file", "backend")


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
    if config["tokenizer_class"] == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that transformers 4 knows as well
    _dump(folder / "tokenizer_config.json", config)


def student_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer of a student: the same tokens and ids, but only the inputs that a DistilBERT takes.

    A BERT tokenizer also yields token_type_ids, with which ``model(**tokenizer(text))`` fails. The result is loaded
    from files as users will load it.

    Args:
        tokenizer: the teacher's.
    """
    is_bert = isinstance(tokenizer, BertTokenizerFast | DistilBertTokenizerFast)
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(tokenizer, folder)
        path = Path(folder, "tokenizer_config.json")
        config = read_json(path)
        config["tokenizer_class"] = "DistilBertTokenizer" if is_bert else "PreTrainedTokenizerFast"
        config["model_input_names"] = ["input_ids", "attention_mask"]
        _dump(path, config)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _dump(path: Path, value: Any) -> None:
    # Plain writes: these folders are renamed to their place once they are complete.
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
