"""Publish FOLDER/encoder to a local Hub and run a command there: ``python -m tests.clients.on_hub FOLDER COMMAND …``.

The command finds the Hub in HF_ENDPOINT, the repository in REPO_ID and an empty cache in HF_HOME, and has no token.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.push import push_folder

from ..hub.server import LocalHub

REPO_ID = "me/encoder"


def main(folder: Path, command: list[str]) -> int:
    """The command's exit status."""
    with tempfile.TemporaryDirectory() as work, LocalHub(Path(work) / "hub") as hub:
        hub.has_xet = True
        os.environ["HF_TOKEN"] = hub.tokens["me"]
        push_folder(folder / "encoder", PublishSettings(repo_id=REPO_ID), hub.endpoint)
        del os.environ["HF_TOKEN"]
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(Path(work) / "cache"), "REPO_ID": REPO_ID}
        # The token of whoever runs the tests has no business here.
        return subprocess.run(command, env={**os.environ, **own, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
