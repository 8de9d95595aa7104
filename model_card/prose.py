"""What a card says in sentences: the model, its training, and how its figures were measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilrubert.model_card.cases import Case
from distilrubert.model_card.formatting import count, duration, escape, figure, listing, short_count, words
from distilrubert.model_card.inputs import CardInput
from distilrubert.model_card.tables import loss_table
from distilrubert.modeling.presets import spread_layers
from distilrubert.modeling.reports import Environment, Measurements

LANGUAGE_NAMES = {"ru": "Russian", "en": "English", "uk": "Ukrainian", "be": "Belarusian", "kk": "Kazakh"}
MOST_ORIGINS = 6


def describe_model(run: CardInput) -> dict[str, Any]:
    """The model's shape and size, and its fastest file."""
    config = run.config
    name = escape(run.teacher_name)
    return {
        "name": escape(run.name),
        "teacher": f"[{name}](https://huggingface.co/{run.teacher_id})" if run.teacher_id else name,
        "languages": listing([LANGUAGE_NAMES.get(code, f"'{code}'") for code in run.settings.language]),
        "layers": config["n_layers"],
        "heads": config["n_heads"],
        "dim": config["dim"],
        "hidden_dim": count(config["hidden_dim"]),
        "vocabulary": count(config["vocab_size"]),
        "positions": config["max_position_embeddings"],
        **_parameters(run),
        "fastest": _fastest(run.speed) if run.speed else None,
    }


def _parameters(run: CardInput) -> dict[str, str | None]:
    """Parameters of the student, and of the teacher where both were counted in the same way."""
    counted = {
        Case.parse(row.case).model: row.figures["parameters"]
        for row in (run.speed.rows if run.speed else [])
        if Case.parse(row.case).backend == "pytorch" and row.figures.get("parameters")
    }
    student, teacher = counted.get("student"), counted.get("teacher")
    if student is None and run.training:
        student = run.training.rows[0].figures.get("parameters")
    return {
        "parameters": short_count(student) if student else None,
        "teacher_parameters": short_count(teacher) if teacher else None,
        "compression": figure(teacher / student) if student and teacher else None,
    }


def _fastest(speed: Measurements) -> dict[str, str] | None:
    """The student's file with the best ratio on the CPU."""
    rows = [
        row
        for row in speed.rows
        if row.ratio is not None and Case.parse(row.case).model == "student" and not Case.parse(row.case).cuda
    ]
    if not rows:
        return None
    best = max(rows, key=lambda row: row.ratio or 0)
    case = Case.parse(best.case)
    return {
        "label": case.label.removeprefix("Student, "),
        "size": figure(best.figures["size_mib"]),
        "ratio": figure(best.ratio or 0),
    }


def describe_speed(run: CardInput, speed: Measurements) -> str:
    """How and where speed was measured."""
    settings = run.recipe["evaluation"]["speed"]
    batches = settings["batch_sizes"]
    where = speed.environment
    sentences = [
        f"Random sequences of {settings['sequence_length']} tokens; latency at batch size {min(batches)}, "
        f"throughput at batch size {max(batches)}; medians, each case warmed up in a process of its own.",
        f"Measured on {_machine(where)}{_gpu(where)}, {where.date}, with {_versions(where)}.",
        f"Speed-up is against {Case.parse(speed.baseline).label}." if speed.baseline else "",
        "All figures: [reports/speed.json](reports/speed.json).",
    ]
    return "\n".join(filter(None, sentences))


def describe_quality(run: CardInput, quality: Measurements) -> str:
    """How quality was measured."""
    seeds = run.recipe["evaluation"].get("seeds", [])
    tasks = any(row.figures.get("tasks") for row in quality.rows)
    sentences = [
        "Held-out text is the part of the corpus that the student was not trained on.",
        f"On the tasks teacher and student were fine-tuned in the same way, with {words(len(seeds))} "
        f"seed{'s' if len(seeds) > 1 else ''} each: mean ± standard deviation on the test part."
        if tasks and seeds
        else "",
        f"Measured on {_machine(quality.environment)}, {quality.environment.date}.",
        "All figures and the single runs: [reports/quality.json](reports/quality.json).",
    ]
    return "\n".join(filter(None, sentences))


def describe_training(run: CardInput) -> dict[str, Any]:
    """How the student was trained, on what, with which losses, and what it cost."""
    return {
        "start": _start(run),
        "loss_table": loss_table(run, loss_meanings(run)),
        "training": _effort(run.training) if run.training else None,
        "optimisation": _optimisation(run.recipe["distillation"]),
        "corpus": _corpus(run),
        "energy": _energy(run),
    }


