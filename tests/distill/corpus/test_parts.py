"""A corpus in parts: the same bytes for any number of them, and nothing that one part does touches another."""

import errno
import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import sha256_of
from distilrubert.distill.corpus import build, deduplication, merge, parts, store
from distilrubert.distill.corpus.build import CorpusBuild
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.deduplication import repeated
from distilrubert.distill.corpus.parts import Part, part_folders
from distilrubert.distill.corpus.shards import SourcePosition
from distilrubert.distill.corpus.sources import open_source
from distilrubert.distill.corpus.store import TokenizedText, in_batches, load_corpus
from distilrubert.modeling.teacher import Teacher


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher: Teacher) -> PreTrainedTokenizerFast:
    return tiny_teacher.tokenizer


@pytest.fixture
def sources(tmp_path: Path, sentences: list[str]) -> list[dict[str, Any]]:
    """Text in every form of source, with duplicates within and across files and sources."""
    texts = [f"{text} {number}" for number in range(3) for text in sentences]
    random.Random(3).shuffle(texts)
    third = len(texts) // 3
    for name, chosen in (("a", texts[:third] + texts[:20]), ("b", texts[third - 30 : 2 * third])):
        (tmp_path / f"{name}.txt").write_text("".join(f"{text}\n" for text in chosen), encoding="utf-8")
    rows = texts[2 * third - 30 :] + texts[:40] + ["", " ".join(sentences[:9])]
    pq.write_table(pa.table({"text": rows}), tmp_path / "c.parquet", row_group_size=25)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in [*texts[10:40], "новый текст"])
    (tmp_path / "d.jsonl").write_text(lines, encoding="utf-8")
    return [
        {"path": str(tmp_path / "[ab].txt"), "weight": 1.5},
        {"path": str(tmp_path / "c.parquet"), "weight": 0.6},
        {"path": str(tmp_path / "d.jsonl")},
    ]


def corpus_build(
    tokenizer: PreTrainedTokenizerFast, sources: list[dict[str, Any]], folder: Path, seed: int = 7, **changes: Any
) -> CorpusBuild:
    settings = {"sources": sources, "max_length": 24, "minimum_length": 5, "validation": 0.2, "processes": 1}
    student = changes.pop("student_tokenizer", None)
    chosen = CorpusSettings(**settings | changes)
    return CorpusBuild(chosen, tokenizer, folder, seed, student, shard_characters=900)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("count", [2, 3, 7, 40])
def test_any_number_of_parts_gives_the_same_bytes(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, sources: list[dict[str, Any]], count: int
) -> None:
    whole = corpus_build(tokenizer, sources, tmp_path / "whole").build()
    assert whole.manifest["total"]["duplicates"] > 100
    assert whole.manifest["total"]["split"] > 0
    assert whole.manifest["total"]["too_short"] > 0
    shared = corpus_build(tokenizer, sources, tmp_path / "shared")
    # In any order.
    for number in random.Random(count).sample(range(1, count + 1), count):
        shared.build_part(Part(number, count))
    assert not (tmp_path / "shared").exists()
    shared.build()
    assert digests(tmp_path / "shared") == digests(tmp_path / "whole")
    # Lost before anybody relied on it, it is put together again from the same parts.
    shutil.rmtree(shared.folder)
    parts = digests_below(shared.workplace)
    shared.build()
    assert digests(tmp_path / "shared") == digests(tmp_path / "whole")
    assert digests_below(shared.workplace) == parts


@pytest.mark.parametrize("change", [{"sentences": True}, {"student_tokenizer": True}])
def test_sentences_and_two_vocabularies_in_parts(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, sources: list[dict[str, Any]], change: dict[str, Any]
) -> None:
    changes = {"student_tokenizer": tokenizer} if "student_tokenizer" in change else change
    for name, count in (("whole", 1), ("shared", 4)):
        building = corpus_build(tokenizer, sources, tmp_path / name, **changes)
        for number in range(1, count + 1):
            building.build_part(Part(number, count))
        building.build()
    assert digests(tmp_path / "shared") == digests(tmp_path / "whole")


