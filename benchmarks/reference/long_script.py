"""How the scripts of the reference experiments run and end: each can be stopped and continued."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from distilrubert.common.errors import UserError
from distilrubert.pipeline.exit_statuses import DONE, INTERRUPTED, USER_ERROR


def run(work: Callable[[], None]) -> int:
    """Do the work of the script that was called, with a log; the exit status as the command line has it."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("distilrubert").setLevel(logging.INFO)
    program = Path(sys.argv[0]).name
    try:
        work()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command continues from there", file=sys.stderr)
        return INTERRUPTED
    return DONE
