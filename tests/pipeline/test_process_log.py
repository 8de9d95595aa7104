"""The log file of each process of a run."""

import logging

import pytest

from distilrubert.common.errors import UserError
from distilrubert.pipeline.process_log import logged

logger = logging.getLogger("distilrubert.somewhere")


@pytest.fixture
def terminal(monkeypatch) -> list[str]:
    """What the terminal shows, as the command line sets it up."""
    shown: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(record.getMessage())
    root = logging.getLogger("distilrubert")
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.INFO)
    root.setLevel(logging.INFO)
    return shown


def test_a_process_that_does_not_lead_writes_more_than_it_shows(tmp_path, terminal):
    with logged(tmp_path, "rank-0"):
        logger.info("seen by all")
        logger.debug("too fine")
    with logged(tmp_path, "rank-1", leads=False):
        logger.debug("step 20")
        logger.warning("odd")
    logger.debug("nobody listens")
    assert terminal == ["seen by all", "odd"]
    first, second = ((tmp_path / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1))
    assert "INFO seen by all" in first
    assert "too fine" not in first
    assert [line.split(" ", 3)[2] for line in second.splitlines()] == ["INFO", "DEBUG", "WARNING"]
    assert "rank-1: process " in second
    with logged(tmp_path, "rank-1", leads=False):
        logger.debug("step 40")
    assert (tmp_path / "logs/rank-1.log").read_text().startswith(second)


def test_the_error_that_ends_a_process_is_in_its_file_alone(tmp_path, terminal):
    with pytest.raises(ValueError, match="invalid literal"), logged(tmp_path, "rank-0"):
        int("one")
    with pytest.raises(UserError), logged(tmp_path, "rank-1"):
        raise UserError("batch_tokens: too few")
    assert terminal == []
    first, second = ((tmp_path / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1))
    assert "ERROR ended: invalid literal for int()" in first
    assert "Traceback" in first
    assert 'int("one")' in first
    assert "ERROR ended: batch_tokens: too few" in second
    assert "Traceback" not in second


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(UserError, match=r"logs/rank-0\.log: cannot be written"), logged(tmp_path, "rank-0"):
        pass