def test_parts_are_contiguous_and_of_about_the_same_size(tmp_path: Path, sources: list[dict[str, Any]]) -> None:
    opened = [open_source(source) for source in CorpusSettings(sources=sources).sources]
    total = sum(origin.size for source in opened for origin in source)
    for count in (1, 2, 5, 60):
        folders = part_folders(tmp_path, opened, count)
        assert [folder.part.number for folder in folders] == list(range(1, count + 1))
        assert folders[0].start == SourcePosition()
        assert folders[-1].end == SourcePosition(len(opened))
        assert all(one.end == other.start and one.start <= one.end for one, other in itertools.pairwise(folders))
    # The Parquet file is cut inside, at a multiple of its 25 rows.
    cuts = {folder.start.record for folder in part_folders(tmp_path, opened, 60)}
    assert len(cuts) > 3
    assert all(cut % 25 == 0 for cut in cuts)
    assert total > 0


def test_a_parquet_file_is_read_from_any_row_to_any_other(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [str(n) for n in range(100)]}), tmp_path / "a.parquet", row_group_size=7)
    [[file]] = [
        open_source(source) for source in CorpusSettings(sources=[{"path": str(tmp_path / "a.parquet")}]).sources
    ]
    for first, stop in ((0, None), (3, 3), (7, 14), (6, 50), (99, None), (100, None), (50, 100)):
        assert list(file.records(first, stop)) == [str(n) for n in range(100)][first:stop]


