"""Checkpoint in, files for every runtime out, and the proof that they agree."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilrubert.conversion.checkpoint import load_checkpoint
    from distilrubert.conversion.model_folder import convert
    from distilrubert.conversion.onnx import export_onnx
    from distilrubert.conversion.parity import check_parity, measure_parity
    from distilrubert.conversion.quantization import quantize_onnx
    from distilrubert.conversion.settings import ConversionSettings

__all__ = [
    "ConversionSettings",
    "check_parity",
    "convert",
    "export_onnx",
    "load_checkpoint",
    "measure_parity",
    "quantize_onnx",
]

# The models' code takes seconds to load, which `--help` and a mistyped recipe must not cost.
_HOMES = {
    "ConversionSettings": "settings",
    "check_parity": "parity",
    "convert": "model_folder",
    "export_onnx": "onnx",
    "load_checkpoint": "checkpoint",
    "measure_parity": "parity",
    "quantize_onnx": "quantization",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
