"""Checkpoints: what is written, found, kept, refused and restored."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from distilrubert.common.errors import UserError
from distilrubert.common.training.run_checkpoints import Checkpoints, read_state, restore


class Tied(nn.Module):
    """Two layers that share a matrix, as embeddings and output do."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(20, width)
        self.output = nn.Linear(width, 20)
        self.output.weight = self.embeddings.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.output(self.embeddings(ids))


def trained(updates: int, module: Tied | None = None, optimizer: torch.optim.Optimizer | None = None):
    if module is None:
        torch.manual_seed(0)
        module = Tied()
    optimizer = optimizer or torch.optim.AdamW(module.parameters(), lr=0.1, fused=True)
    for _ in range(updates):
        nn.functional.cross_entropy(module(torch.arange(20)), torch.arange(20)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return module, optimizer


def same(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def test_training_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    module, optimizer = trained(3)
    path = Checkpoints(tmp_path, keep=1).save(3, module, optimizer, {"step": 3})
    uninterrupted, _ = trained(2, module, optimizer)
    fresh, fresh_optimizer = trained(0)
    restore(path, fresh, fresh_optimizer)
    assert fresh.output.weight is fresh.embeddings.weight
    resumed, _ = trained(2, fresh, fresh_optimizer)
    assert same(uninterrupted, resumed)
    assert read_state(path) == {"step": 3}


def test_what_was_restored_survives_the_checkpoint(tmp_path: Path) -> None:
    module, optimizer = trained(3)
    checkpoints = Checkpoints(tmp_path, keep=1)
    path = checkpoints.save(3, module, optimizer, {})
    fresh, fresh_optimizer = trained(0)
    restore(path, fresh, fresh_optimizer)
    checkpoints.save(4, fresh, fresh_optimizer, {})
    assert not path.exists()
    assert same(trained(1, fresh, fresh_optimizer)[0], trained(4)[0])


def test_a_checkpoint_holds_each_weight_once_and_no_pickle(tmp_path: Path) -> None:
    module, optimizer = trained(1)
    path = Checkpoints(tmp_path, keep=1).save(1, module, optimizer, {})
    assert sorted(file.name for file in path.iterdir()) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    assert sum(tensor.numel() for tensor in load_file(path / "model.safetensors").values()) == 20 * 8 + 20


def test_the_newest_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    module, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path / "new" / "checkpoints", keep=2)
    assert checkpoints.prepare() is None
    for step in (9, 10, 99_999_999, 100_000_000):
        checkpoints.save(step, module, optimizer, {})
    names = ["checkpoint-100000000", "checkpoint-99999999"]
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == names
    assert checkpoints.newest() == checkpoints.folder / "checkpoint-100000000"


def test_unfinished_ones_are_cleared_away_and_strangers_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-00000009.0a1b2c3d.tmp").mkdir()
    (tmp_path / ".checkpoint-00000009.0a1b2c3d.tmp" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "notes").mkdir()
    assert Checkpoints(tmp_path, keep=1).prepare() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-best", "notes"]


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    module, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, module, optimizer, {"take": 1})
    assert read_state(checkpoints.save(1, module, optimizer, {"take": 2})) == {"take": 2}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("limit", [100, 1200, 2500], ids=["model", "moments", "state"])
def test_a_full_disk_is_one_line_and_leaves_the_older_checkpoint(tmp_path: Path, limit: int) -> None:
    module, optimizer = trained(1)
    checkpoints = Checkpoints(tmp_path, keep=1)
    older = checkpoints.save(1, module, optimizer, {})
    before = {file.name: file.read_bytes() for file in older.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UserError, match=r"checkpoint-00000002: cannot be written: .*"):
            checkpoints.save(2, module, optimizer, {"curves": list(range(1000))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name: file.read_bytes() for file in older.iterdir()} == before
    assert list(tmp_path.iterdir()) == [older]


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(UserError, match="checkpoints: cannot be written"):
        Checkpoints(tmp_path / "checkpoints", keep=1).prepare()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("damage", [_truncate, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    module, optimizer = trained(1)
    path = Checkpoints(tmp_path, keep=1).save(1, module, optimizer, {})
    damage(path / name)
    with pytest.raises(UserError, match="checkpoint-00000001: the checkpoint cannot be read"):
        restore(path, module, optimizer)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    module, optimizer = trained(1)
    path = Checkpoints(tmp_path, keep=1).save(1, module, optimizer, {})
    other = Tied(width=4)
    with pytest.raises(UserError, match="cannot be read"):
        restore(path, other, torch.optim.AdamW(other.parameters()))
