"""The models of the reference experiment: a recipe each, and how it differs from that."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Model:
    """One model.

    Attributes:
        name: of its run directory and its results.
        title: what it is, for a reader.
        recipe: name of the recipe that it is made from.
        overrides: what differs from the recipe, as ``key=value``.
        has_files: whether it is also exported, timed and described by a card. A model that only compares losses is
            as large as the student it is compared with.
        tasks: the tasks that it is fine-tuned on; all others that have classes are probed.
        updates: the number of updates, chosen for two cores and a day.
    """

    name: str
    title: str
    recipe: str
    overrides: tuple[str, ...] = ()
    has_files: bool = False
    tasks: tuple[str, ...] = ("rusentiment", "factrueval")
    updates: int = 400


MLM_ONLY = "distillation.weights={mlm: 1.0}"
NO_KL = "distillation.weights={mlm: 2, cosine: 1}"
NO_COSINE = "distillation.weights={kl: 5, mlm: 2}"
NO_MLM = "distillation.weights={kl: 5, cosine: 1}"
SCRATCH = "student.initialise_from=random"
ALL_TASKS = ("rusentiment", "factrueval", "rucola", "paraphraser", "terra", "xquad-ru")
# A linear probe needs classes, which question answering does not have.
PROBED = ALL_TASKS[:-1]
HIGH_RATE = "distillation.learning_rate=5e-4"
EXPORTED = "evaluation.exported={onnx: [int8], openvino: [int8]}"

# The cheap ones first, so that the tables fill early.
MODELS = (
    Model("tiny-5k-mlm-only", "tiny-5k without distillation", "reference-tiny-5k", (MLM_ONLY,)),
    Model("tiny-5k", "tiny-5k: 3 layers of 132, 2,500 tokens", "reference-tiny-5k", has_files=True),
    Model("tiny-mlm-only", "tiny without distillation", "reference-tiny", (MLM_ONLY,)),
    Model("tiny", "tiny: 3 layers of 132, 8,000 tokens", "reference-tiny", has_files=True),
    Model("small", "small: 2 layers", "reference-small", has_files=True),
    # 1,400 updates of slim take about four fifths of the time of 400 of base or small.
    Model("slim", "slim: 6 layers of half the width", "reference-slim", has_files=True, updates=4000),
    Model("slim-1400", "slim after 1,400 updates", "reference-slim", updates=1400),
    Model("slim-400", "slim after 400 updates", "reference-slim"),
    Model("narrow", "narrow: 6 layers, a third of the feed-forward units", "reference-narrow", has_files=True),
    Model("base-mlm-only", "base without distillation", "reference-base", (MLM_ONLY,), tasks=ALL_TASKS),
    Model("base", "base: 6 layers", "reference-base", (EXPORTED,), has_files=True, tasks=ALL_TASKS),
    Model("base-start", "base after a single update", "reference-base", updates=1),
    Model("base-no-kl", "base without KL", "reference-base", (NO_KL,)),
    Model("base-no-mlm", "base without MLM", "reference-base", (NO_MLM,)),
    Model("base-no-cosine", "base without cosine", "reference-base", (NO_COSINE,)),
    Model(
        "base-scratch",
        "base without distillation, from random weights",
        "reference-base",
        (MLM_ONLY, SCRATCH, HIGH_RATE),
    ),
)
