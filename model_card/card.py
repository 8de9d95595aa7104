"""The README.md of a model repository, made from reports: every number is in one of its files."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import atomic_file, write_json, write_text
from distilrubert.model_card.card_facts import facts_of
from distilrubert.model_card.card_pictures import PICTURES, write_pictures
from distilrubert.model_card.card_settings import CardSettings
from distilrubert.model_card.citation import bibliography, describe_method, model_entry
from distilrubert.model_card.formatting import escape
from distilrubert.model_card.inputs import FACTS, REPORTS, CardInput, read_card_input
from distilrubert.model_card.procedure import describe_training
from distilrubert.model_card.prose import describe_model, describe_parity, describe_quality, describe_speed
from distilrubert.model_card.scores import task_scores
from distilrubert.model_card.tables import file_table, parity_table, quality_table, speed_table

# What the Hub calls our kinds of task.
TASK_TYPES = {
    "sentence-classification": "text-classification",
    "sentence-pair-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
}

# What the Hub calls our metrics; their exact names go into the metric's name.
METRIC_TYPES = {
    "f1_weighted": "f1",
    "f1_macro": "f1",
    "span_f1": "f1",
    "answer_f1": "f1",
    "matthews": "matthews_correlation",
}


def write_card(run_folder: Path, hub: Path | None = None) -> Path:
    """Complete a model repository with its card, pictures, citation and reports.

    Args:
        run_folder: the run directory.
        hub: folder of the model repository, which holds the model; None takes the run's ``hub/``.

    Returns:
        The path of the card.

    Raises:
        UserError: if the recipe or the model is missing or a file cannot be read or written.
    """
    facts, hub = facts_of(run_folder), hub or run_folder / "hub"
    for name in REPORTS:
        source, target = run_folder / "reports" / f"{name}.json", hub / "reports" / f"{name}.json"
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
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    body = environment.get_template("template.md.jinja").render(**_view(run))
    front_matter = card_data(run).to_yaml(line_break="\n")
    return str(ModelCard(f"---\n{front_matter}\n---\n\n{_single_blank_lines(body)}").content)


def card_data(run: CardInput) -> ModelCardData:
    """The card's front matter."""
    settings, teacher = run.settings, run.facts.teacher
    results = eval_results(run.quality) if run.quality else []
    formats = [name for name in ("onnx", "openvino") if any(path.startswith(f"{name}/") for path in run.files)]
    return ModelCardData(
        language=settings.language if len(settings.language) > 1 else settings.language[0],
        license=settings.license,
        license_name=settings.license_name,
        license_link=settings.license_link,
        library_name="transformers",
        pipeline_tag="fill-mask",
        base_model=teacher.id,
        base_model_relation="finetune" if teacher.id else None,
        datasets=settings.datasets or None,
        tags=["distilbert", "knowledge-distillation", *formats, *settings.tags],
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        widget=[{"text": settings.example}],
        model_name=run.facts.name,
        eval_results=results or None,
    )


def eval_results(quality: Measurements) -> list[EvalResult]:
    """The student's task scores, and nothing else, as the Hub's model-index wants them."""
    return [
        EvalResult(
            task_type=TASK_TYPES.get(score.kind, score.kind or "text-classification"),
            dataset_type=score.task,
            dataset_name=score.title,
            dataset_split=score.about.get("split", "test"),
            metric_type=METRIC_TYPES.get(score.metric, score.metric),
            metric_name=score.metric_title,
            metric_value=round(score.values["student"].mean, 4),
        )
        for score in task_scores(quality)
        if "student" in score.values
    ]


def _view(run: CardInput) -> dict[str, Any]:
    """Everything that the templates name."""
    settings = run.settings
    return {
        "title": escape(settings.title or run.facts.name),
        "model_id": run.facts.repo_id or run.facts.name,
        "published": run.facts.repo_id is not None,
        **describe_model(run),
        **describe_training(run),
        "example": json.dumps(settings.example, ensure_ascii=False),
        "sentences": json.dumps(settings.sentences, ensure_ascii=False),
        "onnx_file": _preferred(run, "onnx", ("model_quantized.onnx", "model.onnx")),
        "openvino_file": _preferred(run, "openvino", ("openvino_model_qint8_quantized.xml", "openvino_model.xml")),
        "files_fill_masks": run.parity is not None and run.parity.details.get("task") == "fill-mask",
        "has_int8": any(entry.precision == "int8" for entry in FORMATS.values() if entry.path in run.files),
        "sentence_transformers": "modules.json" in run.files,
        "file_table": file_table(run.files),
        "speed_table": run.speed and speed_table(run.speed),
        "speed_protocol": run.speed and describe_speed(run.speed),
        "quality_table": run.quality and quality_table(run.quality),
        "quality_protocol": run.quality and describe_quality(run.quality),
        "parity_table": run.parity and parity_table(run.parity),
        "parity_protocol": run.parity and describe_parity(run.parity),
        "limitations": settings.limitations,
        "license": _license(settings),
        "teacher_license": escape(settings.teacher_license or ""),
        "corpus_license": escape(settings.corpus_license or ""),
        "pictures": {name: text for name, text in PICTURES.items() if f"assets/{name}" in run.files},
        "task_licenses": _task_licenses(run),
        "model_entry": model_entry(run),
        **describe_method(run),
    }


def _preferred(run: CardInput, folder: str, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if f"{folder}/{name}" in run.files), None)


def _license(settings: CardSettings) -> str:
    if settings.license == "other":
        return f"[{escape(settings.license_name or '')}]({settings.license_link})"
    return settings.license


def _task_licenses(run: CardInput) -> str:
    tasks = run.quality.details.get("tasks", {}) if run.quality else {}
    known = {about["title"]: about["licence"] for about in tasks.values() if about.get("licence")}
    return "; ".join(f"{escape(title)}: {escape(licence)}" for title, licence in known.items())


def _single_blank_lines(text: str) -> str:
    """`text` without the empty lines that left-out parts of the templates leave behind."""
    stripped = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", stripped).strip() + "\n"
