"""What a card says in sentences about the model and about how it was measured."""

from collections.abc import Mapping
from typing import Any

from distilrubert.common.measurements import Environment, Measurements
from distilrubert.model_card.cases import BACKENDS, Case, has_default_precision, stored_in_16_bits
from distilrubert.model_card.formatting import count, escape, listing, number, short_count, words
from distilrubert.model_card.hub_rules import language_name
from distilrubert.model_card.inputs import CardInput
from distilrubert.model_card.scores import have_vocabularies_of_their_own, intrinsic_scores, main_scores, task_scores


def describe_model(run: CardInput) -> dict[str, Any]:
    """The model's shape and size, and its fastest file."""
    teacher = run.facts.teacher
    name = escape(teacher.name)
    commit = f" (commit `{teacher.commit[:12]}`)" if teacher.commit else ""
    return {
        "name": escape(run.facts.name),
        "teacher": f"[{name}]({run.facts.hub}/{teacher.id}){commit}" if teacher.id else name,
        "languages": listing(list(map(language_name, run.settings.language))),
        "shape": _shape(run.config),
        "reach": _reach(run),
        "parameters": _parameters(run.speed, run.training),
        "fastest": run.speed and _fastest(run.speed),
    }


def _shape(config: Mapping[str, Any]) -> str:
    """Layers, widths and vocabulary of a DistilBERT by its ``config.json``."""
    return (
        f"It has {config['n_layers']} layers with {config['n_heads']} attention heads, {config['dim']}-dimensional "
        f"hidden states and feed-forward layers of width {count(config['hidden_dim'])}.\n"
        f"Its vocabulary has {count(config['vocab_size'])} tokens. An input has at most "
        f"{config['max_position_embeddings']} tokens."
    )


def _reach(run: CardInput) -> str:
    """How long the texts of the distillation were, if the model takes longer ones."""
    longest = run.facts.max_length
    if not longest or longest >= run.config["max_position_embeddings"]:
        return ""
    return f"It was distilled on sequences of at most {longest} tokens."


def _parameters(speed: Measurements | None, training: Measurements | None) -> str | None:
    """Parameters of the student, against the teacher's if both were counted in the same way."""
    counted = {
        Case.parse(row.case).model: row.values["parameters"]
        for row in (speed.rows if speed else [])
        if Case.parse(row.case).backend == "pytorch" and row.values.get("parameters")
    }
    student, teacher = counted.get("student"), counted.get("teacher")
    if student is None and training:
        student = training.rows[0].values.get("parameters")
    if not student:
        return None
    fewer = f", {number(teacher / student)} times fewer than the teacher ({short_count(teacher)})" if teacher else ""
    return f"It has {short_count(student)} parameters{fewer}."


def _fastest(speed: Measurements) -> str | None:
    """The student's file with the lowest latency on the CPU, if that is lower than the teacher's."""
    rows = [row for row in speed.rows if row.case.startswith("student-") and not row.case.endswith("-cuda")]
    best = max(rows, key=lambda row: row.values.get("latency_ratio", 0), default=None)
    if best is None or best.values.get("latency_ratio", 0) <= 1:
        return None
    values = best.values
    throughput = values["throughput_ratio"]
    also = f", and its throughput is {number(throughput)} times higher" if throughput > 1 else ""
    return (
        f"**The fastest file here is {Case.parse(best.case).label.removeprefix('Student, ')} "
        f"({number(values['size_mib'])} MiB). On the same CPU, its latency is {number(values['latency_ratio'])} times "
        f"lower than that of the teacher in PyTorch{also}.**"
    )


def describe_speed(speed: Measurements) -> str:
    """How and where speed was measured."""
    settings, where = speed.details, speed.environment
    gpu = _gpu(where) if any(Case.parse(row.case).cuda for row in speed.rows) else ""
    batches = settings["batch_sizes"]
    sentences = [
        f"The inputs are random sequences of {settings['sequence_length']} tokens. Latency is measured at batch size "
        f"{min(batches)}, throughput at batch size {max(batches)}. Every case has its own process and is warmed up.",
        _statistics(speed),
        "The ratios compare a line with the first line on the same device: how many times lower the latency and "
        "higher the throughput is.",
        "Sizes are those of the stored files. PyTorch converts 16-bit weights to fp32 when it loads them."
        if any(map(stored_in_16_bits, speed.rows))
        else "",
        f"Measured on {machine_of(where)}{gpu}, {where.date}, with {_versions(where)}.",
        _default_precision(speed),
        "All values: [reports/speed.json](reports/speed.json).",
    ]
    return "\n".join(filter(None, sentences))


