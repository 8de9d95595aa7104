"""Checks of every file by its name, size and content: nothing that harms its users or its publisher."""

import re
import zipfile
from collections.abc import Iterator

import huggingface_hub

from distilrubert.pipeline.hub.files import ModelFolder
from distilrubert.pipeline.statement import Statement, first_line, problem

# huggingface.co/docs/hub/storage-limits
LARGEST_FILE = 50 * 10**9
LONGEST_NAME = 255

PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5")
TEXT_SUFFIXES = (
    ".bib",
    ".css",
    ".csv",
    ".html",
    ".js",
    ".json",
    ".jsonl",
    ".md",
    ".py",
    ".txt",
    ".xml",
    ".yaml",
    ".yml",
)
# Lists of tokens: a token like "/home/x" is not a path.
VOCABULARIES = ("tokenizer.json", "vocab.txt")
SECRETS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an API key": r"\bsk-[A-Za-z0-9_-]{32,}",
    "a Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{20,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/~$}<-])(?:file://)?"
    r"(?:/(?:content|data|home|kaggle|media|mnt|opt|private|root|scratch|srv|tmp|Users|var|work|workspace)/[\w.@+-]+"
    r"|[A-Za-z]:\\\\?(?:Users|Documents|data|temp|work)\b)"
)


def check_files(folder: ModelFolder) -> Iterator[Statement]:
    """Limits of the Hub, links, leftovers, pickles, secrets and absolute paths."""
    for path in folder.paths:
        if (folder / path).is_symlink():
            yield problem(path, "is a link; put a copy of the file or folder in its place")
            continue
        yield from _check_name_and_size(folder, path)
        yield from _check_pickle(folder, path)
        if path.endswith(TEXT_SUFFIXES):
            yield from _check_text(folder, path)


def _check_name_and_size(folder: ModelFolder, path: str) -> Iterator[Statement]:
    size = (folder / path).stat().st_size
    if size > LARGEST_FILE:
        yield problem(path, f"has {size / 10**9:.0f} GB; the Hub takes at most {LARGEST_FILE // 10**9} GB in one file")
    if size == 0:
        yield problem(path, "is empty")
    parts = path.split("/")
    if any(len(part.encode()) > LONGEST_NAME or not part.isprintable() for part in parts):
        yield problem(path, f"has a name that some systems refuse; use at most {LONGEST_NAME} printable bytes")
    if path != ".gitattributes" and (parts[-1].startswith(".") or parts[-1].endswith(("~", ".tmp", ".lock", ".part"))):
        yield problem(path, "looks like a leftover; remove it")


def _check_pickle(folder: ModelFolder, path: str) -> Iterator[Statement]:
    if path.endswith(PICKLE_SUFFIXES) or re.search(r"pytorch_model.*\.bin$", path):
        yield problem(path, "can run code when it is loaded; publish safetensors instead")
        return
    with (folder / path).open("rb") as file:
        start = file.read(2)
        is_pickle = start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")
        if is_pickle:
            file.seek(-1, 2)
            is_pickle = file.read(1) == b"."
    if start == b"PK" and zipfile.is_zipfile(folder / path):
        with zipfile.ZipFile(folder / path) as archive:
            is_pickle = any(name.endswith(".pkl") for name in archive.namelist())
    if is_pickle:
        yield problem(path, "is a pickle, which can run code when it is loaded; publish safetensors instead")


def _check_text(folder: ModelFolder, path: str) -> Iterator[Statement]:
    try:
        text = (folder / path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        yield problem(path, f"is not UTF-8: {first_line(error)}")
        return
    yield from find_secrets(path, text)
    if not path.endswith(VOCABULARIES):
        yield from find_absolute_paths(path, text)


def find_secrets(path: str, text: str) -> Iterator[Statement]:
    """Each line that contains something like a secret, or the token in use. The secret is not repeated."""
    token = huggingface_hub.get_token()
    patterns = SECRETS | ({"the token that is in use": re.escape(token)} if token else {})
    for kind, pattern in patterns.items():
        if match := re.search(pattern, text):
            line = text.count("\n", 0, match.start()) + 1
            yield problem(path, f"contains {kind} in line {line}; remove it, and revoke it if it is real")


def find_absolute_paths(path: str, text: str) -> Iterator[Statement]:
    """The first path that exists on the publisher's machine alone."""
    if match := ABSOLUTE_PATH.search(text):
        line = text.count("\n", 0, match.start()) + 1
        yield problem(path, f"contains the path {match[0]}… in line {line}; other machines do not have it")
