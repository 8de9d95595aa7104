"""A local Hub to try publishing with: `python -m tests.hub` from the root of the project, and Ctrl-C in the end."""

import argparse
import contextlib
import sys
import tempfile
import threading
from pathlib import Path

from .server import LocalHub


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--port", type=int, default=8765, help="port on 127.0.0.1 (default: 8765)")
    parser.add_argument(
        "--model", nargs=2, action="append", default=[], metavar=("ID", "FOLDER"), help="a model that is there already"
    )
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalHub(Path(folder), options.port) as hub,
        contextlib.suppress(KeyboardInterrupt),
    ):
        hub.has_xet = True
        for repo_id, model in options.model:
            hub.storage.hold(repo_id, Path(model))
        lines = [f"{name:<10} {token}" for name, token in hub.tokens.items()]
        sys.stdout.write(f"A Hub listens on {hub.endpoint}. Its tokens:\n" + "\n".join(lines) + "\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
