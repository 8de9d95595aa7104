"""Publishing with Xet on and off, as each client decides; a process each, since hf_xet reads its settings once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .faults import Fault
from .server import LocalHub

pytest.importorskip("hf_xet")

PROGRAM = """
import json, os, sys
from pathlib import Path
from distilrubert.common.errors import UserError
from distilrubert.pipeline.hub.connection import RetryPolicy
from distilrubert.pipeline.hub.push import push_folder
from distilrubert.pipeline.hub.publish_settings import PublishSettings
folder, settings = Path(sys.argv[1]), PublishSettings(repo_id="me/demo")
for number in range(2):
    try:
        found = push_folder(folder, settings, sys.argv[2], RetryPolicy(attempts=3, first_wait_s=0.01)).to_dict()
    except UserError as error:
        found = {"error": str(error)}
    print(json.dumps(found))
    (folder / "large.bin").write_bytes(os.urandom(200_000) + bytes(200_000))
"""


def publish_twice(
    hub: LocalHub, folder: Path, home: Path, *, disable: str = "0", who: str = "me"
) -> list[dict[str, object]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "HF_TOKEN": hub.tokens[who], "HF_HOME": str(home), "HF_HUB_DISABLE_XET": disable,
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
    }  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), hub.endpoint],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert hub.tokens[who] not in found.stdout + found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("disable", ["0", "1"], ids=["on", "off"])
def test_both_ways_publish_the_same(local_hub: LocalHub, folder: Path, tmp_path: Path, disable: str) -> None:
    local_hub.has_xet = True
    results = publish_twice(local_hub, folder, tmp_path / "home", disable=disable)
    assert [result.get("changed") for result in results] == [True, True], results
    sent_as_xorb = [name.startswith("xorb-") for name in local_hub.uploads]
    assert sent_as_xorb == [disable == "0"] * 2
    tree = local_hub.storage.repositories["me/demo"].tree()
    weights = local_hub.storage.content(tree["model.safetensors"])
    assert isinstance(weights, Path)
    assert weights.read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_storage_that_fails_for_a_while(local_hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    local_hub.has_xet = True
    plan = local_hub.fail(Fault.SERVER_ERROR, 0, count=2, path="/xorbs/")
    results = publish_twice(local_hub, folder, tmp_path / "home")
    assert plan.fired == 2
    assert [result.get("changed") for result in results] == [True, True], results


@pytest.mark.slow
def test_a_storage_that_stays_broken(local_hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    local_hub.has_xet = True
    repository = local_hub.storage.create("me/demo", "me")
    local_hub.fail(Fault.DROPPED_BEFORE_BODY, 0, count=10**6, path="/xorbs/")
    for result in publish_twice(local_hub, folder, tmp_path / "home"):
        assert "repeat" in str(result["error"])
    assert len(repository.history()) == 1


@pytest.mark.slow
def test_a_token_that_may_not_write(local_hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    local_hub.has_xet = True
    local_hub.storage.create("me/demo", "me")
    for result in publish_twice(local_hub, folder, tmp_path / "home", who="reader"):
        assert "this token is not allowed to do that" in str(result["error"])
