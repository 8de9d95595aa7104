"""What the checks of a folder find."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distilrubert.common.errors import printable
from distilrubert.pipeline.hub.files import list_files


@dataclasses.dataclass(frozen=True, order=True)
class Problem:
    """Something that must be corrected before a folder is published.

    Attributes:
        path: of the file, relative to the folder.
        message: what is wrong, and what is expected.
    """

    path: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.message}")


class ModelFolder:
    """A folder that is about to be published, as the checks read it.

    Attributes:
        root: the folder.
        paths: its files, relative, with forward slashes, sorted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = [path.relative_to(root).as_posix() for path in list_files(root)]

    def __contains__(self, path: str) -> bool:
        return path in self.paths

    def __truediv__(self, path: str) -> Path:
        return self.root / path

    def ending(self, *suffixes: str) -> list[str]:
        """The files whose names end with one of the suffixes."""
        return [path for path in self.paths if path.endswith(suffixes)]

    def json(self, path: str) -> Any:
        """The content of a JSON file; None where it is missing or broken, which another check reports."""
        try:
            return json.loads((self / path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def json_object(self, path: str) -> dict[str, Any]:
        """The content of a JSON file with an object; empty where it is missing, broken, or something else."""
        value = self.json(path)
        return value if isinstance(value, dict) else {}


def render_problems(problems: Iterable[Problem]) -> str:
    """One line each."""
    return "\n".join(map(str, problems))


def first_line(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
