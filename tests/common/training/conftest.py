import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("training_worker.py")


@pytest.fixture(scope="session")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Runs a scenario of training_worker.py in a new folder; gives its results, and what was said on standard error."""

    def play(name: str, **environment: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, str(WORKER), name, str(folder)]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        return {**json.loads((folder / "results.json").read_text()), "stderr": done.stderr}

    return play
