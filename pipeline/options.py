"""The options of the command line."""

import argparse
import contextlib
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from distilrubert.common.checked_settings import validated
from distilrubert.common.configuration import Section
from distilrubert.common.errors import UserError
from distilrubert.conversion.conversion_settings import ConversionSettings, ExportedSettings
from distilrubert.distill.corpus.corpus_settings import CorpusSettings, CorpusSource
from distilrubert.evaluation.evaluation_settings import QualitySettings
from distilrubert.evaluation.sentences.suites import known_suites
from distilrubert.evaluation.speed.speed_settings import MEASURED_TEXTS, SpeedSettings
from distilrubert.modeling.architecture import PresetName
from distilrubert.modeling.vocabulary_settings import TrimSettings
from distilrubert.pipeline.exit_statuses import USER_ERROR
from distilrubert.pipeline.hub.publish_settings import PublishSettings

# The options that are not named as their fields are.
_OPTIONS = {"validation": "--held-out", "batch_sizes": "--batch-size"}

S = TypeVar("S", bound=Section)


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line, as all of the user's mistakes are."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        self.exit(USER_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser_for(program: str) -> Parser:
    """The parser of a program: ``distilrubert`` with its commands, or ``publish.py``, which is one of them."""
    if program == "publish.py":
        description, add_options, _ = COMMANDS["publish"]
        parser = _described(Parser(prog=program), description, "python publish.py recipes/base.yaml --dry-run")
        add_options(parser)
        parser.set_defaults(command="publish")
        return parser
    parser = Parser(
        prog=program,
        description="Distil a large encoder into a small, fast one and publish it on the Hugging Face Hub.",
        epilog=f"{program} COMMAND --help shows the options of a command and an example",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, (description, add_options, example) in COMMANDS.items():
        command = _described(commands.add_parser(name, help=description), description, f"distilrubert {example}")
        command.set_defaults(command=name)
        add_options(command)
    return parser


def _described(parser: Parser, description: str, example: str) -> Parser:
    parser.description, parser.epilog = description, f"example: {example}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def positive(text: str) -> int:
    """A whole number from 1, as the type of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def part(text: str) -> tuple[int, int]:
    """A part of a whole, as the type of an option: its number, and that of all parts."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part: 3/16 is one, and 1/16 to 16/16 are all of sixteen")
    return int(number), int(count)


def seed(text: str) -> int:
    """A seed, as the type of an option."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def share(text: str) -> float:
    """A share, as the type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def given(options: argparse.Namespace, section: type[Section]) -> dict[str, Any]:
    """The fields of a section that the command line gives; the section's own defaults hold for the others."""
    return {name: value for name in section.model_fields if (value := getattr(options, name, None)) is not None}


def of_options(section: type[S], values: Mapping[str, Any]) -> S:
    """Settings that stand in options; a mistake is told of the option."""
    with told_of_options():
        return validated(section, values)


@contextlib.contextmanager
def told_of_options(place: str = r"(\w+)(\.\d+)?") -> Iterator[None]:
    """Mistakes in settings are told of the options that these were given by.

    Args:
        place: regular expression of the settings' places in messages; its first group is the field.
    """
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(rf"^{place}", lambda found: _option_of(found[1]), str(error))) from None


def _option_of(field: str) -> str:
    return _OPTIONS.get(field, f"--{field.replace('_', '-')}")


def _add_field(
    parser: Parser | argparse._MutuallyExclusiveGroup,
    section: type[Section],
    field: str,
    metavar: str | None = None,
    **more: Any,
) -> None:
    """An option for a field of a section of settings, with the field's description and default."""
    described = section.model_fields[field]
    kind, default = described.annotation, described.get_default(call_default_factory=True)
    text = more.pop("text", None) or _as_help(described.description or "")
    if typing.get_origin(kind) is list:
        (kind,) = typing.get_args(kind)
        default = " ".join(map(str, default)) or "none"
        # One or more values, and again: --seeds 1 2 and --seeds 1 --seeds 2 are the same.
        more = {"action": "extend", "nargs": "+"} | more
    if names := [name for name in typing.get_args(kind) if isinstance(name, str)]:
        text += f"; {'any' if 'nargs' in more else 'one'} of {', '.join(names)}"
    if kind is bool:
        more = {"action": "store_true"} | more
    elif metavar:
        more = {"metavar": metavar} | more
        text += "" if default is None else f" (default: {default})"
    option = more.pop("option", _option_of(field))
    # None says that the option is not given.
    parser.add_argument(option, **{"dest": field, "default": None, "help": text, **more})


