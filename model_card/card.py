"""The README.md of a model repository, made from reports: every number is in one of its files."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distilrubert.common.formats import CHECKPOINT
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import atomic_file, write_json, write_text
from distilrubert.model_card.card_facts import facts_of
from distilrubert.model_card.card_view import FILTERS, view_of
from distilrubert.model_card.citation import bibliography
from distilrubert.model_card.inputs import FACTS, REPORTS, CardInput, read_card_input
from distilrubert.model_card.scores import task_scores
from distilrubert.model_card.task_kinds import TASK_KINDS

# What the Hub calls our metrics; their exact names go into the metric's name.
METRIC_TYPES = {
    "f1_weighted": "f1",
    "f1_macro": "f1",
    "f1_micro": "f1",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "r2": "r_squared",
    "span_f1": "f1",
    "answer_f1": "f1",
    "matthews": "matthews_correlation",
}


def write_card(run_folder: Path, hub: Path | None = None, endpoint: str | None = None) -> Path:
    """Complete a model repository with its card, pictures, citation and reports.

    Args:
        run_folder: the run directory.
        hub: folder of the model repository, which holds the model; None takes the run's ``hub/``.
        endpoint: URL of the Hub that the model goes to; None takes HF_ENDPOINT, or the public Hub.

    Returns:
        The path of the card.

    Raises:
        UserError: if the recipe or the model is missing or a file cannot be read or written.
    """
    # matplotlib takes a second to import, and most commands draw nothing.
    from distilrubert.model_card.card_pictures import write_pictures

    facts, hub = facts_of(run_folder, endpoint), hub or run_folder / "hub"
    reports = run_folder / "reports"
    # What is published is then the student of the task; the run keeps the report on the general one beside it.
    of_task = {"training": "task-student"} if (reports / "finetuning.json").is_file() else {}
    for name in REPORTS:
        source, target = reports / f"{of_task.get(name, name)}.json", hub / "reports" / f"{name}.json"
        # The report on a teacher that an earlier recipe trained may still be there.
        if source.is_file() and (name != "pretraining" or facts.teacher.is_pretrained_here):
            with atomic_file(target) as beside:
                shutil.copyfile(source, beside)
        else:
            target.unlink(missing_ok=True)
    write_json(hub / FACTS, facts.model_dump(mode="json"))
    run = read_card_input(hub)
    write_pictures(run, hub / "assets")
    write_text(hub / "CITATION.bib", bibliography(run))
    write_text(hub / "README.md", render_card(read_card_input(hub)))
    return hub / "README.md"


def render_card(run: CardInput) -> str:
    """The card's text: front matter and body."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  Markdown, whose special characters `escape` takes care of
    )
    environment.filters.update(FILTERS)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    body = environment.get_template("template.md.jinja").render(**view_of(run))
    front_matter = card_data(run).to_yaml(line_break="\n")
    return str(ModelCard(f"---\n{front_matter}\n---\n\n{_single_blank_lines(body)}").content)


def card_data(run: CardInput) -> ModelCardData:
    """The card's front matter."""
    settings, teacher = run.settings, run.facts.teacher
    results = eval_results(run.quality, run.finetuning)
    is_encoder = run.prompts is not None
    tags = ["sentence-transformers", "feature-extraction"] if is_encoder else []
    task, widget = _task_of(run)
    bases = [base for base in (run.facts.start, teacher.id) if base]
    formats = [name for name in ("onnx", "openvino") if any(path.startswith(f"{name}/") for path in run.files)]
    return ModelCardData(
        language=settings.language if len(settings.language) > 1 else settings.language[0],
        license=settings.license,
        license_name=settings.license_name,
        license_link=settings.license_link,
        library_name="sentence-transformers" if is_encoder else "transformers",
        pipeline_tag=task,
        base_model=(bases if len(bases) > 1 else bases[0]) if bases else None,
        base_model_relation="finetune" if bases else None,
        datasets=settings.datasets or None,
        tags=[str(run.config["model_type"]), "knowledge-distillation", *tags, *formats, *settings.tags],
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        widget=widget,
        model_name=run.facts.name,
        eval_results=results or None,
    )


def _task_of(run: CardInput) -> tuple[str, list[dict[str, Any]] | None]:
    """The Hub's task for a model, and what its widget shows."""
    if run.finetuning is not None:
        kind = TASK_KINDS[run.finetuning.details["task"]["kind"]]
        first, *others = run.settings.sentences
        if kind.pipeline == "question-answering":
            return kind.pipeline, [{"text": first, "context": text} for text in others or [first]]
        # The Hub's widget takes a single text.
        return kind.pipeline, None if kind.is_of_pairs else [{"text": text} for text in run.settings.sentences]
    if run.prompts is not None:
        first, *others = run.settings.sentences
        return "sentence-similarity", [{"source_sentence": first, "sentences": others or [first]}]
    return ("fill-mask", [{"text": run.example}]) if run.has_head else ("feature-extraction", None)


def eval_results(quality: Measurements | None, finetuning: Measurements | None = None) -> list[EvalResult]:
    """The student's task scores, and nothing else, as the Hub's model-index wants them."""
    found = [(score, "student") for score in task_scores(quality)] if quality else []
    if finetuning:
        task = finetuning.details["task"]
        about = dataclasses.replace(finetuning, details={"tasks": {task["name"]: task}})
        found += [(score, CHECKPOINT.case) for score in task_scores(about)]
    return [
        EvalResult(
            # Reports of earlier versions do not name the kind.
            task_type=TASK_KINDS.get(score.kind, TASK_KINDS["sentence-classification"]).pipeline,
            dataset_type=score.task,
            dataset_name=score.title,
            dataset_split=score.about.get("split", "test"),
            metric_type=METRIC_TYPES.get(score.metric, score.metric),
            metric_name=score.metric_title,
            metric_value=round(score.values[case].mean, 4),
        )
        for score, case in found
        if case in score.values
    ]


def _single_blank_lines(text: str) -> str:
    """`text` without the empty lines that left-out parts of the templates leave behind."""
    stripped = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", stripped).strip() + "\n"