def loss_meanings(run: CardInput) -> Mapping[str, str]:
    """Each loss in words."""
    settings = run.recipe["distillation"]
    positions = "the masked" if settings.get("kl_positions") == "masked" else "all"
    return {
        "kl": f"KL divergence from the teacher's to the student's predictions at temperature "
        f"{settings['temperature']:g}, over {positions} positions",
        "mlm": "Masked-language-modelling cross-entropy of the student at the masked positions",
        "cosine": f"Cosine distance between each hidden state of the student and {_block(run)}",
    }


def _block(run: CardInput) -> str:
    """The layer map in words, as the reference card puts it."""
    if run.recipe["distillation"].get("layer_map", "block-mean") != "block-mean":
        return f"the teacher's, by the map {escape(str(run.recipe['distillation']['layer_map']))}"
    teacher, student = _teacher_layers(run), run.config["n_layers"]
    if teacher and teacher == student:
        return "the teacher's at the same depth"
    number = f" {words(teacher // student)}" if teacher and teacher % student == 0 else ""
    return f"the mean of{number} consecutive hidden states of the teacher"


def _teacher_layers(run: CardInput) -> int | None:
    """From the teacher's config; while that is not at hand, from the recipe that trains it."""
    if run.teacher_config:
        return int(run.teacher_config["num_hidden_layers"])
    return (run.recipe["teacher"].get("pretrain") or {}).get("layers")


def _start(run: CardInput) -> str:
    """Where the student's first weights come from."""
    total, layers = _teacher_layers(run), run.config["n_layers"]
    given = run.recipe["student"].get("initialise_from")
    chosen = given or (spread_layers(layers, total) if total else None)
    if chosen is None:
        return "blocks of the teacher"
    of = f" of {total}" if total else ""
    return f"the teacher's blocks {listing([str(layer + 1) for layer in chosen])}{of}"


def _effort(training: Measurements) -> dict[str, str]:
    figures = training.rows[0].figures
    return {
        "steps": count(figures["steps"]),
        "tokens": short_count(figures["tokens"]),
        "time": duration(figures["wall_time_s"]),
        "hardware": training.environment.gpu or _machine(training.environment),
        "precision": str(figures.get("precision", "fp32")),
        "tokens_per_s": count(figures["tokens_per_s"]),
    }


def _optimisation(settings: Mapping[str, Any]) -> str:
    """The optimiser's settings."""
    masking = settings.get("masking") or {}
    sentences = [
        f"AdamW at a peak learning rate of {settings['learning_rate']:g}, reached after {100 * settings['warmup']:g} % "
        f"of the updates; up to {count(settings['batch_tokens'] * settings['batches_per_update'])} tokens an update.",
        f"{100 * masking['probability']:g} % of the pieces are to be predicted, rare ones more often."
        if masking
        else "",
    ]
    return " ".join(filter(None, sentences))


def _corpus(run: CardInput) -> str:
    """What the corpus is, from the settings and the manifest."""
    return "\n\n".join(filter(None, [run.settings.corpus_description, _counts(run.manifest) if run.manifest else ""]))


def _counts(manifest: Mapping[str, Any]) -> str:
    """Sequences and tokens of the corpus, and where they came from. No folder of the machine that read them."""
    total = manifest["total"]
    origins = [origin for source in manifest["sources"] for origin in source["origins"]]
    names = [f"`{_origin_name(origin)}`" for origin in origins]
    named = listing(names) if len(names) <= MOST_ORIGINS else f"{count(len(names))} files"
    return (
        f"Corpus: {named}; {short_count(total['train_tokens'])} tokens in {count(total['train_sequences'])} sequences "
        f"of at most {manifest['settings']['max_length']}, and {count(total['validation_sequences'])} sequences held out. "
        f"Of {count(total['texts'])} texts, {count(total['duplicates'])} exact duplicates were dropped."
    )


def _origin_name(origin: Mapping[str, Any]) -> str:
    """A data set's id, or a file's name."""
    return str(origin.get("dataset") or Path(origin["path"]).name)


def _energy(run: CardInput) -> dict[str, str] | None:
    if run.settings.watts is None or run.training is None:
        return None
    hours = run.training.rows[0].figures["wall_time_s"] / 3600
    return {
        "hours": figure(hours),
        "watts": figure(run.settings.watts),
        "kwh": figure(hours * run.settings.watts / 1000),
    }


def _machine(where: Environment) -> str:
    return f"{escape(where.cpu)} ({where.threads} thread{'s' if where.threads != 1 else ''})"


def _gpu(where: Environment) -> str:
    return f" and {escape(where.gpu)}" if where.gpu else ""


def _versions(where: Environment) -> str:
    shown = ("python", "torch", "transformers", "onnxruntime", "openvino")
    return listing([f"{name} {where.versions[name]}" for name in shown if name in where.versions])
