"""What a card says in sentences about the model and about how its figures were measured."""

from collections.abc import Mapping
from typing import Any

from transformers.models.whisper.tokenization_whisper import LANGUAGES

from distilrubert.common.measurements import Environment, Measurements
from distilrubert.model_card.cases import BACKENDS, Case
from distilrubert.model_card.formatting import count, escape, figure, listing, short_count, words
from distilrubert.model_card.inputs import CardInput
from distilrubert.model_card.scores import have_vocabularies_of_their_own, intrinsic_scores, main_scores, task_scores
from distilrubert.model_card.sizes import stored_in_16_bits

SPECIAL_LANGUAGES = {"multilingual": "several languages", "code": "program code"}


def describe_model(run: CardInput) -> dict[str, Any]:
    """The model's shape and size, and its fastest file."""
    name = escape(run.teacher_name)
    return {
        "name": escape(run.name),
        "teacher": f"[{name}](https://huggingface.co/{run.teacher_id})" if run.teacher_id else name,
        "languages": listing(list(map(_language_name, run.settings.language))),
        "shape": describe_shape(run.config),
        "reach": _reach(run),
        "parameters": describe_parameters(run.speed, run.training),
        "fastest": run.speed and describe_fastest(run.speed),
    }


def _language_name(code: str) -> str:
    """What English calls a language; its code in quotes where transformers knows no name."""
    return SPECIAL_LANGUAGES.get(code) or (LANGUAGES[code].title() if code in LANGUAGES else f"'{code}'")


def describe_shape(config: Mapping[str, Any]) -> str:
    """Layers, widths and vocabulary of a DistilBERT by its ``config.json``."""
    return (
        f"It has {config['n_layers']} layers, {config['n_heads']} attention heads and hidden states of "
        f"{config['dim']} values (feed-forward layers of {count(config['hidden_dim'])}),\n"
        f"a vocabulary of {count(config['vocab_size'])} pieces, and reads up to "
        f"{config['max_position_embeddings']} tokens."
    )


def _reach(run: CardInput) -> str:
    """How long the texts were that it learned from, where it takes longer ones."""
    settings = run.manifest["settings"] if run.manifest else run.recipe.get("corpus", {})
    longest = settings.get("max_length")
    if not longest or longest >= run.config["max_position_embeddings"]:
        return ""
    return f"It was distilled on sequences of at most {longest} tokens."


def describe_parameters(speed: Measurements | None, training: Measurements | None) -> str | None:
    """Parameters of the student, against the teacher's where both were counted in the same way."""
    counted = {
        Case.parse(row.case).model: row.figures["parameters"]
        for row in (speed.rows if speed else [])
        if Case.parse(row.case).backend == "pytorch" and row.figures.get("parameters")
    }
    student, teacher = counted.get("student"), counted.get("teacher")
    if student is None and training:
        student = training.rows[0].figures.get("parameters")
    if not student:
        return None
    fewer = f", {figure(teacher / student)} times fewer than the teacher's {short_count(teacher)}" if teacher else ""
    return f"In all it has {short_count(student)} parameters{fewer}."


def describe_fastest(speed: Measurements) -> str | None:
    """The student's file with the lowest latency on the CPU, if that is lower than the teacher's."""
    rows = [
        row
        for row in speed.rows
        if row.figures.get("latency_ratio", 0) > 1
        and Case.parse(row.case).model == "student"
        and not Case.parse(row.case).cuda
    ]
    if not rows:
        return None
    best = max(rows, key=lambda row: row.figures["latency_ratio"])
    figures = best.figures
    throughput = figures["throughput_ratio"]
    also = f", its throughput {figure(throughput)} times higher" if throughput > 1 else ""
    return (
        f"**Its fastest file here, {Case.parse(best.case).label.removeprefix('Student, ')}, takes "
        f"{figure(figures['size_mib'])} MiB; on the same CPU its latency is {figure(figures['latency_ratio'])} times "
        f"lower than that of the teacher in PyTorch{also}.**"
    )


