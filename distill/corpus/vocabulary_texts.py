"""The texts that a vocabulary is made from, and what is counted in them, which several processes can do."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from distilrubert.common.persistence import atomic_folder
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.deduplication import as_fraction, text_keys
from distilrubert.distill.corpus.parts import PartFolder, SharedWork
from distilrubert.distill.corpus.sentence_splitting import prompt_of, sentences_of
from distilrubert.distill.corpus.shards import read_blocks
from distilrubert.distill.corpus.sources import TextOrigin, iterate_texts, open_source

TEXTS_AT_ONCE = 1_000
# A part that is counted has no shards: more characters than a text has.
_ALL = 2**62


def texts_of_part(
    corpus: CorpusSettings, seed: int, prompts: Sequence[str] = (), *, is_held_out: bool, sample: float = 1.0
) -> Iterator[str]:
    """The texts of the part of a corpus that is held out, or of the other one; a hash of text and seed decides.

    Each has one of the `prompts` before it, as a corpus of sentences has. Of a `sample` below 1 only that share of the
    texts is there, which another hash chooses.
    """
    return chosen_texts(iterate_texts(corpus.sources), corpus, seed, prompts, is_held_out=is_held_out, sample=sample)


def chosen_texts(
    texts: Iterable[str],
    corpus: CorpusSettings,
    seed: int,
    prompts: Sequence[str] = (),
    *,
    is_held_out: bool,
    sample: float = 1.0,
) -> Iterator[str]:
    """Those of these texts that :func:`texts_of_part` has, as it has them."""
    every = iter(texts)
    if corpus.sentences:
        every = chain.from_iterable(map(sentences_of, every))
    while batch := [*islice(every, TEXTS_AT_ONCE)]:
        keys = text_keys(batch, seed)
        is_in = (as_fraction(keys[:, 1]) < corpus.validation) == is_held_out
        if sample < 1:
            is_in &= as_fraction(keys[:, 2]) < sample
        for i in np.flatnonzero(is_in):
            yield prompt_of(keys[i, 0], prompts) + batch[i]


@dataclass(frozen=True)
class TextCounting(SharedWork):
    """Counts over a corpus, by one process or shared out; they are exact and add up, so they are always the same.

    Attributes:
        count: leaves in an empty folder what it counts in texts.
        settings: of the corpus.
        folder: of the stage that makes a vocabulary.
        result: what that stage makes; once it is there, nothing is to be counted.
        choose: which of the texts count.
    """

    count: Callable[[Iterable[str], Path], None]
    settings: CorpusSettings
    folder: Path
    result: Path
    choose: Callable[[Iterable[str]], Iterable[str]] = iter

    @property
    def workplace(self) -> Path:
        return self.folder / ".counts"

    @property
    def is_finished(self) -> bool:
        return self.result.exists()

    def counted(self) -> list[Path]:
        """Count what is missing; the folders of all parts.

        Raises:
            UserError: if a source cannot be read, the folder cannot be written, or another process is working on a
                part.
        """
        with quiet_datasets():
            sources = self.sources()
            folders = self._folders(sources, None)
            for folder in folders:
                self._complete(folder, sources)
        return [folder.path for folder in folders]

    def sources(self) -> list[list[TextOrigin]]:
        return [open_source(source) for source in self.settings.sources]

    def plan(self) -> dict[str, Any]:
        # All else is in the fingerprint of the stage.
        return {"counts": True}

    def is_complete(self, folder: PartFolder, sources: list[list[TextOrigin]]) -> bool:
        return folder.path.is_dir()

    def complete(self, folder: PartFolder, sources: list[list[TextOrigin]]) -> None:
        if self.is_complete(folder, sources):
            return
        with atomic_folder(folder.path) as beside:
            blocks = read_blocks(sources, folder.path, folder.start, folder.end, 0, _ALL)
            self.count(self.choose(chain.from_iterable(block.texts for block in blocks)), beside)
