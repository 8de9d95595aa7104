"""The commands of docs/publishing.md that start a Hub to try with."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distilrubert.pipeline.hub.publish_settings import PublishSettings

from .conftest import HASTY
from .server import ACCOUNTS
from .survival import push_once

ROOT = Path(__file__).parents[2]


def test_a_hub_of_ones_own(folder: Path, target: PublishSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().removeprefix("A Hub listens on ").partition(". ")[0]
        tokens = dict(process.stdout.readline().split() for _ in ACCOUNTS)
        monkeypatch.setenv("HF_TOKEN", tokens["me"])
        assert push_once(folder, target, endpoint, HASTY).changed
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
