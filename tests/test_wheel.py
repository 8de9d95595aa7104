"""The installed package, away from any clone: a wheel is built, unpacked into an empty folder and run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "runs", "node_modules", "__pycache__", "*.egg-info", "typings")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and its metadata, as pip installs them."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: setuptools builds in the source folder, and takes over what an earlier build has left there.
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [*pip, "--disable-pip-version-check", "--target", str(folder / "target"), str(folder / "source")]
    subprocess.run(command, check=True, cwd=folder)
    shutil.rmtree(folder / "source")
    return folder / "target"


def run(installed: Path, here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed package, in a folder that has nothing to do with it."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "distilrubert.pipeline", *arguments]
    return subprocess.run(command, env=environment, cwd=here, capture_output=True, text=True, timeout=600)


def test_it_holds_the_package_alone(installed: Path) -> None:
    package = installed / "distilrubert"
    assert {path.name for path in package.glob("*.py")} == {"__init__.py"}
    assert not any((package / folder).exists() for folder in ("tests", "benchmarks", "docs"))
    expected = {path.name for path in (ROOT / "recipes" / "demo").iterdir()}
    assert {path.name for path in (package / "recipes" / "demo").iterdir()} == expected
    assert (package / "recipes" / "demo.yaml").is_file()
    assert (package / "model_card" / "template.md.jinja").is_file()
    assert (installed / "bin" / "distilrubert").is_file()


def test_help(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "publish", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo.yaml" in done.stdout


def test_a_mistake_in_a_recipe_of_ones_own(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nteacher: {modle: x/y}\n", encoding="utf-8")
    done = run(installed, tmp_path, "publish", "mine.yaml")
    assert done.returncode == 2
    assert "unknown key teacher.modle: did you mean model?" in done.stderr


@pytest.mark.export  # a dry run checks that the packages for its files are there
def test_a_dry_run_of_the_demo(installed: Path, tmp_path: Path) -> None:
    """It is the default recipe, and its texts are found in the package."""
    done = run(installed, tmp_path, "publish", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "student" in done.stdout
    assert list(tmp_path.iterdir()) == []
