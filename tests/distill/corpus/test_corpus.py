"""The tokenised corpus: what is in it, and that nothing but text, settings and seed decides that."""

import contextlib
import itertools
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import psutil
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import sha256_of
from distilrubert.common.training.batching import plan_epoch
from distilrubert.common.training.padding import padded_widths
from distilrubert.distill.corpus.build import build_corpus
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.store import Corpus, TokenizedText, load_corpus
from distilrubert.modeling.teacher import Teacher


@pytest.fixture(scope="module")
def tokenizer(tiny_teacher: Teacher) -> PreTrainedTokenizerFast:
    return tiny_teacher.tokenizer


@pytest.fixture(scope="module")
def texts(tokenizer: PreTrainedTokenizerFast, sentences: list[str]) -> list[str]:
    """Two thousand different texts of one or two sentences, none longer than 64 tokens."""
    generator = random.Random(5)
    pairs = [f"{one} {other}" for one, other in itertools.permutations(sentences, 2)]
    candidates = sentences + generator.sample(pairs, len(pairs))
    return [text for text in candidates if len(tokenizer.tokenize(text)) <= 62][:2000]


def write(path: Path, texts: list[str]) -> dict[str, str]:
    """Write a file of lines; its source."""
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return {"path": str(path)}


def settings(*sources: dict[str, Any], **changes: Any) -> CorpusSettings:
    return CorpusSettings(sources=list(sources), **{"max_length": 64, "processes": 1, "validation": 0.1, **changes})


def as_lists(text: TokenizedText) -> list[list[int]]:
    return [ids.tolist() for ids in text]


def contents(folder: Path) -> dict[str, Any]:
    corpus = load_corpus(folder)
    return {
        "manifest": corpus.manifest,
        "train": as_lists(corpus.train),
        "validation": as_lists(corpus.validation),
        "token_counts": corpus.token_counts.tolist(),
    }


