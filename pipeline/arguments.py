"""A parser of command lines whose mistakes are one line, and which finds the model wherever it stands."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from distilrubert.pipeline.status import USER_ERROR

_NO_MODEL = re.compile(r"\d+|(fp|bf|int)\d+[\w-]*")
_TASK_FILES = (".yaml", ".yml")


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line, as all of the user's mistakes are."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        self.exit(USER_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does, but an option of several values ends where a model begins: ``--onnx int8 MODEL``."""
        return super().parse_known_args(self._positionals_first(sys.argv[1:] if args is None else args), namespace)

    def _positionals_first(self, arguments: Sequence[str]) -> list[str]:
        several = any(isinstance(action, Several) for action in self._option_string_actions.values())
        positionals: list[str] = []
        others: list[str] = []
        left = list(arguments)
        while left and several and left[0] != "--":
            word = left.pop(0)
            if not word.startswith("-"):
                positionals.append(word)
                continue
            others.append(word)
            option, equals, _ = word.partition("=")
            action = self._action_of(option)
            if isinstance(action, Several) and not equals:
                others += _values_of(action, left)
            elif action is not None and action.nargs is None and not equals:
                others += left[:1]
                del left[:1]
        return [*positionals, *others, *left]

    def _action_of(self, option: str) -> argparse.Action | None:
        """What an option does, also where it is written short, as argparse allows it."""
        known = self._option_string_actions
        meant = [option] if option in known else [name for name in known if name.startswith(option)]
        return known[meant[0]] if len(meant) == 1 else None


class Several(argparse.Action):
    """An option of several values that may be given again: ``--task a b`` and ``--task a --task b`` are the same."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        """Take the place of the default, or add to what was given before."""
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(given if given is not self.default else []), *values])


def positive(text: str) -> int:
    """A whole number from 1, as the type of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _values_of(action: argparse.Action, left: list[str]) -> list[str]:
    """Take the values of an option off what is left of the command line: up to an option, or what can be a model."""
    count = 0
    while count < len(left) and not left[count].startswith("-"):
        # Where one value is needed, the first is one, whatever else it could be.
        if _can_be_a_model(left[count]) and not (action.nargs == "+" and count == 0):
            break
        count += 1
    values = left[:count]
    del left[:count]
    return values


def _can_be_a_model(word: str) -> bool:
    if _NO_MODEL.fullmatch(word) or word.endswith(_TASK_FILES):
        return False
    return "/" in word or word in (".", "..") or Path(word).is_dir()
