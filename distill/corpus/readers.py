"""Texts from files in every supported format; each file is read once, from beginning to end.

The builders of `datasets` would copy each file into a cache first, know no documents between blank lines, and do not
name the line of an error.
"""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distilrubert.common.contents import content_of
from distilrubert.common.errors import UserError
from distilrubert.distill.corpus.corpus_settings import Documents
from distilrubert.distill.corpus.remote_files import RemoteFile, clear_remote_errors

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
# The longest line, field or document between blank lines; a longer one means that the format is another.
MAXIMAL_TEXT_BYTES = 64 * 2**20
BYTES_AT_ONCE = 2**20


class TextFile:
    """One file of texts.

    Attributes:
        path: the file.
        size: its length in bytes.
        bytes_read: bytes read so far; for Parquet estimated from the rows.
    """

    def __init__(self, path: Path | RemoteFile, column: str, documents: Documents) -> None:
        self.path = path
        self.column = column
        self.documents = documents
        self.form, self.compression = _form_of(path)
        if documents == "blank-line" and self.form != ".txt":
            raise UserError(f"corpus: documents: blank-line is for .txt files only, not for {path}")
        try:
            self.size: int = path.content["bytes"] if isinstance(path, RemoteFile) else path.stat().st_size
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        self.bytes_read = 0
        self._groups: list[tuple[int, int]] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """The name and content of the file, by which a build knows that it has not changed."""
        return self.path.content if isinstance(self.path, RemoteFile) else content_of(self.path)

    def describe(self) -> dict[str, Any]:
        """The file's entry in the manifest."""
        return {"path": str(self.path), **{key: value for key, value in self.identity.items() if key != "name"}}

    def cut_at(self, share: float) -> int | None:
        """The record nearest to a share of the file's bytes at which reading can begin; None is the end of the file.

        A Parquet file can be cut between two row groups. Any other file is read from its beginning.
        """
        if self.form != ".parquet":
            return 0 if share < 0.5 else None
        records, sizes = (np.cumsum([0, *column]) for column in zip(*self._row_groups(), strict=True))
        nearest = int(np.argmin(np.abs(sizes - share * sizes[-1])))
        return None if nearest == len(sizes) - 1 else int(records[nearest])

    def records(self, first: int = 0, stop: int | None = None) -> Iterator[str | None]:
        """Yield the text of each record from `first` up to but not including `stop`, None or "" if it has none.

        Raises:
            UserError: naming the file, and the line in a format with lines, if it is corrupt, not UTF-8 text, or
                the column is missing.
        """
        try:
            with clear_remote_errors(str(self.path)) if isinstance(self.path, RemoteFile) else contextlib.nullcontext():
                yield from self._records(first, stop)
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        if stop is None:
            self.bytes_read = self.size

    def _records(self, first: int, stop: int | None) -> Iterator[str | None]:
        if self.form == ".parquet":
            yield from self._parquet_records(first, stop)
        else:
            yield from islice(self._line_records(), first, stop)

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.path}: cannot be read: {str(error) or type(error).__name__}")

    def _line_records(self) -> Iterator[str | None]:
        with self._opened() as raw, _decompressed(raw, self.compression) as stream:
            reader: Callable[[Iterator[str], TextFile], Iterator[str | None]] = _LINE_READERS[self.form]

            def note() -> None:
                self.bytes_read = raw.tell()

            yield from reader(_decoded_lines(stream, self.path, note), self)

    def _opened(self) -> Any:
        return self.path.open() if isinstance(self.path, RemoteFile) else self.path.open("rb", buffering=0)

    def _parquet_source(self) -> contextlib.AbstractContextManager[Any]:
        # Arrow reads a file by its name without Python.
        return self.path.open() if isinstance(self.path, RemoteFile) else contextlib.nullcontext(self.path)

    def _row_groups(self) -> list[tuple[int, int]]:
        """The number of rows and of bytes of each row group, before them an empty one."""
        if self._groups is None:
            try:
                with self._parquet_source() as raw, pq.ParquetFile(raw) as file:
                    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            except (OSError, pa.ArrowException) as error:
                raise self._unreadable(error) from error
            self._groups = [(0, 0), *((group.num_rows, group.total_byte_size) for group in groups)]
        return self._groups

    def _parquet_records(self, first: int, stop: int | None) -> Iterator[str | None]:
        # Without pre-buffering and with a small buffer a row group of any size is read in parts.
        with (
            self._parquet_source() as raw,
            pq.ParquetFile(raw, pre_buffer=False, buffer_size=2**20, page_checksum_verification=True) as file,
        ):
            schema = file.schema_arrow
            self.check_column(schema.names)
            kind = schema.field(self.column).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise UserError(f"{self.path}: column {self.column!r} holds {kind}; text (string) is needed")
            starts = np.cumsum([rows for rows, _ in self._row_groups()])
            wanted = range(max(int(np.searchsorted(starts, first, side="right")) - 1, 0), len(starts) - 1)
            rows = int(starts[wanted.start])
            for batch in file.iter_batches(batch_size=4096, row_groups=[*wanted], columns=[self.column]):
                begin, rows = rows, rows + batch.num_rows
                self.bytes_read = self.size * rows // file.metadata.num_rows
                end = None if stop is None else max(stop - begin, 0)
                yield from batch.column(0)[max(first - begin, 0) : end].to_pylist()
                if stop is not None and rows >= stop:
                    return

    def check_column(self, names: list[str], line: int | None = None) -> None:
        """Raise a UserError with the names of the columns if the column is missing."""
        if self.column not in names:
            place = self.path if line is None else f"{self.path}:{line}"
            raise UserError(f"{place}: no column {self.column!r}; there are {', '.join(map(str, names)) or 'none'}")


