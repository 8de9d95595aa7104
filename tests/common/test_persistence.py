import itertools
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import (
    LEFTOVER_AGE_S,
    atomic_file,
    atomic_folder,
    read_json,
    replace_folder,
    sha256_of,
    write_json,
    write_text,
)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=600
    )


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def make_old(path: Path) -> None:
    then = time.time() - LEFTOVER_AGE_S - 60
    os.utime(path, (then, then))


def test_a_file_appears_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "report.json"
    with atomic_file(target) as beside:
        beside.write_text("whole")
        assert not target.exists()
        assert beside.parent == target.parent
    assert target.read_text() == "whole"
    assert names(target.parent) == ["report.json"]


def test_a_folder_on_another_disk_stays_there(tmp_path: Path) -> None:
    large, link = tmp_path / "large" / "student", tmp_path / "run" / "student"
    large.mkdir(parents=True)
    (large / "old").write_text("old")
    link.parent.mkdir()
    link.symlink_to(large)
    with atomic_folder(link) as beside:
        assert beside.parent == large.parent
        (beside / "new").write_text("new")
    assert link.is_symlink()
    assert names(large) == ["new"]
    assert names(link.parent) == names(large.parent) == ["student"]


def test_a_failing_block_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    target.write_text("old")

    def fail() -> None:
        with atomic_file(target) as beside:
            beside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_an_interrupt_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("old")

    def interrupt() -> None:
        with atomic_folder(target) as beside:
            (beside / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("method", "number", "left"), [("mkdir", 1, "old"), ("rename", 1, "old"), ("rename", 2, "new")]
)
def test_an_interrupt_right_after_a_call_leaves_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int, left: str
) -> None:
    """Python raises a KeyboardInterrupt between a call, which has made or moved a folder, and the line after it."""
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("old")
    real, calls = getattr(Path, method), itertools.count(1)

    def call(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        if next(calls) == number:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Path, method, call)
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as beside:
        (beside / "a").write_text("new")
    assert (target / "a").read_text() == left
    # The old folder, which had been moved out of the way, goes with a later write.
    assert len(names(tmp_path)) == (1 if left == "old" else 2)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "only-in-the-old").write_text("")
    with atomic_folder(target) as beside:
        (beside / "sub").mkdir()
        (beside / "sub" / "new").write_text("new")
        assert names(target) == ["only-in-the-old"]
    assert names(target) == ["sub"]
    assert (target / "sub" / "new").read_text() == "new"
    assert names(tmp_path) == ["model"]


def test_a_swap_that_fails_brings_the_old_folder_back(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("old")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "never-made", target)
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_folder_does_not_take_the_place_of_a_file(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_text("a file")
    with pytest.raises(UserError, match=r"model: cannot be written: Not a directory"), atomic_folder(target) as beside:
        (beside / "a").write_text("")
    assert target.read_text() == "a file"
    assert names(tmp_path) == ["model"]


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(UserError, match=r"report\.json: cannot be written: Is a directory"):
        write_text(tmp_path / "report.json", "text")
    assert names(tmp_path) == ["report.json"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_sigkill_leaves_the_target_as_it_was(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "checkpoint-10"
    if kind == "folder":
        target.mkdir()
        (target / "weights").write_text("old")
    else:
        target.write_text("old")
    killed = run(f"""
        import os, signal
        from distilrubert.common.persistence import atomic_{kind}
        with atomic_{kind}({str(target)!r}) as beside:
            (beside / "weights" if {kind!r} == "folder" else beside).write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert killed.returncode == -9
    assert (target / "weights" if kind == "folder" else target).read_text() == "old"
    assert list(tmp_path.glob("checkpoint-*")) == [target]
    (leftover,) = [path for path in tmp_path.iterdir() if path != target]

    write = f"""
        from distilrubert.common.persistence import atomic_{kind}
        with atomic_{kind}({str(target)!r}) as beside:
            (beside / "weights" if {kind!r} == "folder" else beside).write_text("new")
    """
    assert run(write).returncode == 0
    assert leftover.exists()  # it might be a living writer's
    make_old(leftover)
    assert run(write).returncode == 0
    assert names(tmp_path) == ["checkpoint-10"]
    assert (target / "weights" if kind == "folder" else target).read_text() == "new"


def test_leftovers_stay_while_they_may_be_the_only_copy(tmp_path: Path) -> None:
    old = tmp_path / ".model.0123abcd.tmp"
    old.mkdir()
    make_old(old)
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "model"):
        _ = 1 / 0
    assert old.exists()


def test_only_leftovers_of_the_same_target_are_swept(tmp_path: Path) -> None:
    others = [tmp_path / ".model2.0123abcd.tmp", tmp_path / ".model.tmp", tmp_path / "model.0123abcd.tmp"]
    for other in others:
        other.write_text("")
        make_old(other)
    write_text(tmp_path / "model", "text")
    assert all(other.exists() for other in others)


@pytest.mark.parametrize(
    "write",
    [
        "beside.write_bytes(bytes(5000))",
        "save_file({'weight': torch.zeros(5000)}, beside)",
        "torch.save(torch.zeros(5000), beside)",
        # Several times as much as is buffered, or the error comes as the file is closed.
        "np.zeros(50_000).tofile(beside)",
    ],
)
def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path: Path, write: str) -> None:
    target = tmp_path / "weights"
    target.write_text("old")
    full = run(f"""
        import resource, torch
        import numpy as np
        from safetensors.torch import save_file
        from distilrubert.common.errors import UserError
        from distilrubert.common.persistence import atomic_file
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            with atomic_file({str(target)!r}) as beside:
                {write}
        except UserError as error:
            print(error)
    """)
    assert full.returncode == 0, full.stderr
    assert full.stdout.startswith(f"{target}: cannot be written: ")
    assert full.stdout.count("\n") == 1
    # NumPy itself names no reason.
    assert ("is the disk full?" in full.stdout) == ("tofile" in write)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["weights"]


def test_a_file_in_the_way_of_the_parent_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with (
        pytest.raises(UserError, match=r"runs/demo/model: cannot be written"),
        atomic_folder(tmp_path / "runs/demo/model"),
    ):
        pytest.fail("the block must not run")


def test_what_could_not_be_read_in_the_block_is_named(tmp_path: Path) -> None:
    reported = pytest.raises(UserError, match=r"target: cannot be written: .*/absent\.txt: No such file")
    with reported, atomic_file(tmp_path / "target"):
        (tmp_path / "absent.txt").read_text()


def test_other_errors_of_the_block_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"), atomic_file(tmp_path / "target"):
        raise RuntimeError("shape mismatch")


def test_json_round_trip_keeps_cyrillic_readable(tmp_path: Path) -> None:
    value = {"имя": "ёж", "figures": [1, 2.5, None, True]}
    write_json(tmp_path / "report.json", value)
    assert read_json(tmp_path / "report.json") == value
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "ёж" in text
    assert text.endswith("}\n")


def test_nan_is_refused_and_the_old_report_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "report.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "report.json", {"loss": float("nan")})
    assert read_json(tmp_path / "report.json") == {"loss": 1.0}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b""])
def test_broken_json_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(UserError, match=r"report\.json: is no JSON"):
        read_json(tmp_path / "report.json")


def test_missing_json_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.json: cannot be read: No such file or directory"):
        read_json(tmp_path / "absent.json")


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
