"""The files by which sentence-transformers knows a folder: the encoder, then the mean over its tokens."""

from pathlib import Path

from distilrubert.common.persistence import write_json

# The names that every version reads; later ones understand them and write their own.
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def write_sentence_transformers_files(folder: Path, *, dim: int, max_length: int) -> None:
    """Write modules.json, 1_Pooling/config.json and sentence_bert_config.json.

    PyTorch can always use the folder, the other backends where their files are encoders, which those that fill masks
    are not.
    """
    write_json(folder / "modules.json", MODULES)
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, "pooling_mode_mean_tokens": True}
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
