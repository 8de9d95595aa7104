"""What a card says about the training: losses, layers, effort, corpus, energy."""

from collections.abc import Mapping
from typing import Any

from distilrubert.common.measurements import Measurements
from distilrubert.model_card.card_facts import CorpusFacts
from distilrubert.model_card.formatting import count, duration, escape, listing, number, short_count
from distilrubert.model_card.inputs import CardInput
from distilrubert.model_card.prose import machine_of
from distilrubert.model_card.tables import loss_table

MOST_ORIGINS = 6


def describe_training(run: CardInput) -> dict[str, Any]:
    """How the student was trained, on what, with which losses, and what it cost."""
    training = run.training
    return {
        "start": _start(training),
        "loss_table": training and loss_table(training),
        "pretraining": run.pretraining
        and f"The teacher was trained first, on the same corpus: {_effort(run.pretraining)}.",
        "training": training and _distillation(training),
        "optimisation": training and _optimisation(training.details["settings"]),
        "corpus": _corpus(run),
        "energy": _energy(run),
    }


def _start(training: Measurements | None) -> str:
    """Where the student's first weights come from."""
    initialisation = training.details.get("initialisation") if training else None
    if initialisation is None:
        return "layers of the teacher"
    if initialisation["layers"] is None:
        return "random weights"
    layers = listing([str(layer + 1) for layer in initialisation["layers"]])
    return f"layers {layers} of the teacher's {initialisation['teacher_layers']} (the first layer is 1)"


def _distillation(training: Measurements) -> str:
    """What it took to train the student, on what."""
    values, where = training.rows[0].values, training.environment
    processes, hardware = values.get("processes", 1), escape(where.gpu) if where.gpu else machine_of(where)
    machines = f"{processes} × {hardware}" if processes > 1 else hardware
    return (
        f"The distillation took {_effort(training)} on {machines}, in {escape(values.get('precision', 'fp32'))}, "
        f"at {count(values['tokens_per_s'])} tokens/s."
    )


def _effort(training: Measurements) -> str:
    values = training.rows[0].values
    return (
        f"{duration(values['wall_time_s'])} ({count(values['steps'])} updates, {short_count(values['tokens'])} tokens)"
    )


def _optimisation(settings: Mapping[str, Any]) -> str:
    """The optimiser's settings."""
    text = (
        f"The optimiser is AdamW. The peak learning rate of {settings['learning_rate']:g} is reached after "
        f"{100 * settings['warmup']:g} % of the updates. "
        f"An update sees at most {count(settings['batch_tokens'] * settings['batches_per_update'])} tokens."
    )
    if masking := settings.get("masking"):
        rare = ", rare ones more often" if masking.get("smoothing") else ""
        text += f" {100 * masking['probability']:g} % of the tokens are masked{rare}."
    return text


def _corpus(run: CardInput) -> str:
    """What the corpus is, from the settings and the manifest."""
    parts = [run.settings.corpus_description, _counts(run.facts.corpus) if run.facts.corpus else None]
    return "\n".join(["**Corpus.**", *filter(None, parts)]) if any(parts) else ""


def _counts(corpus: CorpusFacts) -> str:
    """Sequences and tokens of the corpus, and where they came from."""
    names = [f"`{origin.replace('`', '')}`" for origin in corpus.origins]
    named = listing(names) if len(names) <= MOST_ORIGINS else f"{count(len(names))} files"
    return (
        f"The text comes from {named}. It has {count(corpus.texts)} texts; {count(corpus.duplicates)} exact duplicates "
        f"were left out.\n"
        f"The training set has {short_count(corpus.train_tokens)} tokens in {count(corpus.train_sequences)} sequences "
        f"of at most {corpus.max_length} tokens. {count(corpus.validation_sequences)} sequences are held out."
    )


def _energy(run: CardInput) -> dict[str, str] | None:
    if run.settings.watts is None or run.training is None:
        return None
    reports = filter(None, (run.pretraining, run.training))
    seconds = sum(report.rows[0].values["wall_time_s"] for report in reports)
    return {
        "what": "training of the teacher and of the student" if run.pretraining else "distillation",
        "left_out": "" if run.pretraining else "the training of the teacher, ",
        "time": duration(seconds),
        "watts": number(run.settings.watts),
        "kwh": number(seconds / 3600 * run.settings.watts / 1000),
    }
