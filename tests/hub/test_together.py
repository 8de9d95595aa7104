"""Two publishers at once."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distilrubert.common.errors import UserError
from distilrubert.pipeline.hub.publish_settings import PublishSettings

from .conftest import HASTY
from .server import LocalHub
from .survival import push_once


@pytest.mark.parametrize("is_new", [False, True], ids=["an update", "a new repository"])
def test_exactly_one_wins(
    local_hub: LocalHub, folder: Path, target: PublishSettings, tmp_path: Path, is_new: bool
) -> None:
    if not is_new:
        push_once(folder, target, local_hub.endpoint, HASTY)
    folders = [Path(shutil.copytree(folder, tmp_path / name)) for name in ("one", "two")]
    for own in folders:
        (own / "who.txt").write_text(own.name)
        (own / "who.bin").write_bytes(own.name.encode() * 100)
    # Both have planned against the same revision and sent their large files before either may commit.
    local_hub.wait_for_publishers(2)

    def publish(own: Path) -> str | UserError:
        try:
            return push_once(own, target, local_hub.endpoint, HASTY).revision
        except UserError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(publish, folders))
    repository = local_hub.storage.repositories["me/demo"]
    errors = [result for result in results if isinstance(result, UserError)]
    assert len(errors) == 1
    assert "someone else published to main meanwhile" in str(errors[0])
    winner = folders[[isinstance(result, str) for result in results].index(True)].name
    assert repository.branches["main"] in results
    assert repository.tree()["who.txt"].content == winner.encode()
    assert repository.tree()["who.bin"].lfs_size == len(winner) * 100
    assert len(repository.history()) == (2 if is_new else 3)
    loser = next(own for own in folders if own.name != winner)
    assert push_once(loser, target, local_hub.endpoint, HASTY).changed, "the loser may publish on top, knowingly"
    assert repository.tree()["who.txt"].content == loser.name.encode()