def test_every_text_is_in_one_of_the_parts_as_the_tokenizer_gives_it(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> None:
    corpus = build_corpus(settings(write(tmp_path / "talk.txt", texts)), tokenizer, tmp_path / "corpus", seed=1)
    assert sorted(as_lists(corpus.train) + as_lists(corpus.validation)) == sorted(tokenizer(texts)["input_ids"])
    # 200 of 2,000, and three standard deviations of 13.
    assert 160 < len(corpus.validation) < 240
    assert corpus.train.lengths.dtype == np.int32
    assert corpus.train.lengths.tolist() == [len(ids) for ids in corpus.train]


def test_everything_is_counted(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    first = write(tmp_path / "a.txt", ["Да.", "", " Да. ", "Кто там?", "\u200b", "1 猫"])
    second = write(tmp_path / "b.txt", ["Кто там?", " ".join(["Да"] * 9)])
    chosen = settings(first, second, max_length=8, validation=0)
    manifest = build_corpus(chosen, tokenizer, tmp_path / "corpus", seed=3).manifest
    length = {text: len(tokenizer(text)["input_ids"]) for text in ("Да.", "Кто там?", "1 猫", "Да")}
    assert length["Кто там?"] <= 8
    assert length["Да"] == 3
    nothing = dict.fromkeys(("validation_sequences", "validation_tokens", "left_out"), 0)
    unknown = tokenizer("1 猫")["input_ids"].count(tokenizer.unk_token_id)
    assert unknown
    one, two = manifest["sources"]
    assert one == {
        **nothing,
        "origins": [{"path": first["path"], "bytes": 40, "sha256": sha256_of(first["path"])}],
        "texts": 6,
        "empty": 1,
        "duplicates": 1,
        "split": 0,
        "too_short": 1,
        "train_sequences": 3,
        "train_tokens": sum(length[text] for text in ("Да.", "Кто там?", "1 猫")),
        "unknown_tokens": unknown,
        "unknown_share": unknown / (sum(length[text] - 2 for text in ("Да.", "Кто там?", "1 猫"))),
    }
    assert (two["texts"], two["duplicates"], two["split"]) == (2, 1, 1)
    assert (two["train_sequences"], two["train_tokens"]) == (2, 9 + 2 * 2)
    assert manifest["total"]["train_tokens"] == one["train_tokens"] + two["train_tokens"]
    assert manifest["total"]["texts"] == 8
    assert manifest["seed"] == 3
    assert manifest["settings"]["max_length"] == 8
    assert manifest["tokenizer"]["vocabulary_size"] == len(tokenizer)


def test_token_counts_are_those_of_the_training_part(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> None:
    corpus = build_corpus(settings(write(tmp_path / "talk.txt", texts)), tokenizer, tmp_path / "corpus", seed=1)
    counts = Counter(itertools.chain.from_iterable(as_lists(corpus.train)))
    assert corpus.token_counts.dtype == np.int64
    assert {i: n for i, n in enumerate(corpus.token_counts.tolist()) if n} == dict(counts)
    assert corpus.manifest["total"]["train_tokens"] == corpus.token_counts.sum()


def test_short_lines_of_a_dialogue_stay_and_shorter_than_the_minimum_go(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = write(tmp_path / "talk.txt", ["Да", "Да.", "Кто там?"])
    folder = tmp_path / "corpus"
    kept = build_corpus(settings(source, validation=0), tokenizer, folder, seed=1)
    assert sorted(kept.train.lengths.tolist())[:2] == [3, 4]
    fewer = build_corpus(settings(source, validation=0, minimum_length=5), tokenizer, folder, seed=1)
    assert len(fewer.train) == 1
    assert fewer.manifest["total"]["too_short"] == 2


@pytest.mark.parametrize("change", [{"processes": 2}, {"block": 9000}, {"block": 10**6}])
def test_processes_and_blocks_change_nothing(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str], change: dict[str, int]
) -> None:
    sources = [write(tmp_path / "a.txt", texts[:1500]), {**write(tmp_path / "b.txt", texts[1000:]), "weight": 1.5}]
    build_corpus(settings(*sources), tokenizer, tmp_path / "one", 7, shard_characters=20_000)
    block = change.pop("block", 20_000)
    build_corpus(settings(*sources, **change), tokenizer, tmp_path / "other", 7, shard_characters=block)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_the_split_follows_texts_not_their_order_and_all_of_a_text_lands_on_one_side(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> None:
    shuffled = random.Random(1).sample(texts, len(texts))

    def held_out(name: str, order: list[str], seed: int, length: int = 64) -> Corpus:
        source = write(tmp_path / name, order)
        return build_corpus(settings(source, max_length=length), tokenizer, tmp_path / "corpus", seed)

    one = held_out("one.txt", texts, seed=1)
    first = sorted(as_lists(one.validation))
    assert sorted(as_lists(held_out("two.txt", shuffled, seed=1).validation)) == first
    assert sorted(as_lists(held_out("one.txt", texts, seed=2).validation)) != first
    # Cut to pieces, the held-out texts are the same ones: no piece of them is missing, none of another is there.
    pieces = held_out("one.txt", texts, seed=1, length=24)
    assert pieces.manifest["total"]["split"] > 500
    inner = Counter(itertools.chain.from_iterable(ids[1:-1].tolist() for ids in pieces.validation))
    assert inner == Counter(itertools.chain.from_iterable(ids[1:-1] for ids in first))


def test_weights_repeat_and_thin_the_training_part(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> None:
    source = write(tmp_path / "talk.txt", texts)
    plain = build_corpus(settings(source), tokenizer, tmp_path / "plain", seed=1)
    sequences = Counter(map(tuple, as_lists(plain.train)))
    assert max(sequences.values()) == 1
    more = build_corpus(settings({**source, "weight": 2.25}), tokenizer, tmp_path / "more", seed=1)
    times = Counter(map(tuple, as_lists(more.train)))
    assert set(times) == set(sequences)
    assert set(times.values()) == {2, 3}
    # A quarter of about 1,800 and four standard deviations of 18.
    assert abs(sum(count == 3 for count in times.values()) - len(times) / 4) < 75
    assert as_lists(more.validation) == as_lists(plain.validation)
    less = build_corpus(settings({**source, "weight": 0.25}), tokenizer, tmp_path / "less", seed=1)
    # The same draw decides: whoever came a third time is taken.
    assert {tuple(ids) for ids in as_lists(less.train)} == {ids for ids, count in times.items() if count == 3}
    assert set(map(tuple, as_lists(less.validation))) < set(map(tuple, as_lists(plain.validation)))
    assert less.manifest["total"]["left_out"] == 2000 - len(less.train) - len(less.validation)


def test_the_first_source_that_has_a_text_keeps_it_with_its_weight(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    once = write(tmp_path / "a.txt", ["Кто там?"])
    thrice = {**write(tmp_path / "b.txt", ["Кто там?", "Да.", "Да."]), "weight": 3}
    corpus = build_corpus(settings(once, thrice, validation=0), tokenizer, tmp_path / "corpus", seed=1)
    assert Counter(map(tuple, as_lists(corpus.train))) == {
        tuple(tokenizer("Кто там?")["input_ids"]): 1,
        tuple(tokenizer("Да.")["input_ids"]): 3,
    }


def test_a_corpus_is_reached_from_disk_and_by_pickle_without_copies(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> None:
    built = build_corpus(
        settings(write(tmp_path / "talk.txt", texts)), tokenizer, tmp_path / "corpus", seed=1, shard_characters=20_000
    )
    files = {"train.arrow", "validation.arrow", "token_counts.npy", "manifest.json"}
    files |= {"train_lengths.npy", "validation_lengths.npy"}
    assert {path.name for path in (tmp_path / "corpus").iterdir()} == files
    # Not only we can read it.
    plain = datasets.Dataset.from_file(str(tmp_path / "corpus" / "train.arrow"))
    assert plain["input_ids"][:] == as_lists(built.train)
    loaded = load_corpus(tmp_path / "corpus")
    assert loaded.manifest == built.manifest == json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    pickled = pickle.dumps(loaded.train)
    assert len(pickled) < 300
    again = pickle.loads(pickled)
    assert as_lists(again) == as_lists(built.train)
    assert again[-1].tolist() == built.train[len(built.train) - 1].tolist()
    assert [ids.tolist() for ids in again[3:9:2]] == [again[i].tolist() for i in (3, 5, 7)]
    assert not again[0].flags.owndata
    assert not again[0].flags.writeable
    with pytest.raises(IndexError):
        again[len(again)]


def test_nothing_is_left_beside_or_in_the_users_caches(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> None:
    caches = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "datasets"
    before = set(caches.rglob("*")) if caches.exists() else set()
    chosen = settings(write(tmp_path / "talk.txt", texts), processes=2)
    build_corpus(chosen, tokenizer, tmp_path / "run" / "corpus", seed=1)
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["corpus"]
    assert (set(caches.rglob("*")) if caches.exists() else set()) == before


def test_a_build_that_broke_off_goes_on_without_reading_again(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.txt", texts[number * 500 : 800 + number * 500])
    os.utime(tmp_path / "0.txt", (1e9, 1e9))
    chosen = settings({"path": str(tmp_path / "?.txt")}, validation=0.2)
    build_corpus(chosen, tokenizer, tmp_path / "whole", 7, shard_characters=25_000)
    good = (tmp_path / "2.txt").read_bytes()
    (tmp_path / "2.txt").write_bytes(good[:-1000] + b"\xff" + good[-999:])
    with pytest.raises(UserError, match=r"2\.txt:\d+: not UTF-8 text"):
        build_corpus(chosen, tokenizer, tmp_path / "corpus", 7, shard_characters=25_000)
    assert not (tmp_path / "corpus").exists()
    # Nothing shows that 0.txt is another text now; if it were read again, that would be in the result.
    (tmp_path / "0.txt").write_bytes((tmp_path / "0.txt").read_bytes().replace("а".encode(), "о".encode()))
    os.utime(tmp_path / "0.txt", (1e9, 1e9))
    (tmp_path / "2.txt").write_bytes(good)
    with caplog.at_level("INFO"):
        build_corpus(chosen, tokenizer, tmp_path / "corpus", 7, shard_characters=17_000)
    assert "shards of an interrupted build are reused" in caplog.text
    whole, resumed = contents(tmp_path / "whole"), contents(tmp_path / "corpus")
    assert resumed == whole
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_a_build_goes_on_where_its_project_was_copied_to(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    write(here / "a.txt", texts[:300])
    (here / "b.txt").write_bytes(b"\xff\n")
    with pytest.raises(UserError):
        build_corpus(settings({"path": str(here / "*.txt")}), tokenizer, here / "corpus", 7, shard_characters=2_000)
    # Times of change are not copied along.
    shutil.copytree(here, there, copy_function=shutil.copyfile)
    write(there / "b.txt", texts[300:600])
    with caplog.at_level("INFO"):
        built = build_corpus(settings({"path": str(there / "*.txt")}), tokenizer, there / "corpus", 7)
    assert "shards of an interrupted build are reused" in caplog.text
    fresh = build_corpus(settings({"path": str(there / "*.txt")}), tokenizer, tmp_path / "fresh", 7)
    assert as_lists(built.train) == as_lists(fresh.train)


@pytest.mark.parametrize("change", ["seed", "settings", "file", "new file"])
def test_shards_of_another_build_are_not_reused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, texts: list[str], change: str
) -> None:
    write(tmp_path / "a.txt", texts[:300])
    (tmp_path / "b.txt").write_bytes(b"\xff\n")
    source = {"path": str(tmp_path / "*.txt")}
    folder = tmp_path / "corpus"
    with pytest.raises(UserError):
        build_corpus(settings(source), tokenizer, folder, seed=1, shard_characters=2_000)
    assert (tmp_path / ".corpus.shards").is_dir()
    write(tmp_path / "b.txt", texts[300:600])
    if change == "file":
        write(tmp_path / "a.txt", texts[600:800])
    if change == "new file":
        write(tmp_path / "0.txt", texts[600:800])
    seed, chosen = 1 + (change == "seed"), settings(source, minimum_length=5 if change == "settings" else 3)
    build_corpus(chosen, tokenizer, folder, seed)
    build_corpus(chosen, tokenizer, tmp_path / "fresh", seed)
    assert contents(folder) == contents(tmp_path / "fresh")


KILLED = """
import sys, time
from pathlib import Path
from transformers import AutoTokenizer
from distilrubert.distill.corpus.build import build_corpus
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.corpus.shards import Shard
settings, tokenizer, folder, shards = CorpusSettings.model_validate_json(sys.argv[1]), *sys.argv[2:]
write = Shard.write
def write_some(self, folder):
    if int(self.folder.name[-6:]) >= int(shards):
        time.sleep(3600)
    write(self, folder)
Shard.write = write_some
build_corpus(settings, AutoTokenizer.from_pretrained(tokenizer), folder, 7, shard_characters=2_000)
"""


INTERRUPTED = """
import sys
from transformers import AutoTokenizer
from distilrubert.common.processes import stop_signals_as_interrupt
from distilrubert.distill.corpus.build import build_corpus
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
settings, tokenizer, folder = CorpusSettings.model_validate_json(sys.argv[1]), *sys.argv[2:4]
try:
    with stop_signals_as_interrupt():
        build_corpus(settings, AutoTokenizer.from_pretrained(tokenizer), folder, 7, int(sys.argv[4]))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("removed", [1, 3, 6])
def test_killed_while_it_tidies_up_it_can_be_started_again(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    removed: int,
) -> None:
    """The corpus is there, and of the parts that it was made of some files are gone already."""
    chosen = settings(write(tmp_path / "talk.txt", texts[:300]))
    workplace = tmp_path / ".corpus.shards"

    def remove_some(folder: Path, **_: Any) -> None:
        if folder == workplace:
            for path in sorted(path for path in folder.rglob("*") if path.is_file())[:removed]:
                path.unlink()
            raise KeyboardInterrupt
        remove_all(folder, ignore_errors=True)

    remove_all = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", remove_some)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(chosen, tokenizer, tmp_path / "corpus", 7, shard_characters=2_000)
    monkeypatch.undo()
    whole = contents(tmp_path / "corpus")
    assert workplace.exists()
    build_corpus(chosen, tokenizer, tmp_path / "corpus", 7, shard_characters=2_000)
    assert contents(tmp_path / "corpus") == whole
    assert not workplace.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_all_processes_and_keeps_the_work(
    tmp_path: Path, tiny_teacher_folder: Path, texts: list[str], number: signal.Signals
) -> None:
    source = write(tmp_path / "talk.txt", [f"{text} {number}" for number in range(30) for text in texts])
    folder, workplace = tmp_path / "corpus", tmp_path / ".corpus.shards"
    chosen = settings(source, processes=2)
    command = [sys.executable, "-c", INTERRUPTED, chosen.model_dump_json(), str(tiny_teacher_folder), str(folder)]
    # As in a terminal, all processes of the session get the one of Ctrl-C; a scheduler asks the first.
    send = os.killpg if number == signal.SIGINT else os.kill
    with subprocess.Popen([*command, "100_000"], start_new_session=True, stderr=subprocess.PIPE) as process:
        while not list(workplace.glob("part-*/shard-*")) and process.poll() is None:
            time.sleep(0.01)
        send(process.pid, number)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert b"TimeoutError" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert not folder.exists()
    assert list(workplace.glob("part-*/shard-*"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    build_corpus(chosen, tokenizer, tmp_path / "whole", 7, shard_characters=100_000)
    build_corpus(chosen, tokenizer, folder, 7, shard_characters=100_000)
    assert contents(folder) == contents(tmp_path / "whole")
    assert not workplace.exists()


@pytest.mark.slow
def test_a_process_that_is_ended_from_outside_is_told(tmp_path: Path, tiny_teacher_folder: Path) -> None:
    # Words that do not come again, because those that do are not tokenised again.
    generator = random.Random(0)
    words = ("".join(generator.choices("абвгдежзийклмн", k=12)) for _ in range(640_000))
    source = write(tmp_path / "talk.txt", [" ".join(itertools.islice(words, 20)) for _ in range(32_000)])
    chosen = settings(source, processes=2)
    command = [sys.executable, "-c", INTERRUPTED, chosen.model_dump_json(), str(tiny_teacher_folder)]
    with subprocess.Popen([*command, str(tmp_path / "corpus"), "10_000_000"], stderr=subprocess.PIPE) as process:
        # The one that works hardest: it is no helper of the library's, and waits for nothing.
        while process.poll() is None:
            time.sleep(0.01)
            worked = {}
            for child in psutil.Process(process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    worked[child] = child.cpu_times().user
            if max(worked.values(), default=0) > 0.2:
                max(worked, key=lambda child: worked[child]).kill()
                break
        _, errors = process.communicate(timeout=300)
    assert "UserError: corpus: one of 2 tokenising processes was killed" in errors.decode()


@pytest.mark.slow
def test_killed_at_any_moment_it_comes_out_the_same(
    tmp_path: Path, tiny_teacher_folder: Path, texts: list[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    chosen = settings(write(tmp_path / "talk.txt", texts[:400]))
    build_corpus(chosen, tokenizer, tmp_path / "whole", 7, shard_characters=2_000)
    workplace, folder = tmp_path / ".corpus.shards", tmp_path / "corpus"
    command = [sys.executable, "-c", KILLED, chosen.model_dump_json(), str(tiny_teacher_folder), str(folder)]
    for parts in (1, 6):
        # It waits in the middle of the next shard.
        with subprocess.Popen([*command, str(parts)]) as process:
            while len(list(workplace.glob("part-*/shard-*"))) < parts and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not folder.exists()
        assert len(list(workplace.glob("part-*/shard-*"))) == parts
    build_corpus(chosen, tokenizer, folder, 7, shard_characters=2_000)
    assert contents(folder) == contents(tmp_path / "whole")


def test_an_empty_corpus_says_what_was_read_and_leaves_nothing(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = write(tmp_path / "talk.txt", ["", " ", "\u200b"])
    with pytest.raises(UserError, match=r"no text to train on: 3 texts read, 2 of them empty, .* 1 sequences shorter"):
        build_corpus(settings(source), tokenizer, tmp_path / "corpus", seed=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.txt"]


def test_no_held_out_text_is_an_error_unless_none_is_wanted(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = write(tmp_path / "talk.txt", ["Да.", "Кто там?"])
    with pytest.raises(UserError, match=r"corpus\.validation: 0\.001 of 2 texts holds out none"):
        build_corpus(settings(source, validation=0.001), tokenizer, tmp_path / "corpus", seed=1)
    corpus = build_corpus(settings(source, validation=0), tokenizer, tmp_path / "corpus", seed=1)
    assert (len(corpus.train), len(corpus.validation), corpus.validation.lengths.shape) == (2, 0, (0,))


def test_bad_input_in_the_first_file_leaves_nothing(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    (tmp_path / "talk.txt").write_bytes("да\n".encode() + b"\x00")
    with pytest.raises(UserError, match=r"talk\.txt:2: binary data"):
        build_corpus(settings({"path": str(tmp_path / "*.txt")}), tokenizer, tmp_path / "corpus", seed=1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.txt"]


def test_a_place_that_cannot_be_written(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    (tmp_path / "file").write_text("")
    source = write(tmp_path / "talk.txt", ["Кто там?"])
    with pytest.raises(UserError, match="cannot be written"):
        build_corpus(settings(source), tokenizer, tmp_path / "file" / "corpus", seed=1)


def test_loading_what_is_no_corpus(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(UserError, match=r"manifest\.json: cannot be read"):
        load_corpus(tmp_path)
    build_corpus(settings(write(tmp_path / "a.txt", ["Да."]), validation=0), tokenizer, tmp_path / "corpus", seed=1)
    path = tmp_path / "corpus" / "train.arrow"
    for content in (path.read_bytes()[:-50], b"text", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match="no complete corpus"):
            load_corpus(tmp_path / "corpus")
    path.unlink()
    with pytest.raises(UserError, match="no complete corpus"):
        load_corpus(tmp_path / "corpus")


@pytest.mark.data
@pytest.mark.slow
def test_the_reference_corpus(tmp_path: Path, data_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(data_folder / "teacher")
    chosen = CorpusSettings(sources=[{"path": str(data_folder / "corpus" / "movie_dialogues.parquet")}])
    corpus = build_corpus(chosen, tokenizer, tmp_path / "corpus", seed=42)
    total = corpus.manifest["total"]
    assert total["texts"] == 50_853
    assert total["unknown_share"] < 1e-4
    assert 1.5e6 < total["train_tokens"] < 2.5e6
    assert 0.008 < len(corpus.validation) / (len(corpus.train) + len(corpus.validation)) < 0.012
    lengths = corpus.train.lengths
    plan = plan_epoch(lengths, batch_tokens=4096, batches_per_update=8, seed=42, epoch=0)
    assert 1 - lengths.sum() / sum(len(batch) * int(padded_widths(lengths[batch]).max()) for batch in plan) < 0.10
