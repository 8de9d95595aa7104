"""Publishing takes no more memory however large the files are."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .server import LocalHub

LARGE = 256 * 2**20
PROGRAM = """
import sys
from pathlib import Path
from distilrubert.common.processes import peak_memory_mib
from distilrubert.pipeline.hub.push import push_folder
from distilrubert.pipeline.hub.publish_settings import PublishSettings
push_folder(Path(sys.argv[1]), PublishSettings(repo_id=sys.argv[2]), endpoint=sys.argv[3])
print(int(peak_memory_mib()))
"""


def peak_memory_mib(hub: LocalHub, folder: Path, repo_id: str) -> int:
    environment = os.environ | {"HF_TOKEN": hub.tokens["me"], "HF_HUB_DISABLE_XET": "1"}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), repo_id, hub.endpoint],
        env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return int(found.stdout)


@pytest.mark.slow
def test_large_files_in_flat_memory(
    local_hub: LocalHub, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    sizes = {"small": 2**10, "large": LARGE}
    peaks = {}
    for name, size in sizes.items():
        folder = tmp_path / name
        folder.mkdir()
        with (folder / "model.safetensors").open("wb") as file:
            file.write(os.urandom(2**10))
            file.truncate(size)
        peaks[name] = peak_memory_mib(local_hub, folder, f"me/{name}")
    stored = local_hub.storage.repositories["me/large"].tree()["model.safetensors"]
    assert stored.lfs_size == LARGE
    assert len(local_hub.uploads) == 1 + LARGE // local_hub.part_size, "in parts"
    record_property("peak_memory_mib", peaks)
    assert peaks["large"] - peaks["small"] < 100