def _as_help(description: str) -> str:
    """What a recipe's reference says of a field, as it is said of an option: what it does, not whether."""
    text = description.removeprefix("Whether to ").removesuffix(".").replace("null:", "without it:")
    # Not "openVINO".
    return text[:1].lower() + text[1:] if text.partition(" ")[0][1:].islower() else text


def _add_recipe(parser: Parser, *, default: Path | None = None) -> None:
    parser.add_argument(
        "recipe_path",
        type=Path,
        metavar="RECIPE",
        nargs="?" if default else None,
        default=default,
        help=f"the recipe, a YAML file{f' (default: recipes/{default.name})' if default else ''}",
    )
    _add_overrides(parser, "one field of the recipe, for example distillation.max_steps=200")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where to work (default: runs/<recipe name>)")
    said = "take the newest commits of the teacher and the data sets on the Hub, instead of those recorded"
    _add_flag(parser, "--update", said)


def _add_overrides(parser: Parser, what: str) -> None:
    said = f"override {what}; may be repeated"
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help=said)


def _add_model(parser: Parser, what: str = "folder of a model, or its Hub id") -> None:
    parser.add_argument("model", metavar="MODEL", help=what)


def _add_flag(parser: Parser, option: str, text: str) -> None:
    parser.add_argument(option, action="store_true", help=text)


def _add_tasks(parser: Parser, text: str, *, required: bool = False) -> None:
    said = f"{text} (names of shipped ones, or YAML files)"
    parser.add_argument("--task", action="extend", nargs="+", default=[], required=required, metavar="TASK", help=said)


def _add_output(parser: Parser) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")


def _add_processes(parser: Parser) -> None:
    said = "fine-tuning runs at once, each with its share of the CPU's threads (default: 1)"
    parser.add_argument("--processes", type=positive, metavar="N", help=said)


def _add_run_dir(parser: Parser) -> None:
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run directory, for example runs/demo")


def _init(parser: Parser) -> None:
    parser.add_argument("--teacher", required=True, metavar="MODEL", help="folder of a model, or its Hub id")
    said = (
        "texts: .txt .jsonl .csv, also .gz or .zst, or .parquet; a glob in quotes, a folder, and the id of a data set "
        "on the Hub are paths, too"
    )
    parser.add_argument("--corpus", action="extend", nargs="+", required=True, metavar="PATH", help=said)
    said = "column or key that holds the text (default: text, else the one with the longest texts)"
    parser.add_argument("--column", metavar="NAME", help=said)
    said = (
        "what the student is for: mlm, a masked language model to fine-tune, or sentences, an encoder of sentences "
        "(default: sentences for a teacher of sentence-transformers, else mlm)"
    )
    parser.add_argument("--purpose", choices=["mlm", "sentences"], help=said)
    said = (
        "place in the family: base and small have fewer layers, narrow is base with a third of the feed-forward "
        "units, slim is half as wide; tiny, tiny-256 and tiny-5k are narrower still, with vocabularies of their "
        "own (default: base)"
    )
    parser.add_argument("--size", choices=list(typing.get_args(PresetName)), default="base", help=said)
    said = "ISO 639 code of the student's language (default: that of the teacher's card, else that of the texts)"
    parser.add_argument("--language", metavar="CODE", help=said)
    said = "file to write (default: recipe.yaml)"
    parser.add_argument("--output", type=Path, default=Path("recipe.yaml"), metavar="FILE", help=said)


