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
        has_files: whether it is exported, timed and described by a card too; what only compares losses is as large as
            the student it compares with.
        tasks: what it is fine-tuned on; all others that have classes are probed.
        updates: how long it is trained, for what two cores can do in a day.
    """

    name: str
    title: str
    recipe: str
    overrides: tuple[str, ...] = ()
    has_files: bool = False
    tasks: tuple[str, ...] = ("rusentiment", "factrueval")
    updates: int = 400


MLM_ONLY = "distillation.weights={mlm: 1.0}"
LESS_MLM = "distillation.weights={kl: 5, mlm: 0.5, cosine: 1}"
NO_KL = "distillation.weights={mlm: 2, cosine: 1}"
NO_COSINE = "distillation.weights={kl: 5, mlm: 2}"
NO_MLM = "distillation.weights={kl: 5, cosine: 1}"
SCRATCH = "student.initialise_from=random"
SOME_TASKS = ("rusentiment", "factrueval", "rucola", "paraphraser")
ALL_TASKS = (*SOME_TASKS, "terra", "xquad-ru")
# A probe tells classes apart, which question answering has not.
PROBED = ALL_TASKS[:-1]
# Former students: other first layers, with the rate of DistilBERT.
FAST = "distillation.learning_rate=5e-4"
THIN = (FAST, "student.initialise_from=[0, 1, 2, 4, 7, 11]")
SPREAD = (FAST, "student.initialise_from=null")
LOWEST = (FAST, "student.initialise_from=[0, 1, 2, 3, 4, 5]")
FROZEN = "distillation.freeze_embeddings=true"
RARE = "distillation.masking.smoothing=0.7"
ALL = "distillation.kl_positions=all"
EXPORTED = "evaluation.exported={onnx: [int8], openvino: [int8]}"

# The cheap ones first, so that the tables fill early; of base the student itself and what it must beat first.
CURRENT = (
    Model("tiny-5k-mlm-only", "tiny-5k without distillation", "reference-tiny-5k", (MLM_ONLY,)),
    Model("tiny-5k", "tiny-5k: 3 layers of 132, 2,500 pieces", "reference-tiny-5k", has_files=True),
    Model("tiny-mlm-only", "tiny without distillation", "reference-tiny", (MLM_ONLY,)),
    Model("tiny", "tiny: 3 layers of 132, 8,000 pieces", "reference-tiny", has_files=True),
    Model("small", "small: 2 layers", "reference-small", has_files=True),
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
        (MLM_ONLY, SCRATCH, FAST),
    ),
)
# Of before better first layers and rates were known.
FORMER = (
    Model(
        "base-thin",
        "base from layers 0, 1, 2, 4, 7 and 11, at a higher rate",
        "reference-base",
        (*THIN, EXPORTED),
        tasks=SOME_TASKS,
    ),
    Model(
        "base-thin-mlm-only",
        "base-thin without distillation",
        "reference-base",
        (*THIN, MLM_ONLY),
        tasks=SOME_TASKS,
    ),
    Model(
        "base-long",
        "base-thin after three times the updates",
        "reference-base",
        (*THIN, EXPORTED),
        tasks=SOME_TASKS,
        updates=1200,
    ),
    Model(
        "base-long-mlm-only",
        "base-long without distillation",
        "reference-base",
        (*THIN, MLM_ONLY),
        tasks=SOME_TASKS,
        updates=1200,
    ),
    Model("base-frozen", "base-thin with the word embeddings of its teacher", "reference-base", (*THIN, FROZEN)),
    Model("base-lowest", "base-thin from the six lowest layers", "reference-base", LOWEST),
    Model("base-spread", "base-thin from every other layer", "reference-base", (*SPREAD, EXPORTED)),
    Model("base-spread-mlm-only", "base-spread without distillation", "reference-base", (*SPREAD, MLM_ONLY)),
    Model("base-less-mlm", "base-spread with a fourth of MLM's weight", "reference-base", (*SPREAD, LESS_MLM)),
    Model("base-rare", "base-spread with masks that prefer rare pieces", "reference-base", (*SPREAD, RARE)),
    Model("base-rare-mlm-only", "base-rare without distillation", "reference-base", (*SPREAD, RARE, MLM_ONLY)),
    Model("base-rare-all", "base-rare with KL at all tokens", "reference-base", (*SPREAD, RARE, ALL, EXPORTED)),
)
MODELS = CURRENT + FORMER
