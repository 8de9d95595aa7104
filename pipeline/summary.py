"""What the terminal shows at the end of a run."""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.derived import derive
from distilrubert.common.errors import UserError
from distilrubert.common.formats import CASES, OPENVINO_HINTS
from distilrubert.common.measurements import Measurements, Row
from distilrubert.model_card.cases import Case
from distilrubert.model_card.formatting import counted
from distilrubert.model_card.inputs import read_card_input
from distilrubert.model_card.scores import METRIC_TITLES
from distilrubert.model_card.space.shown_model import read_model
from distilrubert.model_card.tables import Table, quality_table, speed_table, suite_table, task_table
from distilrubert.model_card.task_kinds import TASK_KINDS
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.terminal import new_table, print_table


def print_tables(run: Run) -> None:
    """Print the speed and the quality of the run's models."""
    print_speed(Measurements.load(run.reports / "speed.json"))
    if run.recipe.task:
        print_finetuned(derive(Measurements.load(run.reports / "finetuning.json")))
        return
    print_quality(Measurements.load(run.reports / "quality.json"))
    if run.recipe.evaluation.suite:
        print_suite(Measurements.load(run.reports / "suite.json"))


def print_speed(speed: Measurements) -> None:
    """Print times and ratios of each file: medians over the starts, and in brackets the extremes of a start."""
    where, starts = speed.environment, speed.details["starts"]
    title = f"Speed on {where.cpu}, {counted(where.threads, 'thread')}, {counted(starts, 'start')}"
    print_card_table(title, speed_table(derive(speed)))


def fastest_files(speed: Measurements) -> str:
    """Lines that say for each model which of its files is the fastest on this CPU, and with which settings."""
    report, lines = derive(speed), []
    groups: dict[str, list[Row]] = {}
    for row in report.rows:
        case = Case.parse(row.case)
        if case.file and not case.cuda:
            groups.setdefault(case.model, []).append(row)
    largest = max(speed.details["batch_sizes"])
    for model, rows in groups.items():
        # Ratios to one baseline, start by start: where ranges meet, the order of the medians may be chance.
        by_latency, by_throughput = (_fastest(rows, ratio) for ratio in ("latency_ratio", "throughput_ratio"))
        one = f"{1000 * by_latency[0].values['latency_s']:.3g} ms for one batch of {min(speed.details['batch_sizes'])}"
        many = f"{by_throughput[0].values['samples_per_s']:.3g} sequences/s in batches of {largest}"
        if by_latency[0] is by_throughput[0]:
            choices = [(by_latency, f"{one}, {many}")]
        else:
            choices = [(by_latency, one), (by_throughput, many)]
        for found, told in choices:
            others = ", ".join(_file_with_settings(row) for row in found[1:])
            level = f"; within the spread of the starts: {others}" if others else ""
            lines.append(f"Fastest file of {model} here: {_file_with_settings(found[0])}: {told}{level}")
    inputs = f"{speed.details['sequence_length']} tokens a sequence"
    if speed.details.get("texts"):
        mean = speed.rows[0].values["tokens_per_text"]
        inputs = f"{counted(speed.details['texts'], 'text')} of {mean:.0f} tokens in the mean, tokenizer included"
    lines.append(f"({counted(speed.environment.threads, 'thread')}, {inputs})")
    return "\n".join(lines)


def _fastest(rows: Sequence[Row], ratio: str) -> list[Row]:
    """The fastest row, and after it those whose range over the starts meets its own."""
    best, *others = sorted(rows, key=lambda row: -row.values[ratio])
    least = best.values[f"{ratio}_range"][0]
    return [best, *(row for row in others if row.values[f"{ratio}_range"][1] >= least)]


def _file_with_settings(row: Row) -> str:
    """The file that a runtime is given, and what it has to be told."""
    case = CASES[Case.parse(row.case).file]
    path = next((path for path in case.format.companions if path.endswith(".xml")), case.format.path)
    if case.format.runtime != "openvino":
        return f"{path} in {case.hint}" if case.hint != "fp32" else path
    return f"{path} with INFERENCE_PRECISION_HINT {OPENVINO_HINTS[case.hint]}"


def print_quality(quality: Measurements) -> None:
    """Print what was measured of each model on held-out text and tasks."""
    print_card_table("Quality", quality_table(derive(quality)))


def print_suite(report: Measurements) -> None:
    """Print the best score of each task of a suite, and their mean, for each file of a model."""
    suite, absent = report.details["suite"], report.details["absent"]
    told = f" (without {', '.join(absent)}: no data)" if absent else ""
    print_card_table(f"{suite['title']}{told}", suite_table(derive(report)))


def print_vocabularies(report: Measurements) -> None:
    """Print the whole vocabulary and the trimmed one: tokens, bytes, and text that is tokenised differently."""
    rows = []
    for row in report.rows:
        shares = (row.values.get(f"held_out_resplit_{unit}_share") for unit in ("text", "token"))
        told = ("" if share is None else f"{share:.2%}" for share in shares)
        rows.append([row.case, f"{row.values['tokens']:,}", f"{row.values['file_mib']:.1f}", *told])
    held_out = counted(report.details["held_out_texts"], "held-out text")
    title = (
        f"Vocabulary, measured on {held_out}" if report.details["held_out_texts"] else "Vocabulary; no text held out"
    )
    print_card_table(
        title,
        Table(["Model", "tokens", "file, MiB", "texts tokenised differently", "tokens tokenised differently"], rows),
    )


