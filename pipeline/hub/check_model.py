"""Checks that configuration, weights and tokenizer can be read and agree."""

from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer

from distilrubert.modeling.checkpoints import quiet_transformers
from distilrubert.modeling.families import FAMILIES, STUDENT_TYPES, longest_input
from distilrubert.pipeline.hub.files import ModelFolder
from distilrubert.pipeline.hub.model_loading import PROBE, loading_problems
from distilrubert.pipeline.statement import Statement, first_line, problem

WEIGHTS = "model.safetensors"
UNREADABLE = "cannot be opened"
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
SPECIAL_TOKENS = ("pad", "unk", "cls", "sep")
STUDENT_INPUTS = ["input_ids", "attention_mask"]
EMBEDDINGS = tuple(f"{name}.weight" for family in FAMILIES for name, role in family.encoder.items() if role == "words")


def check_model(folder: ModelFolder) -> Iterator[Statement]:
    """Weights are finite and of the stated type, sizes and special ids agree, and the model loads from the folder."""
    if "config.json" not in folder:
        yield problem("config.json", "is missing; the folder holds no model")
        return
    config = folder.json_object("config.json")
    weights = [found for path in folder.ending(".safetensors") for found in _check_weights(folder, path, config)]
    yield from weights
    if not folder.ending(".safetensors"):
        yield problem(WEIGHTS, "is missing")
        return
    yield from _check_tokenizer(folder, config)
    if "auto_map" in config:
        yield problem("config.json", "auto_map asks for trust_remote_code; a published model must load without it")
    # What cannot be opened is not told again as what cannot be loaded.
    if not any(found.reason.startswith(UNREADABLE) for found in weights):
        yield from (problem(WEIGHTS, message) for message in loading_problems(folder.root))


def _check_weights(folder: ModelFolder, path: str, config: dict[str, Any]) -> Iterator[Statement]:
    stated = config.get("dtype", config.get("torch_dtype"))
    try:
        with safe_open(folder / path, framework="pt") as weights:
            dtypes = {weights.get_slice(name).get_dtype() for name in weights.keys()} & FLOATING  # noqa: SIM118
            infinite = [name for name in weights.keys() if not _is_finite(weights.get_tensor(name))]  # noqa: SIM118
            rows = _embedding_rows(weights)
    except (SafetensorError, OSError) as error:
        yield problem(path, f"{UNREADABLE}: {first_line(error)}")
        return
    for name in infinite:
        yield problem(path, f"{name} holds NaN or infinity")
    if stated is not None and dtypes != {DTYPES.get(stated, stated)}:
        yield problem(path, f"has {', '.join(sorted(dtypes))} weights, but config.json states {stated}")
    if rows is not None and rows != config.get("vocab_size"):
        yield problem(
            path, f"has {rows} word embeddings, but config.json states a vocab_size of {config.get('vocab_size')}"
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _embedding_rows(weights: Any) -> int | None:
    for name in weights.keys():  # noqa: SIM118 - no mapping
        if name.endswith(EMBEDDINGS):
            return int(weights.get_slice(name).get_shape()[0])
    return None


def _check_tokenizer(folder: ModelFolder, config: dict[str, Any]) -> Iterator[Statement]:
    if "tokenizer.json" not in folder:
        yield problem("tokenizer.json", "is missing")
        return
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder.root, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a broken file makes the loader raise is a problem
        yield problem("tokenizer.json", f"cannot be loaded: {first_line(error)}")
        return
    yield from (problem("tokenizer.json", message) for message in _vocabulary_problems(tokenizer, config))
    yield from (problem("tokenizer_config.json", message) for message in _settings_problems(tokenizer, config))
    if "vocab.txt" in folder:
        # A token may be a sign at which splitlines() begins a line, too.
        words = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        if words != tokenizer.convert_ids_to_tokens(list(range(len(words)))):
            yield problem("vocab.txt", "is not the vocabulary of tokenizer.json")


def _vocabulary_problems(tokenizer: Any, config: dict[str, Any]) -> Iterator[str]:
    if len(tokenizer) != config.get("vocab_size"):
        yield f"has {len(tokenizer)} tokens, but config.json states a vocab_size of {config.get('vocab_size')}"
    has_head = any(name.endswith("ForMaskedLM") for name in config.get("architectures") or ())
    for kind in (*SPECIAL_TOKENS, *(["mask"] if has_head else [])):
        if getattr(tokenizer, f"{kind}_token_id") is None:
            yield f"has no {kind} token"
    if tokenizer.pad_token_id != config.get("pad_token_id", tokenizer.pad_token_id):
        yield f"pads with {tokenizer.pad_token_id}, but config.json states a pad_token_id of {config['pad_token_id']}"
    ids = tokenizer(PROBE)["input_ids"]
    if tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(ids)) != ids:
        yield "does not map its tokens back to their ids"
    once = tokenizer.decode(ids, skip_special_tokens=True)
    if tokenizer.decode(tokenizer(once)["input_ids"], skip_special_tokens=True) != once:
        yield f"decodes {once!r}, but encodes and decodes it to another text"


def _settings_problems(tokenizer: Any, config: dict[str, Any]) -> Iterator[str]:
    if config.get("model_type") in STUDENT_TYPES and tokenizer.model_input_names != STUDENT_INPUTS:
        yield f"gives {', '.join(tokenizer.model_input_names)}; the model takes {', '.join(STUDENT_INPUTS)}"
    if "max_position_embeddings" in config and tokenizer.model_max_length > (longest := longest_input(config)):
        # Where nothing is stated transformers has 10^30.
        stated = tokenizer.model_max_length < 1e20
        found = f"allows {tokenizer.model_max_length} tokens" if stated else "states no model_max_length"
        yield f"{found}, but the model takes {longest}"