def _convert(parser: Parser) -> None:
    _add_model(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    for runtime in ("onnx", "openvino"):
        _add_field(parser, ConversionSettings, runtime, "FORMAT", nargs="*")
    _add_field(parser, ConversionSettings, "task", "TASK")
    _add_field(parser, ConversionSettings, "embedding_bits", "BITS", type=int)
    said = (
        "text, one sentence a line: every other line calibrates int8 files, all files are compared on the rest "
        "(default: sentences that come with the program)"
    )
    parser.add_argument("--sentences", type=Path, metavar="FILE", help=said)


def _trim(parser: Parser) -> None:
    _add_model(parser)
    said = "texts: .txt .jsonl .csv, also .gz or .zst, or .parquet; a glob in quotes is a path, too"
    parser.add_argument("--corpus", action="extend", nargs="+", required=True, metavar="PATH", help=said)
    _add_field(parser, CorpusSource, "column", "NAME")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder to write")
    _add_field(parser, TrimSettings, "minimum_count", "N")
    _add_field(parser, TrimSettings, "keep_scripts", "SCRIPT")
    _add_field(parser, TrimSettings, "keep_letters", "SCRIPT", action="extend", nargs="*")
    said = "share of the texts that is not counted but measured on, chosen by a hash of the text"
    _add_field(parser, CorpusSettings, "validation", "SHARE", text=said)


def _evaluate(parser: Parser) -> None:
    _add_model(parser)
    _add_tasks(parser, "tasks to fine-tune on")
    parser.add_argument(
        "--suite",
        metavar="SUITE",
        help="instead of tasks: score the vectors of sentences, of the model and of its files (--onnx, --openvino), on "
        f"a suite ({', '.join(known_suites())}, or a YAML file); nothing is fine-tuned",
    )
    said = "put before texts that are looked for or compared, for example 'query: ' (default: the model's own)"
    parser.add_argument("--query-prompt", metavar="TEXT", help=said)
    said = "put before texts that are found, for example 'passage: ' (default: the model's own)"
    parser.add_argument("--document-prompt", metavar="TEXT", help=said)
    _add_field(parser, QualitySettings, "seeds", "N", type=int)
    for field, runtime in (("onnx", "ONNX"), ("openvino", "OpenVINO")):
        said = f"also score the models as {runtime} files"
        _add_field(parser, ExportedSettings, field, "FORMAT", nargs="*", text=said)
    said = "fine-tune nothing: score a linear classifier on the frozen model's vectors, in minutes and without seeds"
    _add_flag(parser, "--probe", said)
    _add_overrides(parser, "one field of the protocol (evaluation.finetuning in docs/recipe.md), for example epochs=3")
    _add_processes(parser)
    _add_output(parser)


def _finetune(parser: Parser) -> None:
    _add_model(parser, "folder of a model, or its Hub id: an encoder or a masked language model")
    parser.add_argument("--task", required=True, metavar="TASK", help="name of a shipped task, or a YAML file")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write; it must be new")
    parser.add_argument(
        "--seed", type=seed, default=1, metavar="N", help="of new head, order of rows, dropout (default: 1)"
    )
    for field, runtime in (("onnx", "ONNX"), ("openvino", "OpenVINO")):
        _add_field(parser, ExportedSettings, field, "FORMAT", nargs="*", text=f"also write these {runtime} files")
    said = (
        "least share of equal ones among the clear decisions of an int8 file and the model (default: 0.99); among all "
        "decisions 0.97 is needed, or this if it is less"
    )
    parser.add_argument("--equal-decisions", type=share, metavar="SHARE", help=said)
    _add_overrides(parser, "one field of the protocol (evaluation.finetuning in docs/recipe.md), for example epochs=3")


def _benchmark(parser: Parser) -> None:
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="folders of models, or Hub ids; the first is the baseline"
    )
    _add_field(parser, SpeedSettings, "sequence_length", "TOKENS")
    _add_field(parser, SpeedSettings, "batch_sizes", "N")
    _add_field(parser, SpeedSettings, "threads", "N")
    _add_field(parser, SpeedSettings, "starts", "N")
    said = (
        f"measure on real texts, the tokenizer included: a text file, one a line, of which {MEASURED_TEXTS} are taken "
        "(default: random sequences, without a tokenizer)"
    )
    parser.add_argument("--texts", type=Path, dest="text_file", metavar="FILE", help=said)
    said = "cuda measures PyTorch on the GPU, auto the CPU and then the GPU where there is one (default: cpu)"
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu", help=said)
    _add_output(parser)