def print_finetuned(report: Measurements) -> None:
    """Print the scores of a fine-tuned model, of its files and of the baselines, and how the files agree with it."""
    task, validation = report.details["task"], report.details["validation"]
    title = f"{task['title']}, test part (validation: {METRIC_TITLES[task['metrics'][0]]} {validation:.3f})"
    print_card_table(title, task_table(report))


def print_card_table(title: str, table: Table) -> None:
    """Print a table of the card."""
    texts = table.text_columns
    shown = new_table(title, table.head[:texts], table.head[texts:])
    for row in table.rows:
        shown.add_row(*(cell.replace("`", "") for cell in row))
    print_table(shown)


def next_steps(run: Run, recipe: Sequence[str]) -> str:
    """Where the model repository is, how to try it and how to push it: lines for a shell.

    `recipe` is the arguments by which publishing finds the very same run.
    """
    python, hub = str(short_path(Path(sys.executable))), short_path(run.hub)
    script = _script(run)
    trial = f"Try it,\n\n  {shlex.join([python, '-c', script])}\n\n" if script else "It says how to try the model.\n\n"
    page = ", with --space together with its page" if _has_page(run) else ""
    push = [*_publish_command(python), *recipe, "--repo-id", f"USER/{run.recipe.name}"]
    return (
        f"{_what_to_expect(run)}The model repository is in {hub}: read {hub / 'README.md'}. {trial}"
        f"{_page_commands(run, python)}"
        f"{'and push' if script else 'Push'} it{page}:\n\n"
        f"  {shlex.join(push)}"
    )


def _script(run: Run) -> str | None:
    """Lines of Python that try the model; None for a reader, of which transformers 5 has no pipeline."""
    # Python takes the strings of JSON, and single quotes keep a shell from them.
    card, texts = read_card_input(run.hub), json.dumps(run.recipe.card.sentences, ensure_ascii=False)
    folder, example = (json.dumps(text, ensure_ascii=False) for text in (str(short_path(run.hub)), card.example))
    if card.finetuning:
        kind = card.finetuning.details["task"]["kind"]
        if kind == "question-answering":
            return None
        task = json.dumps(TASK_KINDS[kind].pipeline)
        asked = json.dumps(_asked(kind, run.recipe.card.sentences), ensure_ascii=False)
        return f"from transformers import pipeline; print(pipeline({task}, {folder})({asked}))"
    if run.recipe.sentences or not card.has_head:
        load = f"from sentence_transformers import SentenceTransformer; model = SentenceTransformer({folder})"
        return f"{load}; vectors = model.encode({texts}); print(model.similarity(vectors, vectors))"
    return f'from transformers import pipeline; print(pipeline("fill-mask", {folder})({example})[0])'


def _asked(kind: str, sentences: Sequence[str]) -> Any:
    """What a pipeline is asked to show what the model does."""
    if TASK_KINDS[kind].is_of_pairs:
        return {"text": sentences[0], "text_pair": sentences[-1]}
    if kind == "token-classification":
        # Spaces around words and signs, as in the text that a tagger is trained on.
        return [" ".join(re.findall(r"\w+|[^\w\s]", text)) for text in sentences]
    return list(sentences)


def _has_page(run: Run) -> bool:
    """Whether the page can show the model, and the file that it runs is there."""
    try:
        read_model(run.hub)
    except UserError:
        return False
    return True


def _page_commands(run: Run, python: str) -> str:
    """How to try a model in a browser; nothing for one that has no page."""
    if not _has_page(run):
        return ""
    hub, page = str(short_path(run.hub)), str(short_path(run.folder / "page"))
    make = [python, "-m", "distilrubert.pipeline", "space", hub, "--output", page]
    serve = [python, "-m", "http.server", "--bind", "127.0.0.1", "--directory", page]
    return f"in your browser at http://127.0.0.1:8000,\n\n  {shlex.join(make)}\n  {shlex.join(serve)}\n\n"


def _what_to_expect(run: Run) -> str:
    """What the scores of a teacher that the recipe trains are good for; nothing for a teacher that is loaded."""
    if not run.recipe.teacher.pretrain:
        return ""
    return (
        "The teacher was trained in this run, on the recipe's corpus alone: the scores show that every step works, not "
        "how good a student can be.\nFor that, name a teacher that was trained on billions of words: teacher.model in "
        "the recipe.\n\n"
    )


def _publish_command(python: str) -> list[str]:
    """How this process was started."""
    script = short_path(Path(sys.argv[0]))
    match script.name:
        case "publish.py":
            return [python, str(script)]
        case "distilrubert":
            return [str(script), "publish"]
        case _:
            return [python, "-m", "distilrubert.pipeline", "publish"]


def short_path(path: Path) -> Path:
    """The path as one would type it here; links, as those of a virtual environment, are left alone."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
