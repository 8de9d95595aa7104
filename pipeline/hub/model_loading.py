"""Loading a published folder the way its users do."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from distilrubert.modeling.checkpoints import quiet_transformers
from distilrubert.pipeline.statement import first_line

# What from_pretrained reads; `*` also matches a slash, so a folder's own config comes along, which is small.
LOADED_FILES = ("config.json", "*.safetensors", "tokenizer*.json", "vocab.txt", "special_tokens_map.json")
PROBE = "Привет! Как дела?"


def loading_problems(folder: Path) -> list[str]:
    """Load model and tokenizer from the folder alone and run them once as `model(**tokenizer(text))`.

    Returns:
        What went wrong, one line each; nothing where the model works and each of its weights came from the file.
    """
    with quiet_transformers():
        try:
            model, info = _load_model(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # a broken file makes the loaders raise errors of any kind
            return [f"cannot be loaded: {first_line(error)}"]
        # An encoder is published without a pooler, which fine-tuning makes anew.
        missing = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
        problems = [f"{name}: missing from the weights" for name in sorted(missing)]
        problems += [f"{name}: in the weights, but not in the model" for name in sorted(info["unexpected_keys"])]
        problems += [f"{item!s}: has another shape in the weights" for item in info["mismatched_keys"]]
        try:
            with torch.inference_mode():
                outputs = model(**tokenizer(PROBE, return_tensors="pt"))
        except Exception as error:  # as above
            return [*problems, f"model(**tokenizer(text)) fails: {first_line(error)}"]
    if not torch.isfinite(outputs[0]).all():
        problems.append("model(**tokenizer(text)) gives values that are not finite")
    return problems


def _load_model(folder: Path) -> tuple[Any, dict[str, Any]]:
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    architectures = config.architectures or ["AutoModel"]
    model_class = getattr(transformers, architectures[0])
    model, info = model_class.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        trust_remote_code=False,
    )
    return model.eval(), info