def _verify(parser: Parser) -> None:
    _add_model(parser, "folder of a model repository, or its Hub id")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub (default: main)")
    said = "folder of the teacher, or its Hub id: to check what is stated about it"
    parser.add_argument("--teacher", metavar="MODEL", help=said)
    _add_flag(parser, "--speed", "also measure the ratios of speed again, which takes minutes")
    said = "share of the measured ratio by which the stated one may be larger (default: 0.3)"
    parser.add_argument("--tolerance", type=float, default=0.3, metavar="SHARE", help=said)
    _add_tasks(parser, "also fine-tune on these tasks again, which takes long")
    said = "seeds of the fine-tuning (default: those of the report)"
    _add_field(parser, QualitySettings, "seeds", "N", type=int, help=said)
    _add_processes(parser)
    _add_flag(parser, "--all", "print every statement (default: those that do not hold)")
    _add_flag(parser, "--json", "print every statement as JSON")


def _status(parser: Parser) -> None:
    _add_run_dir(parser)
    _add_flag(parser, "--json", "print the stages as JSON")


def _compare(parser: Parser) -> None:
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN", help="run directories, two at least")
    said = "picture to write (default: comparison.png)"
    parser.add_argument("--output", type=Path, default=Path("comparison.png"), metavar="FILE", help=said)


def _clean(parser: Parser) -> None:
    _add_run_dir(parser)
    _add_flag(parser, "--yes", "remove what is listed (default: only list it)")


def _publish(parser: Parser) -> None:
    _add_recipe(parser, default=Path(__file__).parents[1] / "recipes" / "demo.yaml")
    _add_target(parser)
    _add_flag(parser, "--dry-run", "list the stages, why each would be done and what that would take; do nothing")
    said = "with --dry-run: how long training would take on these GPUs, for example 8xH100 (default: on this machine)"
    parser.add_argument("--gpus", metavar="NxNAME", help=said)


