"""The rules of the house: the borders between the rooms, and what is packaged."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from distilrubert.common.formats import CHECKPOINT, FORMATS
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.writers import WRITERS
from distilrubert.modeling.runtimes import OPENERS

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "modeling", "distill", "conversion", "evaluation", "model_card", "pipeline")
ALLOWED = {
    "common": set(),
    "modeling": {"common"},
    "distill": {"common", "modeling"},
    "conversion": {"common", "modeling"},
    "evaluation": {"common", "modeling"},
    "model_card": {"common"},
    "pipeline": set(ROOMS) - {"pipeline"},
}
EXPORT_PACKAGES = {"optimum", "onnx", "onnxruntime", "openvino", "nncf"}


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; the house imports absolutely"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_the_rooms_below(room):
    for path in modules(room):
        used = {name.split(".")[1] for name in imports(path) if name.startswith("distilrubert.")} & set(ROOMS)
        assert used - {room} <= ALLOWED[room], (
            f"{path.relative_to(ROOT)} imports {sorted(used - ALLOWED[room] - {room})}"
        )


@pytest.mark.parametrize("room", ROOMS)
def test_export_packages_are_imported_lazily(room):
    for path in modules(room):
        used = {name.split(".")[0] for name in imports(path, top_level_only=True)} & EXPORT_PACKAGES
        assert not used, f"{path.relative_to(ROOT)} imports {sorted(used)} at its top"


def test_publish_imports_only_the_pipeline():
    assert {name for name in imports(ROOT / "publish.py") if name.startswith("distilrubert")} <= {
        "distilrubert.pipeline.cli",
        "distilrubert.pipeline.cli.main",
    }


def test_nothing_asks_for_remote_code_or_unsafe_pickles():
    for path in [p for room in ROOMS for p in modules(room)]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            function = ast.unparse(node.func)
            # Left open, transformers asks at the terminal whether to run a checkpoint's own code.
            unless_said = "None" if re.fullmatch(r"(Auto\w+|auto_class)\.from_pretrained", function) else "False"
            assert keywords.get("trust_remote_code", unless_said) == "False", f"{path}:{node.lineno}"
            if function == "torch.load":
                assert keywords.get("weights_only") == "True", f"{path}:{node.lineno} unpickles"


def test_every_package_is_listed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"distilrubert"}
    for room in ROOMS:
        for init in (ROOT / room).rglob("__init__.py"):
            found.add(".".join(("distilrubert", *init.parent.relative_to(ROOT).parts)))
    assert listed == found


def test_no_two_modules_have_one_name():
    names = [path.name for room in ROOMS for path in modules(room) if not path.name.startswith("__")]
    assert {name for name in names if names.count(name) > 1} == set()


def test_no_test_file_imports_another():
    """What several need is in a file of its own."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert not re.search(r"^from \S*\btest_\w+ import", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_every_file_format_can_be_written_opened_and_asked_for():
    assert FORMATS.keys() == WRITERS.keys()
    assert {entry.runtime for entry in FORMATS.values()} == OPENERS.keys()
    for entry in FORMATS.values():
        settings = ConversionSettings(**{"onnx": [], entry.runtime: [entry.name]}) if entry != CHECKPOINT else None
        assert settings is None or settings.cases == [entry.case]
    paths = [path for entry in FORMATS.values() for path in entry.paths]
    assert len(set(paths)) == len(paths)


def test_no_folder_shadows_the_namespace():
    assert not (ROOT / "distilrubert").exists(), "a folder named distilrubert at the root hides the mapped package"


def test_type_checkers_see_every_room():
    for room in ROOMS:
        assert (ROOT / "typings" / "distilrubert" / room).resolve() == ROOT / room


def test_imports_from_any_folder(tmp_path):
    code = "import distilrubert.modeling as m, pathlib; print(pathlib.Path(m.__file__).parent)"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True
    )
    assert Path(shown.stdout.strip()).resolve() == ROOT / "modeling"
