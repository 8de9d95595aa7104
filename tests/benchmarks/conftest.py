import importlib
from pathlib import Path
from types import ModuleType

import pytest

from distilrubert.conversion import openvino
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.writers import write_file
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.checkpoints import load_pretrained
from distilrubert.modeling.student import build_student, save_student


@pytest.fixture(scope="session")
def converted(tiny_teacher, sentences, tmp_path_factory) -> Path:
    """A student of two layers with its int8 files, scores of attention too; tests do not write to it."""
    folder = tmp_path_factory.mktemp("converted")
    save_student(build_student(tiny_teacher, StudentArchitecture(layers=2)), folder)
    source = ExportSource.of_text(load_pretrained(folder), ConversionSettings(), sentences)
    with pytest.MonkeyPatch.context() as patch:
        # Its heads are narrow.
        patch.setattr(openvino, "NARROW_HEAD", 0)
        for case in ("onnx-int8", "openvino-int8"):
            write_file(case, source, folder)
    return folder


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/document.py."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("document")
