"""Models of the family's shapes with random weights, with our files and those of the peers."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from peers import write_peers
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM, DistilBertTokenizerFast

from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.writers import write_file
from distilrubert.modeling.architecture import PRESETS
from distilrubert.modeling.student import Student
from distilrubert.modeling.wordpiece import train_wordpiece

logger = logging.getLogger(__name__)
FILES = (
    "pytorch-fp32", "onnx-fp32", "onnx-int8", "onnx-int8-avx2", "onnx-int8-avx512-vnni", "openvino-fp32",
    "openvino-int8",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shape:
    """What speed depends on."""

    layers: int
    dim: int
    heads: int
    hidden_dim: int
    vocabulary_size: int

    def gflop(self, length: int) -> float:
        """Arithmetic of the encoder for a sequence of `length` tokens: two for each multiplication with a weight."""
        weights = 4 * self.dim**2 + 2 * self.dim * self.hidden_dim
        attention = 2 * length * self.dim
        return self.layers * length * 2 * (weights + attention) / 1e9


TEACHER = {"layers": 12, "dim": 768, "heads": 12, "hidden_dim": 3072, "vocabulary_size": 119_547}
FULL = {name: Shape(**TEACHER | sizes) for name, sizes in {"teacher": {}, **PRESETS}.items()}
DIALOGUES = Path(__file__).parents[2] / "recipes/demo/dialogues.txt"
# As many as split the words of the dialogues about as a large vocabulary splits those of all text.
PIECES = 4000
QUICK = {"teacher": Shape(2, 32, 2, 64, 500), "base": Shape(1, 32, 2, 64, 500)}


def conversation() -> list[str]:
    """The demo's dialogues, and each of their speeches."""
    dialogues = DIALOGUES.read_text(encoding="utf-8").strip().split("\n\n")
    return [text for dialogue in dialogues for text in (dialogue, *dialogue.splitlines())]


def write_model(name: str, shape: Shape, work: Path, files: Sequence[str] = FILES) -> Path:
    """Make the model's folder in `work`: for a student the files and the peers', for the teacher the checkpoint.

    The tokenizer is trained on :func:`conversation`, which is also the calibration text: ranges of activations do not
    change how long a product takes.
    """
    torch.manual_seed(0)
    folder = work / name
    folder.mkdir()
    tokenizer = make_tokenizer(shape, work)
    if name == "teacher":
        _teacher(shape).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder
    source = export_source(shape, tokenizer)
    for case in files:
        logger.info("%s: writing %s", name, case)
        write_file(case, source, folder)
    write_peers(source, folder)
    return folder


def export_source(shape: Shape, tokenizer: DistilBertTokenizerFast) -> ExportSource:
    """A student with random weights, on its way to files."""
    settings = ConversionSettings(calibration_sentences=8)
    return ExportSource.of_text(Student(_student(shape), tokenizer), settings, conversation())


def make_tokenizer(shape: Shape, work: Path) -> DistilBertTokenizerFast:
    """Real pieces, filled up to the size of the vocabulary: CTranslate2 counts them."""
    vocabulary = train_wordpiece(conversation(), size=min(PIECES, shape.vocabulary_size - 100)).tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    pieces += [f"[unused{index}]" for index in range(shape.vocabulary_size - len(pieces))]
    (work / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return DistilBertTokenizerFast(str(work / "vocab.txt"), do_lower_case=False, model_max_length=512)


def _teacher(shape: Shape) -> BertForMaskedLM:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=shape.vocabulary_size,
            num_hidden_layers=shape.layers,
            hidden_size=shape.dim,
            num_attention_heads=shape.heads,
            intermediate_size=shape.hidden_dim,
        )
    ).eval()


def _student(shape: Shape) -> DistilBertForMaskedLM:
    return DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=shape.vocabulary_size,
            n_layers=shape.layers,
            dim=shape.dim,
            n_heads=shape.heads,
            hidden_dim=shape.hidden_dim,
        )
    ).eval()
