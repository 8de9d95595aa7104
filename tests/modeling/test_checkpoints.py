import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from distilrubert.common.errors import UserError
from distilrubert.modeling.checkpoints import quiet_transformers
from distilrubert.modeling.downloads import checkpoint_folder


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert checkpoint_folder(tmp_path) == tmp_path
    assert checkpoint_folder(str(tmp_path), "any-revision") == tmp_path


@pytest.mark.parametrize("model", ["./absent", "/absent/teacher", "~/absent-teacher", "runs/demo/teacher"])
def test_a_path_that_is_not_there_is_no_hub_id(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where `make demo` has not made one of them.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        checkpoint_folder(model)


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"model\.safetensors: is a file"):
        checkpoint_folder(tmp_path / "model.safetensors")


@pytest.mark.parametrize("model", ["a b", "--", "name..twice/x"])
def test_a_malformed_id_is_refused(model: str) -> None:
    with pytest.raises(UserError, match=r"well-formed Hub id|no such folder"):
        checkpoint_folder(model)


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(UserError, match="name of the model is empty"):
        checkpoint_folder("")


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    code = """
from distilrubert.modeling.teacher import load_teacher
from distilrubert.common.errors import UserError
try:
    load_teacher("someone/teacher", "v1")
except UserError as error:
    print(error)
"""
    # Nothing listens on port 9 of this machine; the client's settings are read once, so it needs its own process.
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("someone/teacher (revision v1): no such folder, not complete in the cache")


def test_transformers_speaks_again_afterwards() -> None:
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.enable_progress_bar()
    with quiet_transformers():
        assert transformers.utils.logging.get_verbosity() == transformers.logging.ERROR
        assert not transformers.utils.logging.is_progress_bar_enabled()
    assert transformers.utils.logging.get_verbosity() == before
    assert transformers.utils.logging.is_progress_bar_enabled()
