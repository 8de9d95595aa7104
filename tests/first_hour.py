"""The first hour of a new user, in an empty environment: ``python tests/first_hour.py [FOLDER]``.

What README.md and docs/quickstart.ipynb tell the reader to type is typed, in that order: from ``git clone`` over the
demo and a recipe of one's own to a model and its Space on a Hub of this machine. Packages come from where pip finds
them. Not as in the text: the teacher of the quickstart is the demo's, which the local Hub has under the other one's id;
the texts are the demo's; and the tests, which have targets of their own, are not run.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from notebooks import program_of

ROOT = Path(__file__).parents[1]
NOTEBOOK = "docs/quickstart.ipynb"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What stands in README.md, and what is typed for it.
REPLACED = {"make test\n": "", "/data/dialogues ": "dialogues "}
TEACHER = ("cointegrated/rubert-tiny2", "runs/demo/teacher")
REPO_ID = "me/first"
# The folder and the file that README.md calls the user's own.
TEXTS = """
import pandas, pathlib
lines = pathlib.Path("recipes/demo/dialogues.txt").read_text("utf-8").splitlines()
texts = pandas.DataFrame({"text": [line for line in lines if line]})
pathlib.Path("dialogues").mkdir()
texts.to_parquet("dialogues/texts.parquet")
texts.to_csv("dialogues.csv", index=False)
"""
PUBLISHED = """
import sys
from huggingface_hub import HfApi
for kind, needed in (("model", "onnx/masked_lm_quantized.onnx"), ("space", "index.html")):
    assert needed in HfApi().list_repo_files(sys.argv[1], repo_type=kind), kind
"""


class Newcomer:
    """Somebody with a clone, a shell and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "distilrubert"
        kept = {"HOME", "LANG", "LC_ALL", "OMP_NUM_THREADS", "PATH", "TERM", "TMPDIR"}
        # pip may have been told of a mirror, and of a proxy.
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name in kept or name.lower().startswith("pip_") or name.lower().endswith("_proxy")
        }
        self.environment["HF_HOME"] = str(folder / "cache")
        self._began = time.monotonic()

    def clone_project(self) -> None:
        """Clone the newest commit."""
        self._run(["git", "clone", "--quiet", str(ROOT), str(self.clone)], ROOT)

    def activate(self) -> None:
        """Put the environment of the clone first on PATH."""
        self.environment["PATH"] = f"{self.clone / '.venv/bin'}{os.pathsep}{self.environment['PATH']}"

    def type(self, lines: str) -> None:
        """Type lines into one shell, which ends at the first that fails."""
        self._run(["bash", "-exc", lines], self.clone)

    def python(self, code: str, *arguments: str) -> None:
        """Run code in the environment of the clone."""
        self._run([str(self.clone / ".venv/bin/python"), "-c", code, *arguments], self.clone)

    def blocks(self, language: str) -> list[str]:
        """The code of README.md in a language, as it is typed."""
        text = (self.clone / "README.md").read_text(encoding="utf-8")
        for written, typed in REPLACED.items():
            assert text.count(written) == 1, f"README.md: {written!r} is not there once"
            text = text.replace(written, typed)
        return [block[2] for block in BLOCK.finditer(text) if block[1] == language]

    def say(self, what: str) -> None:
        """Print what is done next, and when."""
        sys.stdout.write(f"{(time.monotonic() - self._began) / 60:.1f} minutes: {what}\n")
        sys.stdout.flush()

    def _run(self, command: Sequence[str], folder: Path) -> None:
        subprocess.run(command, cwd=folder, env=self.environment, check=True)


@contextlib.contextmanager
def hub_of(user: Newcomer) -> Iterator[None]:
    """A Hub on this machine, which the user is logged in to and which has the teacher."""
    command = [str(user.clone / ".venv/bin/python"), "-m", "tests.hub", "--port", "0", "--model", *TEACHER]
    process = subprocess.Popen(command, cwd=user.clone, env=user.environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = re.fullmatch(r"A Hub listens on (\S+)\. Its tokens:\n", process.stdout.readline())
        name, token = process.stdout.readline().split()
        assert address
        assert name == REPO_ID.partition("/")[0]
        user.environment |= {"HF_ENDPOINT": address[1], "HF_TOKEN": token}
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


def spend(folder: Path) -> None:
    """Spend the hour in an empty folder."""
    user = Newcomer(folder)
    user.say("git clone")
    user.clone_project()
    demo, *others = user.blocks("bash")
    user.say("README.md: the demo")
    user.type(demo)
    (snippet,) = user.blocks("python")
    user.python(snippet)
    user.activate()
    user.python(TEXTS)
    with hub_of(user):
        user.say("README.md: other recipes")
        for block in others:
            user.type(block)
        user.say(NOTEBOOK)
        user.python(program_of(user.clone / NOTEBOOK, {"REPO_ID": REPO_ID}))
        user.python(PUBLISHED, REPO_ID)
    user.say("all went as the documentation says")


def main() -> int:
    """Spend it in a folder that is given, or in a temporary one."""
    # A shell that starts this in the background leaves it deaf to Ctrl-C, and with it the Hub that is ended so.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if len(sys.argv) > 1:
            folder = Path(sys.argv[1]).resolve()
            folder.mkdir(parents=True)
            spend(folder)
        else:
            with tempfile.TemporaryDirectory() as temporary:
                spend(Path(temporary))
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"first hour: exit status {error.returncode} of {' '.join(map(str, error.cmd))[:300]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
