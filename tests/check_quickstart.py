"""docs/quickstart.ipynb runs to its end: ``make test-quickstart``, as it takes longer than the tests should.

On a small teacher and the demo's texts, with a Hub of this machine. ``make first-hour`` runs it on the demo itself.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distilrubert.modeling.teacher import new_teacher, save_teacher
from distilrubert.modeling.wordpiece import train_wordpiece
from distilrubert.pipeline.cli import main

from .hub.conftest import local_hub  # noqa: F401
from .hub.server import LocalHub
from .notebooks import program_of

ROOT = Path(__file__).parents[1]


@pytest.fixture
def small_recipe(sentences: list[str], tmp_path: Path) -> Path:
    """What the notebook's init would write for a small teacher, but for a few updates, and speed measured once."""
    tokenizer = train_wordpiece(sentences, size=220, max_length=64).tokenizer
    save_teacher(new_teacher(tokenizer, layers=2, dim=32, heads=4, hidden_dim=64, seed=7), tmp_path / "teacher")
    made, recipe = tmp_path / "made.yaml", tmp_path / "first.yaml"
    corpus = str(ROOT / "recipes/demo/dialogues.txt")
    assert main(["init", "--teacher", str(tmp_path / "teacher"), "--corpus", corpus, "--output", str(made)]) == 0
    values = yaml.safe_load(made.read_text(encoding="utf-8"))
    values["distillation"]["max_steps"] = 5
    values["conversion"]["openvino"] = []
    values["evaluation"]["speed"] |= {"starts": 1, "rounds": 1, "minimum_time_s": 0}
    values["evaluation"]["intrinsic"] = {"sequences": 20, "sentences": 3}
    recipe.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return recipe


def test_it_runs_up_to_the_space(
    local_hub: LocalHub,  # noqa: F811
    small_recipe: Path,
    tmp_path: Path,
) -> None:
    # A recipe that is there is not written again.
    program = program_of(ROOT / "docs/quickstart.ipynb", {"REPO_ID": "me/first"})
    own = {"HF_ENDPOINT": local_hub.endpoint, "HF_TOKEN": local_hub.tokens["me"], "HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", program], cwd=small_recipe.parent, env=os.environ | own, check=True)
    model, space = (local_hub.storage.repositories[name].tree().keys() for name in ("me/first", "spaces/me/first"))
    assert {"README.md", "model.safetensors", "onnx/masked_lm_quantized.onnx"} <= model
    assert {"README.md", "index.html", "page.js"} <= space
    assert (tmp_path / "runs/first/page/index.html").is_file()
