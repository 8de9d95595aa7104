"""What the first texts of a corpus tell about the whole: its size, its language, how long its texts are."""

import dataclasses
import glob
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from distilrubert.common.configuration import expand_home, is_url
from distilrubert.common.errors import UserError
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.distill.corpus.corpus_settings import CorpusSource
from distilrubert.distill.corpus.readers import FORMS, TextFile, text_columns
from distilrubert.distill.corpus.sources import TextOrigin, matching_files, open_source
from distilrubert.modeling.scripts import SHARED, script_of

MAXIMAL_TEXTS, MINIMAL_TEXTS = 20_000, 2_000
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# The commonest words of a language that the other languages here do not have.
FUNCTION_WORDS = {
    "ru": "и не что я он это как мы все она так его только бы",
    "uk": "і що як це він вона вже є та але ми від або її",
    "be": "і што як гэта ён яна ўжо не але мы ад або яе",
    "en": "the and of to is that it you was for with this are",
    "de": "der die und das ist nicht ich sie mit ein zu auf den",
    "fr": "le les et des est que une dans pour pas vous je qui",
    "es": "el los que y una en es por con para no las del",
    "it": "il che di è non una per sono con gli della ma ho",
    "pl": "i w nie na się że do jest to z jak co ale",
    "pt": "o que e não uma em um para com é os do da",
}
WORD = re.compile(r"[^\W\d_]+")
CHARACTERS_OF_LANGUAGE = 400_000


@dataclasses.dataclass(frozen=True)
class CorpusSample:
    """The first texts of a corpus.

    Attributes:
        sources: entries for ``corpus.sources`` of a recipe.
        texts: the first texts of each source.
        share: the share of the corpus that `texts` are, estimated by bytes read; None for a large data set of
            the Hub.
    """

    sources: list[CorpusSource]
    texts: list[str]
    share: float | None

    def scripts(self) -> list[str]:
        """Scripts of Unicode that hold a twentieth of the letters at least, the commonest first."""
        letters = Counter(
            script_of(letter) for letter in "".join(self.texts)[:CHARACTERS_OF_LANGUAGE] if letter.isalpha()
        )
        for script in SHARED:
            letters.pop(script, None)
        return [script for script, count in letters.most_common() if count >= letters.total() / 20]

    def language(self) -> str | None:
        """ISO 639 code of the language by its commonest words, of those that a card has a greeting in; else None."""
        words = Counter(WORD.findall(" ".join(self.texts)[:CHARACTERS_OF_LANGUAGE].lower()))
        shares = {
            code: sum(words[word] for word in of_language.split()) / max(words.total(), 1)
            for code, of_language in FUNCTION_WORDS.items()
        }
        first, second = sorted(shares, key=shares.__getitem__, reverse=True)[:2]
        return first if shares[first] >= 0.04 and shares[first] > 1.2 * shares[second] else None


def sample_corpus(paths: Sequence[str], column: str | None) -> CorpusSample:
    """Read the first texts of a corpus.

    Args:
        paths: files, globs, folders that are searched for files, URLs of files, or ids of data sets on the Hub.
        column: the column that holds the text; None looks for it.

    Raises:
        UserError: if a path leads to no file of a form that is taken, a file cannot be read, no column of it is the
            one with the text, or there is no text.
    """
    sources = [source for path in paths for source in _sources(path, column)]
    texts: list[str] = []
    read = size = 0
    is_whole = True
    with quiet_datasets():
        for source in sources:
            origins = open_source(source.model_copy(update={"streaming": True}) if source.dataset else source)
            limit = MAXIMAL_TEXTS // len(sources)
            found, bytes_read = _first_texts(origins, limit)
            # Nobody tells the size of a data set.
            is_whole &= source.dataset is not None and len(found) < limit
            texts += found
            read += bytes_read
            size += sum(origin.size for origin in origins)
    if not any(texts):
        raise UserError(f"--corpus {' '.join(paths)}: there is no text in it")
    if any(source.dataset for source in sources):
        return CorpusSample(sources, texts, 1.0 if is_whole else None)
    return CorpusSample(sources, texts, min(read / size, 1.0) if size else None)


