"""The words of a corpus in parts: the same counts for any number of them."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from distilrubert.common.errors import UserError
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.parts import Part, part_folders
from distilrubert.distill.corpus.vocabulary_texts import TextCounting
from distilrubert.modeling import word_counts
from distilrubert.modeling.word_counts import SavedCounts, WordCounts, save_word_counts
from distilrubert.modeling.wordpiece import train_on_words, train_wordpiece


@pytest.fixture
def counting(tmp_path: Path, sentences: list[str]) -> TextCounting:
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text("\n".join(sentences[number::5]) + "\n\n", encoding="utf-8")
    settings = CorpusSettings(sources=[{"path": str(tmp_path / "[0-2].txt")}, {"path": str(tmp_path / "[34].txt")}])
    return TextCounting(save_word_counts, settings, tmp_path / "stage", tmp_path / "stage" / "vocabulary")


def counted(texts: list[str], folder: Path) -> dict[str, int]:
    """By one process in one go."""
    folder.mkdir()
    save_word_counts(texts, folder)
    return dict(SavedCounts([folder]))


@pytest.mark.parametrize("words_at_once", [20, 10**6])
@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_any_number_of_parts_gives_the_same_vocabulary(
    tmp_path: Path,
    sentences: list[str],
    counting: TextCounting,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    words_at_once: int,
) -> None:
    expected = counted(sentences, tmp_path / "expected")
    vocabulary = train_wordpiece(sentences, size=220).tokenizer.get_vocab()
    monkeypatch.setattr(word_counts, "WORDS_AT_ONCE", words_at_once)
    numbers = random.Random(count).sample(range(1, count + 1), count)
    done = [counting.build_part(Part(number, count)) for number in numbers]
    assert done == [False] * (count - 1) + [True]
    words = SavedCounts(counting.counted())
    assert dict(words) == expected
    assert len([*words]) == len(dict(words))
    assert train_on_words(words, 220).tokenizer.get_vocab() == vocabulary


def test_a_lost_part_is_counted_again_alone(
    sentences: list[str], counting: TextCounting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting.build_part(Part(1, 3))
    before = {path: path.stat().st_mtime_ns for path in counting.workplace.glob("part-00001/*")}
    assert len(before) == word_counts.FILES
    save, saved = WordCounts._save, []

    def killed(*arguments: Any) -> None:
        saved.append(arguments)
        if len(saved) == 100:
            raise KeyboardInterrupt
        save(*arguments)

    monkeypatch.setattr(WordCounts, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        counting.build_part(Part(2, 3))
    folders = part_folders(counting.workplace, counting.sources(), 3)
    assert [counting.is_complete(folder, counting.sources()) for folder in folders] == [True, False, False]
    with folders[1].locked():
        with pytest.raises(UserError, match=r"part 2/3: another process is working on it"):
            counting.counted()
        # Of those that were started together, one does what is left but for the part that is taken.
        assert not counting.build_free_parts(Part(3, 3))
    assert counting.build_free_parts(Part(3, 3))
    assert {path: path.stat().st_mtime_ns for path in counting.workplace.glob("part-00001/*")} == before
    expected = counted(sentences, tmp_path / "expected")
    assert dict(SavedCounts(counting.counted())) == expected
    shutil.rmtree(counting.workplace)
    counting.result.mkdir(parents=True)
    # One that comes too late finds nothing to do.
    assert counting.build_free_parts(Part(1, 3))
    assert not counting.workplace.exists()
