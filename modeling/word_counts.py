"""How often each word of a text occurs, exactly, in memory that does not grow with the text."""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import PreTrainedTokenizerFast

from distilrubert.common.bars import tracked
from distilrubert.common.errors import UserError

# Different words that are counted in memory at a time, about 200 bytes each.
WORDS_AT_ONCE = 1_000_000
# Characters of them, 1 to 4 bytes each: where no spaces are written, what stands between two spaces is long.
CHARACTERS_AT_ONCE = 50_000_000
# A word's file is that of its checksum, as keys go to files by their first bits where duplicates are found.
FILES = 256


class Normalization(NamedTuple):
    """What a tokenizer makes of letters before it looks for tokens.

    Attributes:
        lowercase: whether they become small.
        strip_accents: whether accents are removed, so that й becomes и.
    """

    lowercase: bool = False
    strip_accents: bool = False

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> Self:
        """That of a tokenizer of any kind, by what it does."""
        normalizer = tokenizer.backend_tokenizer.normalizer
        large, accented = (normalizer.normalize_str(text) if normalizer else text for text in ("А", "й"))
        return cls("а" in large, "и" in accented and "\u0306" not in accented)


CASED = Normalization()


class WordCounts:
    """Counts words as BERT's pre-tokenizer splits them, and leaves the counts in a folder for :class:`SavedCounts`.

    What stands between two spaces is counted first, because few of these are different, and split into words
    afterwards. When there are too many for the memory, their counts go to files. Each word has one file, so that one
    file after another can be added up in memory.

    Args:
        folder: an empty one.
        normalization: what becomes of letters before.
    """

    def __init__(self, folder: Path, normalization: Normalization = CASED) -> None:
        self._folder = folder
        self._normalizer = BertNormalizer(clean_text=True, handle_chinese_chars=True, **normalization._asdict())
        self._splitter = BertPreTokenizer()
        self._uncut: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        self._files = _files_in(folder)

    def add(self, texts: Iterable[str]) -> None:
        """Count the words of more texts.

        Raises:
            UserError: if the folder cannot be written.
        """
        unmeasured = 0
        for text in texts:
            self._uncut.update(text.split(" "))
            unmeasured += len(text)
            if len(self._uncut) <= WORDS_AT_ONCE and unmeasured <= CHARACTERS_AT_ONCE:
                continue
            unmeasured = 0
            if _are_many(self._uncut):
                self._split()
                if _are_many(self._words):
                    self._write()
        self._split()

    def save(self) -> None:
        """Leave the counts in the folder, however few they are.

        Raises:
            UserError: if it cannot be written.
        """
        self._write()
        # Each word once in its file.
        for path in self._files:
            self._save(path, "w", (f"{word} {count}\n" for word, count in _counts_in([path]).items()))

    def _split(self) -> None:
        """Take the words out of what was counted between spaces."""
        for uncut, count in self._uncut.items():
            for word, _ in self._splitter.pre_tokenize_str(self._normalizer.normalize_str(uncut)):
                self._words[word] += count
        self._uncut.clear()

    def _write(self) -> None:
        lines: list[list[str]] = [[] for _ in self._files]
        for word, count in self._words.items():
            # No word has white space in it.
            lines[zlib.crc32(word.encode()) % FILES].append(f"{word} {count}\n")
        self._words.clear()
        for path, of_file in zip(self._files, lines, strict=True):
            self._save(path, "a", of_file)

    def _save(self, path: Path, mode: str, lines: Iterable[str]) -> None:
        try:
            with path.open(mode, encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be written: {error.strerror or error}") from error


def save_word_counts(texts: Iterable[str], folder: Path, normalization: Normalization = CASED) -> None:
    """Count the words of texts, and leave the counts in an empty folder; UserError if it cannot be written."""
    words = WordCounts(folder, normalization)
    words.add(tracked(texts, "counting words", unit="text"))
    words.save()


class SavedCounts:
    """What several of :class:`WordCounts` have saved, added up; iterate it for each word once and its count.

    Args:
        folders: of each.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files = [_files_in(folder) for folder in folders]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for paths in zip(*self._files, strict=True):
            yield from _counts_in(paths).items()


def _are_many(words: Counter[str]) -> bool:
    return len(words) > WORDS_AT_ONCE or sum(map(len, words)) > CHARACTERS_AT_ONCE


def _files_in(folder: Path) -> list[Path]:
    return [folder / f"{number:03d}" for number in range(FILES)]


def _counts_in(paths: Iterable[Path]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for path in paths:
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                word, count = line.split(" ")
                counts[word] += int(count)
    return counts
