"""The command line: ``distilrubert``, ``python -m distilrubert.pipeline`` and ``python publish.py``."""

import argparse
import importlib
import json
import logging
import os
import platform
import sys
from collections.abc import Sequence

from distilrubert.pipeline.exit_statuses import CLOSED_PIPE, DONE, INTERRUPTED, USER_ERROR

# Where transformers 4.57 and 5 warn about tokenizers.
_TOKENIZER_LOGGERS = ("transformers.tokenization_utils_base", "transformers.tokenization_utils_tokenizers")
_FALSE_ALARMS = (
    # 4.57.3 and later take every tokenizer of more than 100,000 tokens for Mistral's, that of a BERT too, whose tokens
    # are split by no regular expression.
    "with an incorrect regex pattern",
    # The class is guessed from the folder's path: "mpt" in /tmp/tmpt1x is taken for the model MPT.
    "The tokenizer class you load from this checkpoint is not the same type",
)

# The module that a command is in.
_MODULES = {
    **dict.fromkeys(("distill", "publish", "push", "card"), "run_commands"),
    **dict.fromkeys(("status", "clean"), "housekeeping"),
    "init": "init_command",
    "compare": "compare_command",
    "corpus": "corpus_command",
    "space": "space_command",
    "finetune": "finetune_command",
    **dict.fromkeys(("convert", "trim", "evaluate", "benchmark", "verify"), "commands"),
}
# The commands that keep what they have finished when they are interrupted.
_KEPT = ("corpus", "distill", "evaluate", "finetune", "publish", "push")


def main(arguments: Sequence[str] | None = None, program: str = "distilrubert") -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; None takes the process's own.
        program: the name that the help shows; ``publish.py`` is the command ``publish`` itself.

    Returns:
        The exit status: 0 done, 1 a check failed, 2 a mistake of the user, 130 interrupted, 141 the reader of the
        output has gone.
    """
    if platform.system() == "Windows":  # file locks, signals and synced folders are POSIX ones
        print(
            f"{program}: Windows is not supported; use Linux, macOS or the Windows Subsystem for Linux", file=sys.stderr
        )
        return USER_ERROR
    try:
        # Imported here, as all that takes long enough to be interrupted.
        from distilrubert.common.processes import stop_signals_as_interrupt

        with stop_signals_as_interrupt():
            from distilrubert.pipeline.options import parser_for

            status = _perform(parser_for(program).parse_args(arguments), program)
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: nothing more can be said to it, and the rest is not done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except KeyboardInterrupt:
        print(f"{program}: interrupted before anything was begun", file=sys.stderr)
        return INTERRUPTED


def _perform(options: argparse.Namespace, program: str) -> int:
    """Run the command that was asked for; the exit status as :func:`main` has it."""
    _configure_logging()
    # Imported here so that --help and a mistyped option answer at once.
    from distilrubert.common.errors import UserError

    try:
        _read_recipe(options)
        # After the recipe, whose mistakes are then told before torch is imported, which takes seconds.
        module = importlib.import_module(f"distilrubert.pipeline.{_MODULES[options.command]}")
        return int(getattr(module, options.command)(options) or DONE)
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as error:
        ending = "the same command continues from there" if options.command in _KEPT else "nothing was kept"
        print(f"{program}: {str(error) or 'interrupted'}; {ending}", file=sys.stderr)
        return INTERRUPTED


def _read_recipe(options: argparse.Namespace) -> None:
    """Put the recipe, with the overrides of the command line, in the place of its path."""
    from distilrubert.common.hub_address import hub_endpoint
    from distilrubert.pipeline.hub.publish_settings import PublishSettings, check_form
    from distilrubert.pipeline.options import given, of_options, told_of_options
    from distilrubert.pipeline.recipe import load_recipe

    for endpoint in (None, getattr(options, "endpoint", None)):
        hub_endpoint(endpoint)
    if "recipe_path" in options:
        with told_of_options(r"publish\.(\w+)"):
            check_form(of_options(PublishSettings, given(options, PublishSettings)))
        # JSON is YAML, and quotes what would otherwise be read as a number or a mapping.
        publishing = given(options, PublishSettings).items()
        stated = [f"publish.{name}={json.dumps(value)}" for name, value in publishing]
        options.recipe = load_recipe(options.recipe_path, [*options.overrides, *stated])


def _configure_logging() -> None:
    """Our own messages on standard error; the libraries only where something is wrong."""
    # Libraries read these while they are imported.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("distilrubert")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for name in _TOKENIZER_LOGGERS:
        logging.getLogger(name).addFilter(_is_no_false_alarm)


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    return not any(alarm in record.getMessage() for alarm in _FALSE_ALARMS)
