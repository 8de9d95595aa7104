"""Progress bars: for somebody who watches, and for nobody else."""

import os
import pty
import re
import subprocess
import sys
import termios
import types

import pytest

from distilrubert.common import bars

CODE = """
import logging
from distilrubert.common.bars import progress_bar, tracked
logging.getLogger("distilrubert").addHandler(logging.StreamHandler())
total = sum(tracked([1, 2, 3], "counting", unit="number"))
with progress_bar("reading", 4096, unit="byte", done=1024, in_bytes=True) as bar:
    logging.getLogger("distilrubert").warning("a line")
    bar.update(3072)
print(total)
"""


def run(*, terminal: bool, **environment: str) -> tuple[str, str]:
    """Standard output and error of the program."""
    watched, end = pty.openpty() if terminal else os.pipe()
    if terminal:
        termios.tcsetwinsize(end, (24, 100))
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=end, text=True, check=True, env=os.environ | environment
    )
    os.close(end)
    said = b""
    try:
        while part := os.read(watched, 65536):
            said += part
    except OSError:  # the other end of a terminal is closed
        pass
    os.close(watched)
    return done.stdout, said.decode()


def test_a_terminal_shows_bars_with_the_log_above_them() -> None:
    out, said = run(terminal=True)
    assert out == "6\n"
    assert "counting:   0%" in said
    assert "0/3 [00:00<?, ? number/s]" in said
    assert "reading:  25%" in said
    assert "1.02k/4.10k" in said
    # The line of the log has a row of its own, and no bar is left in the end.
    assert re.search(r"\r *\ra line\r\n", said)
    assert re.search(r"\r *\r$", said)


@pytest.mark.parametrize("environment", [{}, {"RANK": "0"}])
def test_a_log_file_gets_none(environment: dict[str, str]) -> None:
    out, said = run(terminal=False, **environment)
    assert out == "6\n"
    assert said == "a line\n"


def test_one_process_of_a_launch_shows_them() -> None:
    assert "counting" not in run(terminal=True, RANK="1")[1]


def test_a_notebook_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not bars.is_shown()
    shell = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert not bars.is_shown(), "a shell of IPython is a terminal, or not"
    shell.kernel = object()
    assert bars.is_shown()
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert list(bars.tracked(iter("ab"), "letters", unit="letter", total=2)) == ["a", "b"]


def test_items_that_are_not_taken_are_not_read() -> None:
    taken = iter(bars.tracked(iter(range(5)), "numbers", unit="number"))
    assert next(taken) == 0
    taken.close()
