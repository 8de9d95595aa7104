"""What a page needs to know of a model, from the front matter of its card and from its files."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS, FileFormat
from distilrubert.common.persistence import read_json
from distilrubert.common.sentence_files import SentencePrompts, pooling_in, read_prompts
from distilrubert.model_card.front_matter import split_card
from distilrubert.model_card.task_kinds import TASK_KINDS

HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
LAST_WORD = re.compile(r"\w+(?=\W*$)")
LANGUAGES = ("en", "ru")
_INT8, _MASKED_LM = FORMATS["onnx-int8"], FORMATS["onnx-masked-lm-int8"]
TASKS = {
    "fill-mask": _MASKED_LM,
    "sentence-similarity": _INT8,
    "text-classification": _INT8,
    "token-classification": _INT8,
}
"""What a page can show, as a card's pipeline_tag names it, and which file the page runs for it."""
# What transformers.js reads beside the graph.
SHARED = ("config.json", "tokenizer.json", "tokenizer_config.json")


@dataclasses.dataclass(frozen=True)
class ShownModel:
    """A model as its page shows it.

    Attributes:
        folder: the model repository.
        title: heading of its card.
        language: of the page: ru, or else en.
        license: as the front matter has it; "" where it has none.
        task: a key of :data:`TASKS`.
        graph: the file that runs.
        mask: the token that stands for a missing word; None for other tasks than fill-mask.
        examples: texts to click on.
        candidates: sentences to compare with.
        vectors: how vectors of sentences are made: ``pooling``, mean or cls, and the prompts before a ``query`` and
            before a ``document``; empty for other tasks than sentence-similarity.
    """

    folder: Path
    title: str
    language: str
    license: str
    task: str
    graph: FileFormat
    mask: str | None
    examples: list[str]
    candidates: list[str]
    vectors: dict[str, str]

    @property
    def files(self) -> dict[str, int]:
        """Size in bytes of each file that the browser loads, by its path."""
        paths = [*SHARED, self.graph.path]
        return {path: (self.folder / path).stat().st_size for path in paths}

    @property
    def graph_name(self) -> str:
        """The name by which transformers.js asks for the graph: without the folder and ``_quantized.onnx``."""
        return Path(self.graph.path).name.removesuffix("_quantized.onnx")


def why_not_shown(task: str, *, gives_scores: bool, reads_pairs: bool) -> str | None:
    """Why a page cannot show a model; None where it can.

    Args:
        task: as a card's pipeline_tag names it.
        gives_scores: whether its outputs are numbers, not classes.
        reads_pairs: whether it reads two texts at once.
    """
    if task not in TASKS:
        return f"a page cannot show the task {task!r} (pipeline_tag), only {', '.join(TASKS)}"
    if task == "text-classification" and gives_scores:
        return "a page shows probabilities of classes, and this model gives scores"
    if task == "text-classification" and reads_pairs:
        return "a page has one text to classify, and this model reads pairs of texts"
    return None


def read_model(folder: Path) -> ShownModel:
    """Read a model repository.

    Raises:
        UserError: if it has no card, or the page cannot show its task, or a file is missing.
    """
    metadata, body = _card(folder / "README.md")
    task = str(metadata.get("pipeline_tag"))
    gives_scores = _read(folder / "config.json").get("problem_type") == "regression"
    # Other models than those of a task have no such report, and read one text.
    report = _read(folder / "reports" / "finetuning.json").get("details", {})
    kind = TASK_KINDS.get(str(report.get("task", {}).get("kind")))
    reads_pairs = kind is not None and kind.is_of_pairs
    if reason := why_not_shown(task, gives_scores=gives_scores, reads_pairs=reads_pairs):
        raise UserError(f"{folder}: {reason}")
    heading = HEADING.search(body)
    texts, candidates = _examples(metadata)
    mask = _mask(folder) if task == "fill-mask" else None
    if mask:
        texts += _masked(folder, mask)
    return ShownModel(
        folder=folder,
        title=re.sub(r"\\(.)", r"\1", heading[1]) if heading else folder.resolve().name,
        language=_language(metadata.get("language")),
        license=str(metadata.get("license") or ""),
        task=task,
        graph=_graph(folder, task),
        mask=mask,
        examples=list(dict.fromkeys(texts)),
        candidates=candidates,
        vectors=_vectors(folder) if task == "sentence-similarity" else {},
    )


def _card(path: Path) -> tuple[dict[str, Any], str]:
    """Front matter and body."""
    try:
        return split_card(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: the model card cannot be read: {said}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    """A JSON file; nothing where it is missing."""
    return dict(read_json(path)) if path.is_file() else {}


def _graph(folder: Path, task: str) -> FileFormat:
    graph = TASKS[task]
    for path in (*SHARED, graph.path):
        if not (folder / path).is_file():
            made = f"; conversion.onnx: [{graph.name}] makes it" if path == graph.path else ""
            raise UserError(f"{folder}: {path} is missing, which the page loads{made}")
    return graph


def _language(stated: Any) -> str:
    first = stated[0] if isinstance(stated, list) and stated else stated
    return {"rus": "ru"}.get(str(first), str(first)) if str(first) in ("ru", "rus") else LANGUAGES[0]


def _examples(metadata: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The card's examples, and sentences to compare them with, as the Hub's widgets have them."""
    widget = metadata.get("widget")
    entries = [entry for entry in widget if isinstance(entry, dict)] if isinstance(widget, list) else []
    texts = [str(text) for entry in entries if (text := entry.get("source_sentence") or entry.get("text"))]
    return texts, [str(text) for entry in entries for text in entry.get("sentences") or []]


def _vectors(folder: Path) -> dict[str, str]:
    """As sentence-transformers makes them."""
    prompts = read_prompts(folder) or SentencePrompts()
    return {"pooling": pooling_in(folder), "query": prompts.query, "document": prompts.document or ""}


def _mask(folder: Path) -> str:
    mask = read_json(folder / "tokenizer_config.json").get("mask_token")
    return str(mask["content"] if isinstance(mask, dict) else mask or "[MASK]")


def _masked(folder: Path, mask: str) -> list[str]:
    """The sentences of our own cards, each with its last word masked."""
    settings = _read(folder / "reports" / "card.json").get("settings", {})
    return [LAST_WORD.sub(lambda _: mask, text) for text in settings.get("sentences", []) if LAST_WORD.search(text)]
