"""The token is found in no output, log, traceback, file or URL."""

import base64
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from .faults import Fault
from .server import ACCOUNTS, LocalHub

PROGRAM = """
import logging, sys
from pathlib import Path
logging.basicConfig(level=sys.argv[4])
from huggingface_hub import constants, logging as hub_logging
hub_logging.set_verbosity_debug()
from distilrubert.pipeline.hub.connection import RetryPolicy, connect
from distilrubert.pipeline.hub.plan import plan_push, render_plan
from distilrubert.pipeline.hub.push import push, render_publication
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.verify import render_verification, verify_push
settings = PublishSettings(repo_id="me/demo", tag="v1")
connection = connect(settings, sys.argv[2], RetryPolicy(attempts=int(sys.argv[3]), first_wait_s=0.01))
print(connection, settings)
plan = plan_push(Path(sys.argv[1]), settings, connection)
print(plan, render_plan(plan), plan.to_dict())
publication = push(plan, connection)
print(publication, render_publication(publication))
print(render_verification(verify_push(plan.digests, connection, publication.revision)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["published", "refused", "broken"])
def test_a_canary_is_seen_nowhere(local_hub: LocalHub, folder: Path, tmp_path: Path, case: str) -> None:
    # httpcore logs the answers' headers at DEBUG; in the case where the Hub quotes the token, they hold it.
    level = "INFO" if case == "refused" else "DEBUG"
    canary = "hf_" + "CanaryOfTheLocalHubThatNobodySees"
    home = tmp_path / "home"
    (home / "tmp").mkdir(parents=True)
    local_hub.invalid_token_message = "No such token: TOKEN"
    if case != "refused":
        local_hub.storage.accounts[canary] = ACCOUNTS["me"]
    if case == "broken":
        local_hub.fail(Fault.SERVER_ERROR, 0, count=1000, path="/commit/")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {
        "HF_TOKEN": canary, "HF_HOME": str(home), "TMPDIR": str(home / "tmp"), "HF_DEBUG": "1",
        "HF_HUB_DISABLE_XET": "1", "PYTHONFAULTHANDLER": "1",
    }  # fmt: skip
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), local_hub.endpoint, "2", level],
        env=environment, cwd=home, capture_output=True, timeout=600,
    )  # fmt: skip
    output = found.stdout + found.stderr
    assert (found.returncode == 0) is (case == "published"), output.decode()
    assert (b"UserError: " in output) is (case != "published"), "there is a traceback to look into"
    assert b"http://127.0.0.1" in output, "there is a log to look into"
    seen = [output, repr(local_hub.requests).encode()]
    for place in (home, folder, tmp_path / "hub-storage"):
        seen += [str(path).encode() for path in place.rglob("*")]
        seen += [path.read_bytes() for path in place.rglob("*") if path.is_file()]
    for repository in local_hub.storage.repositories.values():
        for commit in repository.commits.values():
            seen += [f"{commit.title} {commit.message} {commit.author}".encode()]
            seen += [entry.content for entry in commit.tree.values()]
    for form in (canary, quote(canary), base64.b64encode(canary.encode()).decode(), canary[3:]):
        leaks = [text for text in seen if form.encode() in text]
        assert not leaks, [line for line in leaks[0].splitlines() if form.encode() in line]