def _first_texts(origins: Sequence[TextOrigin], limit: int) -> tuple[list[str], int]:
    """The first texts, and how many bytes they take.

    A file is read in blocks, so texts are counted at their ends, where there are enough of them. A block that has more
    texts than the limit is read to its end.
    """
    texts: list[str] = []
    at_block, bytes_at_block, before = 0, 0, 0
    for origin in origins:
        last = 0
        for record in origin.records():
            if last and origin.bytes_read > last:
                if len(texts) >= min(MINIMAL_TEXTS, limit):
                    return texts, before + last
                if len(texts) >= min(MINIMAL_TEXTS // 2, limit):
                    at_block, bytes_at_block = len(texts), before + last
            last = origin.bytes_read
            if text := (record or "").strip():
                texts.append(text)
            # A data set of the Hub has no bytes.
            if len(texts) >= limit and (at_block or not last):
                return (texts[:at_block], bytes_at_block) if at_block else (texts, before)
        before += origin.size
        at_block, bytes_at_block = len(texts), before
        if len(texts) >= limit:
            break
    return texts, before


def _sources(path: str, column: str | None) -> Iterator[CorpusSource]:
    if not expand_home(path).exists() and not any(mark in path for mark in "*?[") and HUB_ID.fullmatch(path):
        yield CorpusSource(dataset=path, **({"column": column} if column else {}))
        return
    if is_url(path):
        yield CorpusSource(path=path, **({"column": column} if column else {}))
        return
    absolute = expand_home(path).absolute()
    if not absolute.is_dir():
        yield _source(str(absolute), column)
        return
    try:
        files = matching_files(str(absolute))
    except UserError:
        forms = ", ".join(FORMS)
        raise UserError(f"--corpus {path}: there is no file of the forms that are taken: {forms}") from None
    endings = sorted({_ending(file) for file in files})
    if len(endings) == 1:
        yield _source(str(absolute), column)
        return
    # Each form may have its text in another column.
    for ending in endings:
        yield _source(f"{glob.escape(str(absolute))}/**/[!_]*{ending}", column)


def _ending(file: Path) -> str:
    """The form of a file, as its name has it."""
    return next(file.name[-len(form) :] for form in FORMS if file.name.lower().endswith(form))


def _source(pattern: str, column: str | None) -> CorpusSource:
    first = matching_files(pattern)[0]
    if column is None:
        column = _text_column(first)
    source = CorpusSource(path=pattern, **({"column": column} if column else {}))
    is_text = first.suffixes and ".txt" in [suffix.lower() for suffix in first.suffixes[-2:]]
    if is_text and _has_documents(TextFile(first, "", "lines").records()):
        return source.model_copy(update={"documents": "blank-line"})
    return source


def _text_column(file: Path) -> str | None:
    """The column with the text: one called text, the only one, or the one whose texts are longest."""
    columns = text_columns(file)
    if len(columns) < 2 or "text" in columns:
        return "text" if "text" in columns else next(iter(columns), None)

    def length(column: str) -> float:
        records = TextFile(file, column, "lines").records()
        return statistics.fmean(len(record or "") for _, record in zip(range(200), records, strict=False))

    return max(columns, key=length)


def _has_documents(lines: Iterator[str | None]) -> bool:
    """Whether blank lines stand between groups of lines, as between dialogues, and not after each line."""
    first = [bool(line) for _, line in zip(range(MINIMAL_TEXTS), lines, strict=False)]
    groups = sum(is_text and not before for before, is_text in pairwise([False, *first]))
    return groups > 1 and sum(first) >= 1.5 * groups and groups >= len(first) / 100
