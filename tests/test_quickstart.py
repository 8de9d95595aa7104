"""docs/quickstart.ipynb: what it tells the reader to run is accepted."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distilrubert.pipeline.options import parser_for

from .notebooks import code_cells, commands_of, program_of

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs/quickstart.ipynb"


def test_it_is_a_clean_notebook() -> None:
    values = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (values["nbformat"], values["nbformat_minor"]) == (4, 5)
    assert values["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in values["cells"]}) == len(values["cells"])
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in values["cells"])
    assert [tags for _, tags in code_cells(NOTEBOOK) if tags] == [["parameters"]]


def test_its_links_lead_somewhere() -> None:
    values = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    text = "".join("".join(cell["source"]) for cell in values["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#\s]+)\)", text)
    assert links
    assert [link for link in links if not (NOTEBOOK.parent / link).exists()] == []


@pytest.mark.parametrize("command", [line for line in commands_of(NOTEBOOK) if line.startswith("distilrubert ")])
def test_its_commands_are_accepted(command: str) -> None:
    parser_for("distilrubert").parse_args(command.replace("{SIZE}", "base").split()[1:])


def test_a_program_runs_cells_in_one_namespace(tmp_path: Path) -> None:
    cells = [("NAME = 'ä'\nOTHER = 1", ["parameters"]), ('if OTHER:\n    !echo "{NAME}\'s {OTHER}" > said.txt', [])]
    notebook = tmp_path / "a.ipynb"
    code = [
        {"cell_type": "code", "source": source.splitlines(keepends=True), "metadata": {"tags": tags}}
        for source, tags in cells
    ]
    notebook.write_text(json.dumps({"cells": code}), encoding="utf-8")
    subprocess.run([sys.executable, "-c", program_of(notebook, {"OTHER": 2})], cwd=tmp_path, check=True)
    assert (tmp_path / "said.txt").read_text(encoding="utf-8") == "ä's 2\n"
    with pytest.raises(AssertionError, match="no parameters"):
        program_of(notebook, {"THIRD": 2})
