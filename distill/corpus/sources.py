"""Where the text of a corpus comes from: files by glob, or data sets of the Hugging Face Hub."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import datasets

from distilrubert.common.configuration import expand_home, is_url
from distilrubert.common.errors import UserError
from distilrubert.common.hub_failures import clean, token_in_use
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.distill.corpus.corpus_settings import CorpusSource
from distilrubert.distill.corpus.readers import FORMS, TextFile
from distilrubert.distill.corpus.remote_files import matching_remote_files


class HubSplit:
    """One split of a data set, by its id on the Hub; it is read as a :class:`TextFile` is.

    It is downloaded and prepared once, in the caches of huggingface_hub and datasets (`HF_HOME`), where every later
    pass finds it.

    Raises:
        UserError: if the data set, its configuration or its split cannot be loaded.
    """

    def __init__(self, source: CorpusSource) -> None:
        self._source = source
        self.bytes_read = 0
        with self._clear_errors():
            self._rows = datasets.load_dataset(
                source.dataset,
                name=source.config,
                split=source.split,
                revision=source.revision,
                streaming=source.streaming,
            )
            if source.column in (self._rows.column_names or ()):
                self._rows = self._rows.select_columns(source.column)
        stated = (self._rows.info.splits or {}).get(source.split)
        self.size = (stated.num_bytes or 0) if stated else 0
        self._count = None if source.streaming else len(self._rows)

    @property
    def identity(self) -> dict[str, Any]:
        """What was asked for. In a run its revision is a commit; of a branch it is not noticed that it has moved."""
        return self.describe()

    def describe(self) -> dict[str, Any]:
        """The data set's entry in the manifest."""
        return _asked_for(self._source)

    def cut_at(self, share: float) -> int | None:
        """As of a :class:`TextFile`: a downloaded split can be cut at any row, a streamed one at none."""
        if self._count is None:
            return 0 if share < 0.5 else None
        record = round(share * self._count)
        return record if record < self._count else None

    def records(self, first: int = 0, stop: int | None = None) -> Iterator[str | None]:
        """Yield the text of each row from `first` up to but not including `stop`.

        Raises:
            UserError: if the column is missing or is not text, or the connection breaks.
        """
        with self._clear_errors():
            for batch in self._range(first, stop).iter(batch_size=1000):
                if self._source.column not in batch:
                    raise UserError(
                        f"{self._source.dataset}: no column {self._source.column!r}; there are {', '.join(batch)}"
                    )
                for text in batch[self._source.column]:
                    if not isinstance(text, str | None):
                        found = f"column {self._source.column!r} holds {type(text).__name__}"
                        raise UserError(f"{self._source.dataset}: {found}; text is needed")
                    yield text

    def _range(self, first: int, stop: int | None) -> Any:
        if self._count is not None:
            wanted = range(first, self._count if stop is None else stop)
            return self._rows.select(wanted if len(wanted) else range(0))
        rows = self._rows.skip(first) if first else self._rows
        return rows if stop is None else rows.take(stop - first)

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        # The client's errors have no common base: its own, fsspec's, the HTTP library's, ValueError for a wrong split.
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            said = clean(str(error), token_in_use())
            # Not from the error: a traceback would show what is taken out here.
            raise UserError(f"corpus: dataset {self._source.dataset!r} cannot be read: {said}") from None


TextOrigin = TextFile | HubSplit


def open_source(source: CorpusSource) -> list[TextOrigin]:
    """The files of a source in the order of their names, or its data set.

    Raises:
        UserError: if no file matches, one has an unsupported extension, or the data set cannot be loaded.
    """
    if source.path is None:
        return [HubSplit(source)]
    return [*_text_files(source, source.path)]


def identities_of(source: CorpusSource) -> list[dict[str, Any]]:
    """The identity of each origin that :func:`open_source` would open; no data set is loaded for it.

    Raises:
        UserError: if no file matches, or one has an unsupported extension or cannot be read.
    """
    if source.path is None:
        return [_asked_for(source)]
    return [file.identity for file in _text_files(source, source.path)]


def iterate_texts(sources: Sequence[CorpusSource]) -> Iterator[str]:
    """Yield every text of the sources that is not empty, in order, whatever its weight, duplicates included.

    Raises:
        UserError: as `open_source`, and whatever is wrong in a file.
    """
    with quiet_datasets():
        for origin in [origin for source in sources for origin in open_source(source)]:
            for record in origin.records():
                if text := (record or "").strip():
                    yield text


def _asked_for(source: CorpusSource) -> dict[str, Any]:
    return source.model_dump(include={"dataset", "config", "revision", "split"})


def _text_files(source: CorpusSource, pattern: str) -> list[TextFile]:
    matching = matching_remote_files(pattern, _texts_in) if is_url(pattern) else matching_files(pattern)
    return [TextFile(path, source.column, source.documents) for path in matching]


def matching_files(pattern: str) -> list[Path]:
    """The files that a path of a source means, by name, glob or folder, in the order of their names.

    Raises:
        UserError: if there is none.
    """
    path = expand_home(pattern)
    if path.is_dir():
        below = (each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())
        files = [path / name for name in _texts_in(below)]
    else:
        # A file's own name goes first, so that brackets in it are no pattern.
        names = [str(path)] if path.is_file() else glob.glob(str(path), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        files = sorted(candidate for candidate in map(Path, names) if candidate.is_file())
    if not files:
        raise UserError(f"corpus: no file matches path {pattern!r}")
    return files


def _texts_in(names: Iterable[str]) -> list[str]:
    """Of the names in a folder, relative to it, those of texts, in order; what is hidden or begins with _ is none."""
    return sorted(
        name
        for name in names
        if name.lower().endswith(FORMS) and not any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)
    )