def describe_speed(speed: Measurements) -> str:
    """How and where speed was measured."""
    settings, where = speed.details, speed.environment
    gpu = _gpu(where) if any(Case.parse(row.case).cuda for row in speed.rows) else ""
    batches = settings["batch_sizes"]
    sentences = [
        f"Random sequences of {settings['sequence_length']} tokens; latency at batch size {min(batches)}, "
        f"throughput at batch size {max(batches)}; medians, each case warmed up in a process of its own.",
        "Gains are against the first line, on the CPU: how many times lower the latency and higher the throughput is.",
        "Sizes are those of the files as they are stored; PyTorch widens 16-bit numbers to fp32 when it loads them."
        if any(map(stored_in_16_bits, speed.rows))
        else "",
        f"Measured on {machine_of(where)}{gpu}, {where.date}, with {_versions(where)}.",
        _default_precision(speed),
        "Spreads and all other figures: [reports/speed.json](reports/speed.json).",
    ]
    return "\n".join(filter(None, sentences))


def _default_precision(speed: Measurements) -> str:
    """In what a runtime computed that leaves the precision to the CPU."""
    if not any(Case.parse(row.case).follows_cpu for row in speed.rows):
        return ""
    in_bf16 = any("bf16" in name for name in speed.environment.instruction_sets)
    found = "which on this CPU is bf16 for all that is not int8" if in_bf16 else "which on this CPU is fp32"
    return f"OpenVINO computed in its default precision, {found}."


def describe_quality(quality: Measurements) -> str:
    """How quality was measured."""
    where = quality.environment
    sentences = [
        "Held-out text is the part of the corpus that the student was not trained on."
        if intrinsic_scores(quality)
        else "",
        "The models have vocabularies of their own: figures on held-out text are per piece, each model's own, and do "
        "not tell which of them is better."
        if have_vocabularies_of_their_own(quality)
        else "",
        _protocol(quality.details["settings"]) if task_scores(quality) else "",
        _file_protocol(quality),
        "A linear probe is a logistic regression on the frozen model's last hidden states: of a sentence their mean, "
        "of a word that of its first piece."
        if main_scores(quality, "linear_probe")
        else "",
        f"Measured on {machine_of(where)}{_gpu(where)}, {where.date}.",
        "All figures and the single runs: [reports/quality.json](reports/quality.json).",
    ]
    return "\n".join(filter(None, sentences))


def _protocol(settings: Mapping[str, Any]) -> str:
    """How the tasks were fine-tuned."""
    seeds, limit = len(settings["seeds"]), settings["finetuning"].get("train_limit")
    rows = f", on {count(limit)} labelled rows at most" if limit else ""
    return (
        f"On the tasks teacher and student were fine-tuned in the same way{rows}, "
        f"with {words(seeds)} seed{'s' if seeds > 1 else ''}: "
        f"{'mean ± standard deviation' if seeds > 1 else 'the score'} on the test part."
    )


def _file_protocol(quality: Measurements) -> str:
    """That files were made of the fine-tuned models, where some were."""
    if not any(Case.parse(row.case).backend in BACKENDS for row in quality.rows):
        return ""
    return (
        "For the columns of files, each of these fine-tuned models was exported in the same way as the published file "
        "and scored again."
    )


def describe_parity(parity: Measurements) -> str:
    """On how much text the files were compared, and in which arithmetic."""
    held = any(Case.parse(f"student-{row.case}").follows_cpu for row in parity.rows)
    precision = "\nOpenVINO was held to fp32 arithmetic for this, also where its default is bf16." if held else ""
    what, centred = "hidden states", ""
    if parity.details.get("task") == "fill-mask":
        what, centred = "logits", "\nFor the cosines the mean over all tokens is subtracted first."
    return (
        f"How far the {what} of each file are from the PyTorch model's, over {parity.details['sentences']} real "
        f"sentences.{centred}{precision}"
    )


def machine_of(where: Environment) -> str:
    """Processor and threads of a measurement."""
    return f"{escape(where.cpu)} ({where.threads} thread{'s' if where.threads != 1 else ''})"


def _gpu(where: Environment) -> str:
    return f" and {escape(where.gpu)}" if where.gpu else ""


def _versions(where: Environment) -> str:
    shown = ("python", "torch", "transformers", "onnxruntime", "openvino")
    return listing([f"{name} {where.versions[name]}" for name in shown if name in where.versions])