def _statistics(speed: Measurements) -> str:
    """What the numbers of the table are, over how many starts."""
    starts = max((row.values.get("starts", 0) for row in speed.rows), default=0)
    if starts < 2:
        return "The values are medians."
    return (
        f"Every case was started {count(starts)} times. The values are medians over the starts, ± the interquartile "
        "range. Brackets give the lowest and the highest ratio of a start."
    )


def _default_precision(speed: Measurements) -> str:
    """In which number format OpenVINO computed, in reports that have one case for each of its files."""
    if not any(has_default_precision(row.case, row) for row in speed.rows):
        return ""
    in_bf16 = any("bf16" in name for name in speed.environment.instruction_sets)
    found = "bf16 for all that is not int8" if in_bf16 else "fp32"
    return f"OpenVINO computed in its default precision, which is {found} on this CPU."


def describe_quality(quality: Measurements) -> str:
    """How quality was measured."""
    where = quality.environment
    sentences = [
        "Held-out text is the part of the corpus that the student was not trained on."
        if intrinsic_scores(quality)
        else "",
        "The models have different vocabularies. Values on held-out text are per token of each model's own vocabulary, "
        "so they do not say which model is better."
        if have_vocabularies_of_their_own(quality)
        else "",
        _protocol(quality.details["settings"]) if task_scores(quality) else "",
        _file_protocol(quality),
        "A linear probe is a logistic regression on the frozen model's last hidden states: their mean for a sentence, "
        "the first token's for a word."
        if main_scores(quality, "linear_probe")
        else "",
        "The lead over the majority class is the score minus that of a model that always answers the most frequent "
        "class. The table gives the share of the teacher's lead, ± its standard error over the test rows."
        if any(row.values.get("gain_over_majority") for row in quality.rows)
        else "",
        f"Measured on {machine_of(where)}{_gpu(where)}, {where.date}.",
        "All values and the single runs: [reports/quality.json](reports/quality.json).",
    ]
    return "\n".join(filter(None, sentences))


def _protocol(settings: Mapping[str, Any]) -> str:
    """How the tasks were fine-tuned."""
    seeds, limit = len(settings["seeds"]), settings["finetuning"].get("train_limit")
    rows = f" on at most {count(limit)} labelled rows" if limit else ""
    return (
        f"Teacher and student were fine-tuned on the tasks in the same way{rows}, "
        f"with {words(seeds)} seed{'s' if seeds > 1 else ''}. "
        f"The table gives {'mean ± standard deviation' if seeds > 1 else 'the score'} on the test set."
    )


def _file_protocol(quality: Measurements) -> str:
    """That files were made of the fine-tuned models, if some were."""
    if not any(Case.parse(row.case).backend in BACKENDS for row in quality.rows):
        return ""
    return (
        "For the columns of files, each fine-tuned student was exported in the same way as the published file and "
        "scored again."
    )


def describe_parity(parity: Measurements) -> str:
    """On how much text the files were compared, and in which arithmetic."""
    details = parity.details
    is_fp32 = any(has_default_precision(f"student-{row.case}", row) for row in parity.rows)
    what = "logits" if details.get("task") == "fill-mask" else "hidden states"
    full = details.get("full_length_texts")
    sentences = [
        f"The table compares the {what} of each file with those of the PyTorch model, on {count(details['sentences'])} "
        f"real sentences{f' and {count(full)} texts of full length' if full else ''}.",
        "The mean over all tokens is subtracted before the cosines are taken."
        if details.get("centred") or what == "logits"
        else "",
        "OpenVINO computes in fp32 here, also where its default is bf16." if is_fp32 else "",
    ]
    return "\n".join(filter(None, sentences))


def machine_of(where: Environment) -> str:
    """Processor and threads of a measurement."""
    return f"{escape(where.cpu)} ({where.threads} thread{'s' if where.threads != 1 else ''})"


def _gpu(where: Environment) -> str:
    return f" and {escape(where.gpu)}" if where.gpu else ""


def _versions(where: Environment) -> str:
    shown = ("python", "torch", "transformers", "onnxruntime", "openvino")
    return listing([f"{name} {where.versions[name]}" for name in shown if name in where.versions])