def _push(parser: Parser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a model repository, for example runs/demo/hub")
    _add_target(parser)


def _add_target(parser: Parser) -> None:
    """The options that say where a folder is published to, and how."""
    _add_field(parser, PublishSettings, "repo_id", "USER/NAME")
    parser.add_argument("--endpoint", metavar="URL", help="another Hub (default: HF_ENDPOINT, else the public one)")
    visibility = parser.add_mutually_exclusive_group()
    said = "create the repository private (default: as its owner has set); one that is public is refused"
    _add_field(visibility, PublishSettings, "private", option="--private", action="store_true", text=said)
    said = "create the repository public; one that is private is refused"
    _add_field(visibility, PublishSettings, "private", option="--public", action="store_false", help=said)
    for field, metavar in (
        ("create_pr", None), ("revision", "R"), ("tag", "TAG"), ("commit_message", "TEXT"),
        ("resource_group_id", "ID"), ("prune", None),
    ):  # fmt: skip
        _add_field(parser, PublishSettings, field, metavar)
    said = (
        "publish a demo page too, a static Space of the same name: people try the model there, in their own browser. "
        "For it the model needs the ONNX file masked-lm-int8; an encoder of sentences and a model of a task need int8"
    )
    _add_field(parser, PublishSettings, "space", text=said)
    _add_flag(parser, "--no-push", "make what is missing, say what would be pushed, and push nothing")
    said = "compare the checksums of what is published, but do not download and load the model"
    _add_flag(parser, "--no-verify", said)
    said = "compare the folder with what is published: with --tag the tag, with --create-pr the pull request"
    _add_flag(parser, "--verify-only", said)
    _add_flag(parser, "--json", "print the plan and the result as JSON; without a repository, the files of the folder")


def _corpus(parser: Parser) -> None:
    _add_recipe(parser)
    said = (
        "tokenise one of several parts, each on any machine that sees the run directory; the command without this "
        "option does what is missing and puts the parts together (default: all, or under torchrun and Slurm a part for "
        "each process)"
    )
    parser.add_argument("--part", type=part, metavar="K/N", help=said)


def _space(parser: Parser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a model repository, for example runs/demo/hub")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write the page to")
    parser.add_argument(
        "--offline-assets",
        type=Path,
        metavar="DIR",
        help="copy the library from these npm packages, a folder node_modules (default: the page loads it from a CDN)",
    )


COMMANDS = {
    "init": (
        "Write a recipe that runs, with the reasons for what it says, for a teacher and a corpus.",
        _init,
        "init --teacher runs/demo/teacher --corpus recipes/demo/dialogues.txt --output /tmp/recipe.yaml",
    ),
    "distill": (
        "Distil a student as a recipe describes it, up to the finished checkpoint.",
        _add_recipe,
        "distill recipes/demo.yaml --set distillation.max_steps=100",
    ),
    "corpus": (
        "Tokenise the corpus of a recipe: alone, or shared out over processes and machines.",
        _corpus,
        "corpus recipes/demo.yaml --part 1/2",
    ),
    "convert": (
        "Export a model to safetensors, ONNX and OpenVINO, and compare the files with it.",
        _convert,
        "convert runs/demo/student --output /tmp/exported --onnx fp32 int8",
    ),
    "trim": (
        "Write a model with the tokens that texts need, and nothing else of it changed.",
        _trim,
        "trim runs/demo/teacher --corpus recipes/demo/dialogues.txt --output /tmp/trimmed",
    ),
    "evaluate": (
        "Fine-tune a model on labelled tasks, or score its vectors of sentences on a suite.",
        _evaluate,
        "evaluate runs/demo/student --task recipes/demo/intents.yaml --output scores.json",
    ),
    "finetune": (
        "Fine-tune a model on a labelled task and write it, ready to be loaded, with ONNX and OpenVINO files.",
        _finetune,
        "finetune runs/demo/student --task recipes/demo/intents.yaml --output intents --onnx int8",
    ),
    "benchmark": (
        "Measure the speed of models, each in PyTorch and as every file in its folder or repository.",
        _benchmark,
        "benchmark runs/demo/teacher runs/demo/hub --batch-size 1 16 --output speed.json",
    ),
    "card": ("Write the model card of a run again, from its reports.", _add_run_dir, "card runs/demo"),
    "verify": (
        "Check every statement of a model repository, against its reports and by measuring again.",
        _verify,
        "verify runs/demo/hub --speed --teacher runs/demo/teacher",
    ),
    "publish": (
        "Make the model repository that a recipe describes, and publish it.",
        _publish,
        "publish recipes/demo.yaml --repo-id USER/NAME",
    ),
    "push": (
        "Publish a finished model repository; its recipe, corpus and teacher are not needed.",
        _push,
        "push runs/demo/hub --repo-id USER/NAME",
    ),
    "space": (
        "Write a page on which people try a model in their own browser, with the model beside it.",
        _space,
        "space runs/demo/hub --output /tmp/page",
    ),
    "status": (
        "List the stages of a run, their state and their size on disk; also while it runs.",
        _status,
        "status runs/demo",
    ),
    "compare": (
        "Show what several runs measured side by side, draw it, and tell how their recipes differ.",
        _compare,
        "compare runs/one runs/other --output /tmp/comparison.png",
    ),
    "clean": ("List, and remove, the results of a run that other settings made.", _clean, "clean runs/demo --yes"),
}
