"""What a card says about the training: losses, layers, effort, corpus, energy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilrubert.model_card.formatting import count, duration, escape, figure, listing, short_count, words
from distilrubert.model_card.inputs import CardInput
from distilrubert.model_card.prose import machine_of
from distilrubert.model_card.tables import loss_table
from distilrubert.modeling.presets import spread_layers
from distilrubert.modeling.reports import Measurements

MOST_ORIGINS = 6


def describe_training(run: CardInput) -> dict[str, Any]:
    """How the student was trained, on what, with which losses, and what it cost."""
    return {
        "start": _start(run),
        "loss_table": loss_table(run, loss_meanings(run)),
        "pretraining": run.pretraining and describe_pretraining(run.pretraining),
        "training": run.training and describe_distillation(run.training),
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
        "cosine": f"Cosine distance between each hidden state of the student and {_target(run, 'hidden states')}",
        "hidden": f"Squared distance between each hidden state of the student and {_target(run, 'hidden states')}",
        "attention": f"Squared distance between each attention map of the student and {_target(run, 'attention maps')}",
        "first_piece": f"KL divergence at temperature {settings['temperature']:g} over the student's vocabulary, each "
        "piece with all that the teacher predicts of what begins with it",
        "match": f"KL divergence at temperature {settings['temperature']:g} over the pieces of both vocabularies, "
        "where both texts have the same piece",
        "reduce_map": f"KL divergence at temperature {settings['temperature']:g} over the teacher's whole vocabulary, "
        "each piece predicted through those of the student that spell it",
        "reduce": "Squared distance between the teacher's state of a token and the mean state of the pieces that "
        "face it",
        "reduce_cosine": "Cosine distance between the teacher's state of a token and the mean state of the pieces that "
        "face it",
    }


def _target(run: CardInput, states: str) -> str:
    """What a layer of the student learns from by the layer map, in the words of the reference card."""
    layer_map = run.recipe["distillation"].get("layer_map", "block-mean")
    if layer_map == "last-of-block":
        return f"the last of its block of consecutive {states} of the teacher"
    if layer_map != "block-mean":
        return f"the mean of those {states} of the teacher that the recipe lists for it"
    teacher, student = _teacher_layers(run), run.config["n_layers"]
    if teacher is None:
        return f"the mean of consecutive {states} of the teacher"
    if teacher == student:
        return "the teacher's at the same depth"
    sizes = sorted({(k + 1) * teacher // student - k * teacher // student for k in range(student)})
    return f"the mean of {' or '.join(map(words, sizes))} consecutive {states} of the teacher"


def _teacher_layers(run: CardInput) -> int | None:
    """From the teacher's config; while that is not at hand, from the recipe that trains it."""
    if run.teacher_config:
        return int(run.teacher_config["num_hidden_layers"])
    return (run.recipe["teacher"].get("pretrain") or {}).get("layers")


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


def _optimisation(settings: Mapping[str, Any]) -> str:
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