def _form_of(path: Path | RemoteFile) -> tuple[str, str | None]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    form = (suffixes[-2:-1] if compression else suffixes[-1:]) or [""]
    allowed = [*_LINE_READERS, *([] if compression else [".parquet"])]
    if form[0] not in allowed:
        raise UserError(
            f"{path}: unsupported extension; allowed are {', '.join(_LINE_READERS)}, each also with "
            f"{' or '.join(COMPRESSIONS)}, and .parquet"
        )
    return form[0], compression


@contextlib.contextmanager
def _decompressed(raw: Any, compression: str | None) -> Iterator[IO[bytes]]:
    if compression is None:
        yield io.BufferedReader(raw, 2**20)
        return
    # Arrow's streams notice a truncated .zst file, which zstandard's reader takes for a complete one.
    with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression) as stream:
        yield io.BufferedReader(stream, 2**20)


def _decoded_lines(
    stream: IO[bytes], path: Path | RemoteFile, when_read: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """Yield lines with their line ends, as strict UTF-8; a byte order mark at the beginning is dropped.

    Many lines are decoded at once: one by one they take three times as long.
    """
    number, offset, rest = 1, 0, b""
    while read := stream.read(BYTES_AT_ONCE):
        when_read()
        lines, end, rest = (rest + read).rpartition(b"\n")
        yield from _decoded(lines + end, path, number, offset)
        number, offset = number + read.count(b"\n"), offset + len(lines) + len(end)
        if len(rest) >= MAXIMAL_TEXT_BYTES:
            raise UserError(f"{path}:{number}: a line of more than {MAXIMAL_TEXT_BYTES} bytes; is this text?")
    yield from _decoded(rest, path, number, offset)


def _decoded(lines: bytes, path: Path | RemoteFile, number: int, offset: int) -> Iterator[str]:
    """The lines in these bytes, the first of which has this number and begins at this byte of the file."""
    try:
        if b"\0" not in lines:
            # With this newline, only a line feed ends a line.
            yield from io.StringIO(lines.decode("utf-8" if offset else "utf-8-sig"), newline="\n")
            return
    except UnicodeDecodeError:
        pass
    for line in io.BytesIO(lines):
        if b"\0" in line:
            at = offset + line.index(b"\0")
            raise UserError(f"{path}:{number}: binary data (a zero byte at byte {at}); UTF-8 text is needed")
        try:
            yield line.decode("utf-8" if offset else "utf-8-sig")
        except UnicodeDecodeError as error:
            at = offset + error.start
            raise UserError(f"{path}:{number}: not UTF-8 text (byte {at}: {error.reason})") from error
        number, offset = number + 1, offset + len(line)


def _txt(lines: Iterator[str], file: TextFile) -> Iterator[str]:
    return _documents(lines, file) if file.documents == "blank-line" else (line.strip() for line in lines)


def _documents(lines: Iterator[str], file: TextFile) -> Iterator[str]:
    """Yield the lines between blank lines as one text, joined by line feeds."""
    document: list[str] = []
    characters = 0
    for number, line in enumerate(lines, start=1):
        if turn := line.strip():
            document.append(turn)
            characters += len(turn)
            if characters > MAXIMAL_TEXT_BYTES:
                raise UserError(f"{file.path}:{number}: no blank line in {characters} characters; set documents: lines")
        elif document:
            yield "\n".join(document)
            document, characters = [], 0
    if document:
        yield "\n".join(document)


def _jsonl(lines: Iterator[str], file: TextFile) -> Iterator[str | None]:
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        place = f"{file.path}:{number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{place}: not JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:
            # A number of thousands of digits, or thousands of brackets: JSON that Python does not read.
            raise UserError(f"{place}: JSON that cannot be read: {error}") from error
        if not isinstance(record, dict):
            raise UserError(f"{place}: a JSON {type(record).__name__}; an object with key {file.column!r} is needed")
        file.check_column(list(record), number)
        text = record[file.column]
        if not isinstance(text, str | None):
            raise UserError(f"{place}: {file.column!r} holds {type(text).__name__}; a string is needed")
        if text and "\\u" in line:
            _refuse_half_surrogates(text, place)
        yield text


def _refuse_half_surrogates(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: half of a surrogate pair at character {error.start} of the text") from error


def _csv(lines: Iterator[str], file: TextFile) -> Iterator[str]:
    csv.field_size_limit(MAXIMAL_TEXT_BYTES)
    # Without strict, the rest of the file after an unclosed quotation mark would silently be one text.
    rows = csv.reader(lines, strict=True)
    try:
        header = next(rows, [])
        file.check_column(header, 1)
        column = header.index(file.column)
        for row in rows:
            if row and len(row) != len(header):
                raise UserError(f"{file.path}:{rows.line_num}: {len(row)} fields; the header has {len(header)}")
            if row:
                yield row[column]
    except csv.Error as error:
        raise UserError(f"{file.path}:{rows.line_num}: not CSV: {error}") from error


_LINE_READERS: dict[str, Callable[[Iterator[str], TextFile], Iterator[str | None]]] = {
    ".txt": _txt,
    ".jsonl": _jsonl,
    ".csv": _csv,
}
FORMS = (*(f"{form}{end}" for form in _LINE_READERS for end in ("", *COMPRESSIONS)), ".parquet")
"""The extensions of files with texts."""


def text_columns(path: Path) -> list[str]:
    """The names of the columns, or keys, of a file that hold text in its first row; none for plain text.

    Raises:
        UserError: if the file cannot be read.
    """
    form, compression = _form_of(path)
    try:
        if form == ".parquet":
            schema = pq.read_schema(path)
            return [field.name for field in schema if "string" in str(field.type)]
        with path.open("rb", buffering=0) as raw, _decompressed(raw, compression) as stream:
            lines = _decoded_lines(stream, path)
            if form == ".csv":
                return next(csv.reader(lines), [])
            if form == ".jsonl":
                return _text_keys(next((line for line in lines if not line.isspace()), "{}"), path)
            return []
    except (OSError, pa.ArrowException, csv.Error) as error:
        raise UserError(f"{path}: cannot be read: {str(error) or type(error).__name__}") from error


def _text_keys(line: str, path: Path) -> list[str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}:1: not JSON: {error}") from error
    return [key for key, value in record.items() if isinstance(value, str)] if isinstance(record, dict) else []
