"""The vectors of sentences, from any file of a model that sentence-transformers opens.

Axes: N texts, D width.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from distilrubert.common.bars import is_shown
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CHECKPOINT, OPENVINO_HINTS, FileFormat
from distilrubert.common.hub_failures import clean
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.evaluation.sentences.suites import Suite
from distilrubert.evaluation.tasks.loading import measuring_device
from distilrubert.modeling.checkpoints import quiet_transformers
from distilrubert.modeling.sentence_modules import OPENED_MODULES, checked_modules, prompts_in

BACKENDS = {"pytorch": "torch", "onnx": "onnx", "openvino": "openvino"}
BATCH_SIZE = 64
OWN = "own"

Side = Literal["query", "document"]


@dataclasses.dataclass(frozen=True)
class Prompts:
    """What is put before texts that are looked for, or compared, and before those that are found."""

    query: str = ""
    document: str | None = None


def own_prompts(folder: Path) -> Prompts:
    """Those that a model came with; none where its folder does not say."""
    return Prompts(*prompts_in(folder))


class SentenceEncoder:
    """A model of sentence-transformers, with the poolings that a suite tries; a table of word vectors has only its own.

    Args:
        folder: of the model.
        file: which of its files is run.
        suite: its poolings and its largest length count.
        prompts: None: those that the model came with.

    Raises:
        UserError: if sentence-transformers is missing, or the folder holds no such model.
    """

    def __init__(
        self, folder: Path, suite: Suite, file: FileFormat = CHECKPOINT, prompts: Prompts | None = None
    ) -> None:
        checked_modules(folder, OPENED_MODULES)
        self._model = _load(folder, file)
        has_states = not is_static(self._model)
        poolings = suite.poolings if has_states else []
        if poolings:
            self._model = _with_poolings(self._model, poolings, folder)
        if suite.max_length and has_states:
            self._model.max_seq_length = min(suite.max_length, self._model.max_seq_length or suite.max_length)
        self.poolings: Sequence[str] = poolings or [OWN]
        self.prompts = prompts or own_prompts(folder)

    def encode(self, texts: Iterable[str], side: Side = "query") -> dict[str, "Vectors"]:
        """Normalised vectors of the different texts, by pooling."""
        different = list(dict.fromkeys(texts))
        found_ND = self._model.encode(
            different, prompt=getattr(self.prompts, side) or "", batch_size=BATCH_SIZE, show_progress_bar=is_shown()
        )
        parts = np.split(np.asarray(found_ND, dtype=np.float32), len(self.poolings), axis=1)
        return {
            pooling: Vectors(dict(zip(different, _normalised(vectors_ND), strict=True)))
            for pooling, vectors_ND in zip(self.poolings, parts, strict=True)
        }


def _normalised(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1, but for that of a text in which a table of word vectors finds no token: it stays 0."""
    norms_N = np.linalg.norm(vectors_ND, axis=1)
    norms_N[norms_N == 0] = 1
    unit_ND: NDArray[np.float32] = vectors_ND / norms_N[:, None]
    return unit_ND


@dataclasses.dataclass(frozen=True)
class Vectors:
    """The vectors of known texts. The evaluators of sentence-transformers take it for a model."""

    of_text: Mapping[str, NDArray[np.float32]]

    similarity_fn_name: ClassVar[str] = "cosine"
    model_card_data: ClassVar[Any] = SimpleNamespace(set_evaluation_metrics=lambda *arguments: None)

    def encode(self, sentences: Sequence[str], *, convert_to_tensor: bool = False, **_options: Any) -> Any:
        """Look texts up: (N, D)."""
        vectors_ND = np.stack([self.of_text[text] for text in sentences])
        return torch.from_numpy(vectors_ND) if convert_to_tensor else vectors_ND

    encode_query = encode_document = encode


def require_sentence_transformers() -> None:
    """Raise a UserError if sentence-transformers cannot be imported."""
    try:
        import sentence_transformers  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'vectors of sentences need a package that is missing ({error}): pip install "distilrubert[sentences]"'
        ) from None


def _load(folder: Path, file: FileFormat) -> Any:
    require_sentence_transformers()
    from sentence_transformers import SentenceTransformer

    backend = BACKENDS[file.runtime]
    options: dict[str, Any] = {"dtype": torch.float32}
    if file is not CHECKPOINT:
        options = {"file_name": file.opened_in(folder).relative_to(folder).as_posix()}
        if backend == "openvino":
            # A row without "in-bf16" in its name is in fp32 everywhere; OpenVINO takes bf16 where the CPU has it.
            options["ov_config"] = {"INFERENCE_PRECISION_HINT": OPENVINO_HINTS["fp32"]}
    try:
        with quiet_transformers(), quiet_datasets():
            return SentenceTransformer(
                str(folder),
                device=measuring_device() if file is CHECKPOINT else "cpu",
                backend=backend,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs=options,
            )
    # Damaged files raise errors of many classes.
    except Exception as error:
        raise UserError(f"{folder}: cannot be loaded by sentence-transformers: {clean(str(error), None)}") from error


def is_static(model: Any) -> bool:
    """Whether a model is a table of word vectors, as model2vec makes them: its tokens have no states to pool."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    return isinstance(model[0], StaticEmbedding)


def _with_poolings(model: Any, poolings: Sequence[str], folder: Path) -> Any:
    """The transformer of a model, followed by several poolings at once: their vectors lie side by side."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    if not isinstance(model[0], Transformer):
        raise UserError(f"{folder}: its first module is no transformer, so its poolings cannot be compared")
    pooling = Pooling(model[0].get_embedding_dimension(), tuple(poolings))
    return SentenceTransformer(modules=[model[0], pooling], device=str(model.device), prompts=model.prompts)
