"""What a card says about the training: losses, layers, effort, corpus, energy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilrubert.common.measurements import Measurements
from distilrubert.model_card.formatting import count, duration, escape, figure, listing, short_count
from distilrubert.model_card.inputs import CardInput
from distilrubert.model_card.prose import machine_of
from distilrubert.model_card.tables import loss_table
from distilrubert.modeling.architecture import spread_layers

MOST_ORIGINS = 6


def describe_training(run: CardInput) -> dict[str, Any]:
    """How the student was trained, on what, with which losses, and what it cost."""
    settings = run.distillation
    return {
        "start": _start(run),
        "loss_table": loss_table(settings["weights"], run.training),
        "pretraining": run.pretraining and describe_pretraining(run.pretraining),
        "training": run.training and describe_distillation(run.training),
        "optimisation": describe_optimisation(settings),
        "corpus": _corpus(run),
        "energy": _energy(run),
    }


def _start(run: CardInput) -> str:
    """Where the student's first weights come from."""
    total, layers = _teacher_layers(run), run.config["n_layers"]
    given = run.recipe["student"].get("initialise_from")
    if given == "random":
        return "random weights"
    chosen = given or (spread_layers(layers, total) if total else None)
    if chosen is None:
        return "blocks of the teacher"
    of = f" of {total}" if total else ""
    return f"the teacher's blocks {listing([str(layer + 1) for layer in chosen])}{of} (counted from one)"


def _teacher_layers(run: CardInput) -> int | None:
    """From the teacher's config; while that is not at hand, from the recipe that trains it."""
    if run.teacher_config:
        return int(run.teacher_config["num_hidden_layers"])
    return (run.recipe["teacher"].get("pretrain") or {}).get("layers")


def describe_pretraining(training: Measurements) -> str:
    """What it took to train the teacher."""
    return f"The teacher was trained first, on the same corpus: {_effort(training)}."


def describe_distillation(training: Measurements) -> str:
    """What it took to train the student, on what."""
    figures, where = training.rows[0].figures, training.environment
    processes, hardware = figures.get("processes", 1), escape(where.gpu) if where.gpu else machine_of(where)
    machines = f"{processes} × {hardware}" if processes > 1 else hardware
    return (
        f"The distillation took {_effort(training, ':')} on {machines}, in {figures.get('precision', 'fp32')}, "
        f"at {count(figures['tokens_per_s'])} tokens/s."
    )


def _effort(training: Measurements, before_time: str = ",") -> str:
    figures = training.rows[0].figures
    return (
        f"{count(figures['steps'])} updates over {short_count(figures['tokens'])} tokens{before_time} "
        f"{duration(figures['wall_time_s'])}"
    )


def describe_optimisation(settings: Mapping[str, Any]) -> str:
    """The optimiser's settings."""
    masking = settings.get("masking") or {}
    sentences = [
        f"AdamW at a peak learning rate of {settings['learning_rate']:g}, reached after {100 * settings['warmup']:g} % "
        f"of the updates; up to {count(settings['batch_tokens'] * settings['batches_per_update'])} tokens an update.",
        f"{100 * masking['probability']:g} % of the pieces are to be predicted"
        f"{', rare ones more often' if masking.get('smoothing') else ''}."
        if masking
        else "",
    ]
    return " ".join(filter(None, sentences))


def _corpus(run: CardInput) -> str:
    """What the corpus is, from the settings and the manifest."""
    parts = [run.settings.corpus_description, _counts(run.manifest) if run.manifest else None]
    return "\n".join(["**Corpus.**", *filter(None, parts)]) if any(parts) else ""


def _counts(manifest: Mapping[str, Any]) -> str:
    """Sequences and tokens of the corpus, and where they came from. No folder of the machine that read them."""
    total = manifest["total"]
    origins = [origin for source in manifest["sources"] for origin in source["origins"]]
    names = [f"`{_origin_name(origin)}`" for origin in origins]
    named = listing(names) if len(names) <= MOST_ORIGINS else f"{count(len(names))} files"
    sequences, held_out = count(total["train_sequences"]), count(total["validation_sequences"])
    return (
        f"Read from {named}: {short_count(total['train_tokens'])} tokens in {sequences} sequences "
        f"of at most {manifest['settings']['max_length']}, and {held_out} sequences held out. "
        f"Of {count(total['texts'])} texts, {count(total['duplicates'])} exact duplicates were dropped."
    )


def _origin_name(origin: Mapping[str, Any]) -> str:
    """A data set's id, or a file's name."""
    return str(origin.get("dataset") or Path(origin["path"]).name)


def _energy(run: CardInput) -> dict[str, str] | None:
    if run.settings.watts is None or run.training is None:
        return None
    reports = filter(None, (run.pretraining, run.training))
    seconds = sum(report.rows[0].figures["wall_time_s"] for report in reports)
    return {
        "what": "training of the teacher and of the student" if run.pretraining else "distillation",
        "left_out": "" if run.pretraining else "the training of the teacher, ",
        "time": duration(seconds),
        "watts": figure(run.settings.watts),
        "kwh": figure(seconds / 3600 * run.settings.watts / 1000),
    }
