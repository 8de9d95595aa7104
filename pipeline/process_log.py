"""The log file of each process of a run, ``logs/<name>.log`` in the run directory."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from distilrubert.common.errors import UserError

FORM = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
logger = logging.getLogger("distilrubert")


@contextlib.contextmanager
def logged(folder: Path, name: str, *, leads: bool = True) -> Iterator[None]:
    """Write what this process logs to a file too, with the error that ends it, if one does.

    What a process that does not lead has to say about the progress that all make is only in its file.

    Args:
        folder: the run directory.
        name: of the process; what it has logged before is kept.
        leads: whether its messages are on the terminal.

    Raises:
        UserError: if the file cannot be written.
    """
    path = folder / "logs" / f"{name}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    handler.setFormatter(FORM)
    level, others = logger.level, [(other, other.level) for other in logger.handlers]
    if not leads:
        for other, own in others:
            other.setLevel(max(own, level))
        logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    _note(handler, logging.INFO, f"{name}: process {os.getpid()} on {socket.gethostname()}")
    try:
        yield
    except BaseException as error:
        is_expected = isinstance(error, UserError | KeyboardInterrupt)
        what = str(error) or type(error).__name__
        _note(handler, logging.ERROR, f"ended: {what}", None if is_expected else error)
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(level)
        for other, own in others:
            other.setLevel(own)


def _note(handler: logging.Handler, level: int, message: str, error: BaseException | None = None) -> None:
    """Write a line to the file alone; the terminal has it in another form, or not at all."""
    about = (type(error), error, error.__traceback__) if error else None
    handler.handle(logging.LogRecord(logger.name, level, __file__, 0, message, None, about))
