"""The files by which sentence-transformers knows a folder: encoder and pooling, and of an encoder of sentences more."""

from pathlib import Path

from distilrubert.common.persistence import write_json
from distilrubert.modeling.sentence_modules import SentenceModules

# The names that every version reads; later ones understand them and write their own.
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
# Readers in other languages take a mode that is not named for a mistake (text-embeddings-inference).
POOLING_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def write_sentence_transformers_files(
    folder: Path, *, dim: int, max_length: int, sentences: SentenceModules | None = None
) -> None:
    """Write modules.json, 1_Pooling/config.json and sentence_bert_config.json.

    For an encoder of `sentences`, vectors are normalised, and config_sentence_transformers.json has its prompts. That
    of queries is the default, since texts without one are none that it was trained on.

    PyTorch can always use the folder, the other backends where their files are encoders, which those that fill masks
    are not.
    """
    write_json(folder / "modules.json", [*MODULES, NORMALIZE] if sentences else MODULES)
    pooling = "cls_token" if sentences and sentences.pooling == "cls" else "mean_tokens"
    modes = {f"pooling_mode_{mode}": mode == pooling for mode in POOLING_MODES}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, **modes})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    if sentences:
        prompts = {"query": sentences.query_prompt, "document": sentences.document_prompt or ""}
        write_json(
            folder / "config_sentence_transformers.json",
            {
                "model_type": "SentenceTransformer",
                "prompts": prompts,
                "default_prompt_name": "query" if sentences.query_prompt else None,
                "similarity_fn_name": "cosine",
            },
        )
