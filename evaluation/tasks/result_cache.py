"""A cache of finished measurements, keyed by the content of their inputs."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distilrubert.common.persistence import read_json, write_json

logger = logging.getLogger(__name__)

# Version of the protocol. Raise it with every change after which the same inputs give another result.
VERSION = 6


@dataclasses.dataclass(frozen=True)
class ResultCache:
    """One file for each result in a folder, named by a hash of its inputs."""

    folder: Path

    def __call__(self, name: str, inputs: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result for these inputs, which are all that it depends on, from the cache or computed; plain JSON values.

        `name` is the beginning of the file's name, for readers.
        """
        inputs = {"version": VERSION, **inputs}
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        path = self.folder / f"{name}-{digest[:20]}.json"
        if path.exists():
            logger.info("%s is measured already", name)
        else:
            write_json(path, {"inputs": inputs, "result": compute()})
        result: dict[str, Any] = read_json(path)["result"]
        return result
