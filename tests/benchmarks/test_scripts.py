"""Every script under benchmarks/ can be imported, and a measuring process that dies ends the measurement."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.rglob("*.py"))


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own, with the folder of each script on the path, as when the script is run."""
    folders = [str(folder) for folder in dict.fromkeys(script.parent for script in SCRIPTS)]
    begin = f"import sys; sys.path[:0] = {folders}\n"
    return subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, check=False)


def test_each_can_be_imported_and_has_a_name_of_its_own() -> None:
    names = [script.stem for script in SCRIPTS]
    assert len(set(names)) == len(names)
    done = python("\n".join(f"import {name}; print({name}.__file__)" for name in names))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(script) for script in SCRIPTS]


def test_a_case_that_dies_ends_the_measurement_of_vocabularies() -> None:
    done = python("import argparse, vocabularies; vocabularies.run('match', argparse.Namespace(threads=1, shape='no'))")
    assert done.stderr.splitlines()[-1].endswith("speed of match: the measuring process died: KeyError: 'no'")
