"""`distilrubert init`: a recipe that runs, from a teacher and a corpus."""

import argparse
import textwrap
from pathlib import Path
from typing import Any

import torch
import yaml

from distilrubert.common.checked_settings import load_yaml, validated
from distilrubert.common.configuration import expand_home
from distilrubert.common.errors import UserError
from distilrubert.common.persistence import check_writable, write_text
from distilrubert.conversion.writers import require_packages
from distilrubert.distill.corpus.tokenisation import check_max_length
from distilrubert.distill.losses.objective import check_heads, check_layers, positive_weights
from distilrubert.model_card.card_settings import CardSettings
from distilrubert.model_card.formatting import duration, short_count
from distilrubert.model_card.front_matter import split_card
from distilrubert.modeling.architecture import student_config
from distilrubert.modeling.checkpoints import load_pretrained, read_fast_tokenizer, read_model_config
from distilrubert.modeling.downloads import description_folder
from distilrubert.modeling.families import longest_input
from distilrubert.modeling.heads import has_head
from distilrubert.modeling.sentence_modules import read_sentence_modules
from distilrubert.pipeline.corpus_sample import sample_corpus
from distilrubert.pipeline.estimates import ModelSize, estimate_student
from distilrubert.pipeline.recipe import Recipe
from distilrubert.pipeline.recipe_choices import Choices, TeacherFacts
from distilrubert.pipeline.summary import short_path
from distilrubert.pipeline.terminal import format_size

WIDTH = 116
END_OF_VALUE = "\n...\n"
HEADS = ("ForMaskedLM", "ForPreTraining")


def init(options: argparse.Namespace) -> None:
    """Write a recipe for a teacher and a corpus."""
    output: Path = options.output
    if output.exists():
        raise UserError(f"--output {output}: exists; name a new file, or remove this one")
    check_writable(output)
    if options.language:
        validated(
            CardSettings, {"language": options.language, "license": "unknown", "example": "[MASK]", "sentences": ["-"]}
        )
    sample = sample_corpus(options.corpus, options.column)
    teacher, purpose = _look_at_teacher(options.teacher, options.purpose)
    choices = Choices(
        teacher,
        sample,
        purpose,
        options.size,
        options.language,
        [runtime for runtime in ("onnx", "openvino") if _is_installed(runtime)],
        torch.cuda.is_available(),
    )
    values = choices.recipe()
    text = f"{_opening(choices, values)}\n{_sections(choices, _relative(values, output.absolute().parent))}"
    # What is written is what was checked.
    _check(validated(Recipe, load_yaml(text), folder=output.absolute().parent), choices)
    write_text(output, text)
    path = short_path(output)
    print(f"{text}\nThe recipe is in {path}. Look at what it would do, then do it:\n")
    print(f"  distilrubert publish {path} --dry-run\n  distilrubert publish {path}")


def _look_at_teacher(name: str, purpose: str | None) -> tuple[TeacherFacts, Any]:
    folder = description_folder(name)
    config = read_model_config(folder, name)
    modules = read_sentence_modules(folder)
    purpose = purpose or ("sentences" if modules else "mlm")
    is_on_hub = not expand_home(name).is_dir()
    card = _card_of(folder)
    languages = card.get("language") or []
    return (
        TeacherFacts(
            name if is_on_hub else str(expand_home(name).absolute()),
            expand_home(name).resolve().name if not is_on_hub else name.rpartition("/")[2],
            is_on_hub,
            config,
            read_fast_tokenizer(folder, name),
            # Vectors of sentences need no head; the config of a model with one may not say so, its weights do.
            purpose == "mlm" and (_says_head(config) or has_head(load_pretrained(name).model)),
            modules,
            [languages] if isinstance(languages, str) else [code for code in languages if isinstance(code, str)],
            card.get("license"),
        ),
        purpose,
    )


def _says_head(config: Any) -> bool:
    return any(str(kind).endswith(HEADS) for kind in config.architectures or ())


def _card_of(folder: Path) -> dict[str, Any]:
    """The front matter of a teacher's card; empty where there is none that can be read."""
    try:
        return split_card((folder / "README.md").read_text(encoding="utf-8"))[0]
    except (OSError, ValueError):
        return {}


def _is_installed(runtime: str) -> bool:
    try:
        require_packages(runtime)
    except UserError:
        return False
    return True


def _relative(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The values with paths below the recipe's folder as such, so that both can be moved together."""
    sources = [
        {**source, "path": _short(source["path"], folder)} if "path" in source else source
        for source in values["corpus"]["sources"]
    ]
    teacher = {**values["teacher"], "model": _short(values["teacher"]["model"], folder)}
    return {**values, "teacher": teacher, "corpus": {**values["corpus"], "sources": sources}}


def _short(path: str, folder: Path) -> str:
    return f"./{Path(path).relative_to(folder)}" if Path(path).is_relative_to(folder) else path


def _check(recipe: Recipe, choices: Choices) -> None:
    """Refuse what a run would refuse of the teacher, before the recipe is written."""
    config, teacher = choices.teacher.config, choices.teacher
    if recipe.sentences is None:
        check_heads(positive_weights(recipe.distillation), has_head=teacher.has_head)
    check_max_length(recipe.corpus.max_length, min(longest_input(config.to_dict()), teacher.tokenizer.model_max_length))
    check_layers(recipe.distillation, student_config(recipe.student, config), config)


def _opening(choices: Choices, values: dict[str, Any]) -> str:
    """The comment at the top: what is made, and what that takes on this machine."""
    recipe, teacher = validated(Recipe, values), choices.teacher.config
    own, its = (ModelSize.of(config).parameters for config in (student_config(recipe.student, teacher), teacher))
    vocabulary = recipe.student.own_vocabulary()
    until = " before its vocabulary is trimmed" if vocabulary and vocabulary.trim else ""
    lines = [
        f"{recipe.name}: the {choices.size} student of {choices.teacher.title}, written by `distilrubert init`; all "
        "fields are in docs/recipe.md.",
        f"It has about {short_count(own)} parameters{until}, a byte each in int8; the teacher has {short_count(its)}.",
    ]
    taken = estimate_student(recipe, teacher, choices.tokens())
    if taken.seconds is not None:
        memory = f", and {format_size(taken.memory)} of memory for weights and optimiser" if taken.memory else ""
        lines.append(
            f"On this machine, if it does nothing else, distillation takes about {duration(taken.seconds)}{memory}."
        )
    return "".join(map(_comment, lines))


def _sections(choices: Choices, values: dict[str, Any]) -> str:
    parts = []
    for name, value in values.items():
        is_nested = isinstance(value, dict) and value
        dumped = f"{name}:\n{textwrap.indent(_yaml(value), '  ')}" if is_nested else _yaml({name: value})
        parts.append(f"{''.join(map(_comment, choices.reasons.get(name, [])))}{dumped}")
    return "".join(parts)


def _yaml(values: dict[str, Any]) -> str:
    """Each key with its value in one line, as in the shipped recipes."""
    lines = []
    for name, value in values.items():
        dumped = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, sort_keys=False, width=10_000)
        # PyYAML ends the document after a bare value.
        lines.append(f"{name}: {dumped.partition(END_OF_VALUE)[0].strip()}\n")
    return "".join(lines)


def _comment(line: str) -> str:
    wrapped = textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {part}\n" for part in wrapped)
