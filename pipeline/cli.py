"""The command line: ``distilrubert``, ``python -m distilrubert.pipeline`` and ``python publish.py``."""

import argparse
import logging
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from distilrubert.pipeline.arguments import Parser, Several, positive
from distilrubert.pipeline.status import DONE, INTERRUPTED, USER_ERROR

# Where transformers 4.57 and 5 warn about tokenizers.
_TOKENIZER_LOGGERS = ("transformers.tokenization_utils_base", "transformers.tokenization_utils_tokenizers")
_FALSE_ALARMS = (
    # 4.57.3 and later take every tokenizer of more than 100,000 pieces for Mistral's, that of a BERT too, whose pieces
    # are split by no regular expression.
    "with an incorrect regex pattern",
    # The class is guessed from the folder's path: "mpt" in /tmp/tmpt1x is taken for the model MPT.
    "The tokenizer class you load from this checkpoint is not the same type",
)

# The commands that keep what they have finished when they are interrupted.
_KEPT = ("distill", "evaluate", "publish")


def main(arguments: Sequence[str] | None = None, program: str = "distilrubert") -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name; None takes the process's own.
        program: the name that the help shows; ``publish.py`` is the command ``publish`` itself.

    Returns:
        The exit status: 0 done, 1 a claim or check failed, 2 a mistake of the user, 130 interrupted.
    """
    if platform.system() == "Windows":  # file locks, signals and synced folders are POSIX ones
        print(
            f"{program}: Windows is not supported; use Linux, macOS or the Windows Subsystem for Linux", file=sys.stderr
        )
        return USER_ERROR
    try:
        return _perform(_parser(program).parse_args(arguments), program)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: nothing is wrong, and nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print(f"{program}: interrupted before anything was begun", file=sys.stderr)
        return INTERRUPTED


def _perform(options: argparse.Namespace, program: str) -> int:
    """Run the command that was asked for; the exit status as :func:`main` has it."""
    _configure_logging()
    # Imported here so that --help and a mistyped option answer at once: torch takes seconds to import.
    from distilrubert.common.errors import UserError
    from distilrubert.pipeline import commands

    try:
        commands.check_hub()
        return int(getattr(commands, options.command)(options) or DONE)
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt as error:
        ending = "the same command goes on from there" if options.command in _KEPT else "nothing was kept"
        print(f"{program}: {str(error) or 'interrupted'}; {ending}", file=sys.stderr)
        return INTERRUPTED


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


def _parser(program: str) -> argparse.ArgumentParser:
    if program == "publish.py":
        return _publish(_new(program, "Make the model repository that a recipe describes, and publish it.", "publish"))
    parser = Parser(
        prog=program,
        description="Distil a BERT teacher into a small, fast student and publish it on the Hugging Face Hub.",
    )
    verbs = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, add in _COMMANDS.items():
        description, add_arguments = add
        verb = verbs.add_parser(
            name,
            help=description,
            description=description,
            epilog=f"example: {_EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(command=name)
        add_arguments(verb)
    return parser


def _new(program: str, description: str, command: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=program,
        description=description,
        epilog="example: python publish.py recipes/base.yaml --repo-id USER/NAME --dry-run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    return parser


def _add_recipe(parser: argparse.ArgumentParser, *, default: Path | None = None) -> None:
    parser.add_argument(
        "recipe",
        type=Path,
        metavar="RECIPE",
        nargs="?" if default else None,
        default=default,
        help=f"the recipe, a YAML file{f' (default: {default.name})' if default else ''}",
    )
    _add_overrides(parser, "one field of the recipe, for example distillation.max_steps=200")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where to work (default: runs/<recipe name>)")


def _add_overrides(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help=f"override {what}; may be repeated",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder of a model, or its Hub id")


def _distill(parser: argparse.ArgumentParser) -> None:
    _add_recipe(parser)


def _convert(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--onnx",
        action=Several,
        nargs="*",
        default=["fp32", "int8"],
        metavar="FORMAT",
        help="ONNX files to write: fp32, int8, int8-avx2, int8-avx512-vnni, int8-arm64 (default: fp32 int8; for "
        "none write --onnx alone)",
    )
    parser.add_argument(
        "--openvino",
        action=Several,
        nargs="*",
        default=[],
        metavar="FORMAT",
        help="OpenVINO files to write: fp32, fp16, int8 (default: none)",
    )
    parser.add_argument(
        "--task",
        dest="export_task",
        default="feature-extraction",
        metavar="TASK",
        help="what the files return: feature-extraction (hidden states, the default) or fill-mask (logits)",
    )
    parser.add_argument(
        "--sentences",
        type=Path,
        metavar="FILE",
        help="text, one sentence a line: every other line calibrates int8 files, all files are compared on the "
        "rest (default: sentences that come with the program)",
    )


def _evaluate(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    parser.add_argument(
        "--task",
        action=Several,
        nargs="+",
        default=[],
        required=True,
        metavar="TASK",
        help="names of shipped tasks, or YAML files",
    )
    parser.add_argument(
        "--seeds",
        action=Several,
        nargs="+",
        type=int,
        default=[1, 2, 3],
        metavar="N",
        help="a fine-tuning run for each (default: 1 2 3)",
    )
    for option, runtime in (("--onnx", "ONNX"), ("--openvino", "OpenVINO")):
        parser.add_argument(
            option,
            action=Several,
            nargs="*",
            default=[],
            metavar="FORMAT",
            help=f"also score the fine-tuned models as {runtime} files: formats, for example int8 (default: none)",
        )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="fine-tune nothing: score a linear classifier on the frozen model's vectors, in minutes and without seeds",
    )
    _add_overrides(parser, "one field of the protocol (evaluation.finetuning in docs/recipe.md), for example epochs=3")
    _add_processes(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes",
        type=positive,
        default=1,
        metavar="N",
        help="fine-tuning runs at once, each with its share of the CPU's threads (default: 1)",
    )


def _benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="folders of models, or Hub ids; the first is the baseline"
    )
    parser.add_argument(
        "--sequence-length", type=int, default=512, metavar="TOKENS", help="tokens of each sequence (default: 512)"
    )
    parser.add_argument(
        "--batch-size",
        action=Several,
        nargs="+",
        type=int,
        default=[1, 16],
        metavar="N",
        help="sequences at once: latency is measured at the smallest, throughput at the largest (default: 1 16)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the physical cores)")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="cpu",
        help="cuda measures PyTorch on the GPU, auto the CPU and then the GPU where there is one (default: cpu)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder of a model repository, or its Hub id")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub (default: main)")
    parser.add_argument(
        "--teacher", metavar="MODEL", help="folder of the teacher, or its Hub id: to check what is claimed of it"
    )
    parser.add_argument(
        "--speed", action="store_true", help="also measure the gains in speed again, which takes minutes"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.3,
        metavar="SHARE",
        help="share of the measured gain by which the claimed one may be larger (default: 0.3)",
    )
    parser.add_argument(
        "--task",
        action=Several,
        nargs="+",
        default=[],
        metavar="TASK",
        help="also fine-tune on these tasks again (names or YAML files), which takes long",
    )
    parser.add_argument(
        "--seeds",
        action=Several,
        nargs="+",
        type=int,
        metavar="N",
        help="seeds of the fine-tuning (default: those of the report)",
    )
    _add_processes(parser)
    parser.add_argument("--json", action="store_true", help="print the claims as JSON")


def _card(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="run directory, for example runs/demo")
    parser.add_argument("--preview", action="store_true", help="also write a static HTML page beside the card")


def _publish(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    _add_recipe(parser, default=Path(__file__).parents[1] / "recipes" / "demo.yaml")
    parser.add_argument("--repo-id", metavar="USER/NAME", help="repository on the Hub; without it nothing is pushed")
    parser.add_argument("--endpoint", metavar="URL", help="another Hub (default: HF_ENDPOINT, else the public one)")
    parser.add_argument("--private", action="store_true", help="create the repository private")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--revision", metavar="R", help="branch to commit to, made if missing (default: main)")
    parser.add_argument("--tag", metavar="TAG", help="tag the published commit, for example v1.0")
    parser.add_argument("--prune", action="store_true", help="delete what the repository holds and the folder does not")
    parser.add_argument(
        "--dry-run", action="store_true", help="make what is missing, say what would be pushed, and push nothing"
    )
    parser.add_argument(
        "--verify-only",
        action="store_true",
        help="compare the folder with what is published: with --tag the tag, with --create-pr the pull request",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the plan and the result as JSON; without a repository, the files of the folder",
    )
    return parser


_COMMANDS = {
    "distill": ("Distil a student as a recipe describes it, up to the finished checkpoint.", _distill),
    "convert": ("Export a model to safetensors, ONNX and OpenVINO, and prove that the files agree.", _convert),
    "evaluate": (
        "Fine-tune a model on labelled tasks, and report the mean and standard deviation of its scores.",
        _evaluate,
    ),
    "benchmark": (
        "Measure the speed of models, each in PyTorch and as every file in its folder or repository.",
        _benchmark,
    ),
    "card": ("Write the model card of a run again, from its reports.", _card),
    "verify": ("Check everything that a model repository claims, by its reports and by measuring again.", _verify),
    "publish": ("Make the model repository that a recipe describes, and publish it.", _publish),
}

_EXAMPLES = {
    "distill": "distilrubert distill recipes/demo.yaml --set distillation.max_steps=100",
    "convert": "distilrubert convert runs/demo/student --output /tmp/exported --onnx fp32 int8",
    "evaluate": "distilrubert evaluate runs/demo/student --task recipes/demo/intents.yaml --output scores.json",
    "benchmark": "distilrubert benchmark runs/demo/teacher runs/demo/hub --batch-size 1 16 --output speed.json",
    "card": "distilrubert card runs/demo --preview",
    "verify": "distilrubert verify runs/demo/hub --speed --teacher runs/demo/teacher",
    "publish": "distilrubert publish recipes/demo.yaml --repo-id USER/NAME --dry-run",
}