def test_an_interrupted_part_goes_on_and_the_command_without_a_part_does_what_is_missing(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    sources: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus_build(tokenizer, sources, tmp_path / "whole").build()
    shared = corpus_build(tokenizer, sources, tmp_path / "shared")
    shared.build_part(Part(1, 3))
    folders = part_folders(shared.workplace, shared.sources(), 3)
    save, saved = build._PartBuilder._save, []

    def killed_at_the_third(*arguments: Any) -> Any:
        saved.append(arguments)
        if len(saved) == 3:
            raise KeyboardInterrupt
        return save(*arguments)

    monkeypatch.setattr(build._PartBuilder, "_save", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        shared.build_part(Part(2, 3))
    kept = [shard.counts.texts for shard in folders[1].shards(shared.sources())]
    assert len(kept) == 2
    assert len(folders[0].shards(shared.sources())) > 3
    shared.build()
    assert digests(tmp_path / "shared") == digests(tmp_path / "whole")


def test_finished_parts_are_left_as_they_are(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, sources: list[dict[str, Any]]
) -> None:
    shared = corpus_build(tokenizer, sources, tmp_path / "shared")
    shared.build_part(Part(1, 2))
    before = {path: path.stat().st_mtime_ns for path in shared.workplace.glob("part-00001/**/*")}
    shared.build_part(Part(1, 2))
    shared.build_part(Part(2, 2))
    assert {path: path.stat().st_mtime_ns for path in shared.workplace.glob("part-00001/**/*")} == before


def test_processes_that_were_started_together_share_what_is_left(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, sources: list[dict[str, Any]]
) -> None:
    corpus_build(tokenizer, sources, tmp_path / "whole").build()
    shared = corpus_build(tokenizer, sources, tmp_path / "shared")
    folders = part_folders(shared.workplace, shared.sources(), 3)
    with folders[1].locked():
        # Its own part, and that of a process that was lost, but not the one that is being worked on.
        assert not shared.build_free_parts(Part(3, 3))
        assert [folder.is_complete(shared.sources()) for folder in folders] == [True, False, True]
        # Taken is taken, also where it is the process's own.
        assert not shared.build_free_parts(Part(2, 3))
    assert shared.build_free_parts(Part(2, 3))
    shared.build()
    assert digests(tmp_path / "shared") == digests(tmp_path / "whole")
    shutil.rmtree(shared.workplace)
    # One that comes too late finds nothing to do.
    assert shared.build_free_parts(Part(1, 3))
    assert not shared.workplace.exists()


def test_what_does_not_belong_together_is_refused_and_stays(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, sources: list[dict[str, Any]]
) -> None:
    shared = corpus_build(tokenizer, sources, tmp_path / "shared")
    shared.build_part(Part(1, 3))
    before = digests_below(shared.workplace)
    with pytest.raises(UserError, match=r"shards: the corpus is in parts already, 3, not 4; finish them"):
        shared.build_part(Part(1, 4))
    for other in (
        corpus_build(tokenizer, sources, tmp_path / "shared", seed=8),
        corpus_build(tokenizer, sources, tmp_path / "shared", max_length=32),
        corpus_build(tokenizer, sources[:2], tmp_path / "shared"),
    ):
        with pytest.raises(UserError, match=r"in parts already, parts of other settings; finish them"):
            other.build_part(Part(2, 3))
    for number, count in ((4, 3), (0, 3), (1, 0)):
        with pytest.raises(UserError, match=rf"part {number}/{count}: parts are numbered from 1 to"):
            Part(number, count)
    folders = part_folders(shared.workplace, shared.sources(), 3)
    with folders[1].locked():
        with pytest.raises(UserError, match=r"part 2/3: another process is working on it"):
            shared.build_part(Part(2, 3))
        with pytest.raises(UserError, match=r"part 2/3: another process is working on it"):
            shared.build()
        with pytest.raises(UserError, match=r"part-00002: another process is working on this part, with other"):
            corpus_build(tokenizer, sources, tmp_path / "shared", seed=8).build()
    with parts.merge_lock(shared.workplace), pytest.raises(UserError, match="another process is putting the parts"):
        shared.build()
    after = digests_below(shared.workplace)
    assert before.items() <= after.items()


def digests_below(folder: Path) -> dict[Path, str]:
    return {path: sha256_of(path) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_a_full_disk_in_one_part_is_one_line_and_the_others_are_untouched(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    sources: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = corpus_build(tokenizer, sources, tmp_path / "shared")
    shared.build_part(Part(1, 2))
    before = digests_below(shared.workplace)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "write_sequences", full)
    with pytest.raises(UserError, match=r"part-00002/shard-000000: cannot be written: No space left on device"):
        shared.build_part(Part(2, 2))
    assert digests_below(shared.workplace) == before
    monkeypatch.undo()
    monkeypatch.setattr(merge, "write_split", full)
    with pytest.raises(UserError, match=r"shared: cannot be written: No space left on device"):
        shared.build()
    assert before.items() <= digests_below(shared.workplace).items()
    monkeypatch.undo()
    left_by_a_kill = tmp_path / ".shared.0123abcd.tmp"
    left_by_a_kill.mkdir()
    shared.build()
    assert not left_by_a_kill.exists()


def test_a_file_that_has_changed_is_read_again_in_its_part(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, sources: list[dict[str, Any]]
) -> None:
    shared = corpus_build(tokenizer, sources, tmp_path / "shared")
    for number in (1, 2):
        shared.build_part(Part(number, 2))
    with (tmp_path / "d.jsonl").open("a") as file:
        file.write('{"text": "ещё один совсем новый текст"}\n')
    shared.build()
    corpus_build(tokenizer, sources, tmp_path / "whole").build()
    assert digests(tmp_path / "shared") == digests(tmp_path / "whole")


def test_a_part_that_forgets_keys_changes_nothing(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    sources: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus_build(tokenizer, sources, tmp_path / "whole").build()
    monkeypatch.setattr(build, "REMEMBERED_KEYS", 10)
    monkeypatch.setattr(deduplication, "KEYS_AT_ONCE", 16)
    corpus_build(tokenizer, sources, tmp_path / "forgetful").build()
    assert digests(tmp_path / "forgetful") == digests(tmp_path / "whole")


@pytest.mark.parametrize("at_once", [3, 50, 10**6])
def test_repeated_keys_are_those_that_are_not_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(deduplication, "KEYS_AT_ONCE", at_once)
    generator = np.random.default_rng(1)
    known = generator.integers(0, 2**64, 150, dtype=np.uint64, endpoint=False)
    known[:2] = 0, 2**64 - 1
    arrays = [generator.choice(known, size) for size in (40, 0, 1, 90, 0, 70)]
    seen: set[int] = set()
    expected = []
    for array in arrays:
        expected.append([i for i, key in enumerate(array.tolist()) if key in seen or seen.add(key)])
    found = repeated(arrays, sum(map(len, arrays)), tmp_path / "scratch")
    assert [places.tolist() for places in found] == expected
    assert not (tmp_path / "scratch").exists()
    assert repeated([], 0, tmp_path / "scratch") == []


def test_a_corpus_of_several_windows_is_shuffled_on_disk(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    sources: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = corpus_build(tokenizer, sources, tmp_path / "plain").build()
    count = len(plain.train)
    monkeypatch.setattr(merge, "WINDOW", 60)
    shuffled = corpus_build(tokenizer, sources, tmp_path / "shuffled").build()
    windows = -(-count // 60)
    assert windows > 3
    order = [ids.tolist() for ids in shuffled.train]
    before = [ids.tolist() for ids in plain.train]
    assert order != before
    assert sorted(order) == sorted(before)
    assert [ids.tolist() for ids in shuffled.validation] == [ids.tolist() for ids in plain.validation]
    assert shuffled.manifest == plain.manifest
    assert shuffled.token_counts.tolist() == plain.token_counts.tolist()
    assert shuffled.train.lengths.tolist() == [len(ids) for ids in order]
    # Each is a window in which the order is that of the text; the draw is one of the seed and the place.
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([7, windows])))
    window_of = np.floor(generator.random(count) * windows).astype(int)
    assert order == [before[i] for i in np.argsort(window_of, kind="stable")]
    in_parts = corpus_build(tokenizer, sources, tmp_path / "parts")
    for number in (1, 2, 3):
        in_parts.build_part(Part(number, 3))
    in_parts.build()
    assert digests(tmp_path / "parts") == digests(tmp_path / "shuffled")


def test_lengths_are_mapped_and_computed_for_an_older_corpus(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, sources: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "corpus"
    built = corpus_build(tokenizer, sources, folder, student_tokenizer=tokenizer).build()
    assert built.pairs
    texts = [built.train, built.validation, built.pairs.train, built.pairs.train.student, built.pairs.validation]
    assert all(isinstance(text.lengths, np.memmap) for text in texts)
    mapped = [text.lengths.tolist() for text in texts]
    assert mapped[0] == [len(ids) for ids in built.train]
    for path in folder.glob("*_lengths.npy"):
        path.unlink()
    older = load_corpus(folder)
    assert older.pairs
    computed = [older.train, older.validation, older.pairs.train, older.pairs.train.student, older.pairs.validation]
    assert [text.lengths.tolist() for text in computed] == mapped


@pytest.mark.parametrize("cuts", [[1, 2, 3, 50, 77, 100], *([cut, 100] for cut in range(1, 20))])
def test_batches_on_disk_do_not_depend_on_how_the_rows_came(tmp_path: Path, cuts: list[int]) -> None:
    rows = [[n] * (n % 5) for n in range(100)]
    for name, chosen in (("one", [100]), ("other", cuts)):
        batches = [
            pa.record_batch([pa.array(rows[start:end], pa.list_(pa.int32()))], schema=store.SCHEMA)
            for start, end in zip([0, *chosen], chosen, strict=False)
        ]
        store.write_sequences(tmp_path / name, in_batches(batches, 8))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert [ids.tolist() for ids in TokenizedText(tmp_path / "one")] == rows
