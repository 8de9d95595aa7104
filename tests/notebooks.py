"""A notebook as a plain program: for machines without Jupyter, and for tests.

Cells run in their order in one namespace, as in a kernel. A line that begins with ``!`` is a command of the shell, in
which ``{NAME}`` is a variable; unlike in a kernel, one that fails ends the program. What the cell with the tag
``parameters`` sets can be replaced. What ``IPython.display`` would show has to exist.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

COMMAND = re.compile(r"^(\s*)!(.*)$", re.MULTILINE)
PRELUDE = """
import os as _os, subprocess as _subprocess, sys as _sys, types as _types

_os.environ["PATH"] = _os.path.dirname(_sys.executable) + _os.pathsep + _os.environ["PATH"]


def _run(command):
    print("$", command, flush=True)
    _subprocess.run(command, shell=True, check=True)


def _image(path):
    assert open(path, "rb").read(4) == b"\\x89PNG"


_display = _types.ModuleType("IPython.display")
_display.Image, _display.Markdown, _display.display = _image, str, lambda shown: None
_sys.modules |= {"IPython": _types.ModuleType("IPython"), "IPython.display": _display}
"""


def code_cells(notebook: Path) -> Iterator[tuple[str, list[str]]]:
    """Source and tags of each code cell."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"]), cell["metadata"].get("tags", [])


def commands_of(notebook: Path) -> list[str]:
    """The commands of the shell in a notebook."""
    return [found[2] for source, _ in code_cells(notebook) for found in COMMAND.finditer(source)]


def program_of(notebook: Path, parameters: Mapping[str, Any]) -> str:
    """The program, with some of the parameters replaced."""
    parts = [PRELUDE]
    for source, tags in code_cells(notebook):
        parts.append(COMMAND.sub(lambda found: f"{found[1]}_run(f{found[2]!r})", source))
        if "parameters" in tags:
            unknown = [name for name in parameters if not re.search(rf"^{name} = ", source, re.MULTILINE)]
            assert not unknown, f"{notebook}: no parameters {unknown}"
            parts += [f"{name} = {value!r}" for name, value in parameters.items()]
    return "\n".join(parts)
