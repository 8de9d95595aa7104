"""The commands of docs/publishing.md that start a Hub to try with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from distilrubert.pipeline.hub.publish_settings import PublishSettings

from .conftest import HASTY
from .server import ACCOUNTS
from .storage import GITATTRIBUTES
from .survival import push_once

ROOT = Path(__file__).parents[2]


def test_a_hub_of_ones_own(
    folder: Path, target: PublishSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "tests.hub", "--port", "0", "--model", "them/theirs", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().removeprefix("A Hub listens on ").partition(". ")[0]
        tokens = dict(process.stdout.readline().split() for _ in ACCOUNTS)
        monkeypatch.setenv("HF_TOKEN", tokens["me"])
        assert push_once(folder, target, endpoint, HASTY).changed
        theirs = HfApi(endpoint, token=False).snapshot_download("them/theirs", cache_dir=tmp_path / "cache")
        found, own = (
            {path.relative_to(at).as_posix(): path.read_bytes() for path in at.rglob("*") if path.is_file()}
            for at in (Path(theirs), folder)
        )
        assert found == {**own, ".gitattributes": GITATTRIBUTES}
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 0
