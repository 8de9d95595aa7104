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
    """

    name: str
    title: str
    recipe: str
    overrides: tuple[str, ...] = ()
    has_files: bool = False
    tasks: tuple[str, ...] = ("rusentiment", "factrueval")


MLM_ONLY = "distillation.weights={mlm: 1.0}"
LESS_MLM = "distillation.weights={kl: 5, mlm: 0.5, cosine: 1}"
NO_KL = "distillation.weights={mlm: 2, cosine: 1}"
NO_COSINE = "distillation.weights={kl: 5, mlm: 2}"
NO_MLM = "distillation.weights={kl: 5, cosine: 1}"
ALL_TASKS = ("rusentiment", "factrueval", "rucola", "paraphraser", "terra", "xquad-ru")
# A probe tells classes apart, which question answering has not.
PROBED = ALL_TASKS[:-1]
LOWEST = "student.initialise_from=[0, 1, 2, 3, 4, 5]"
# As DistilBERT has it; what was run before even masks were known to be better.
RARE = "distillation.masking.smoothing=0.7"
ALL = "distillation.kl_positions=all"
EXPORTED = "evaluation.exported={onnx: [int8], openvino: [int8]}"

# The cheap ones first, so that the tables fill early; of base the student itself and what it must beat first.
MODELS = (
    Model("tiny-5k-mlm-only", "tiny-5k without distillation", "reference-tiny-5k", (MLM_ONLY,)),
    Model("tiny-5k", "tiny-5k: 3 layers of 132, 2,500 pieces", "reference-tiny-5k", has_files=True),
    Model("tiny-mlm-only", "tiny without distillation", "reference-tiny", (MLM_ONLY,)),
    Model("tiny", "tiny: 3 layers of 132, 8,000 pieces", "reference-tiny", has_files=True),
    Model("small", "small: 2 layers", "reference-small", has_files=True),
    Model("base-mlm-only", "base without distillation", "reference-base", (MLM_ONLY,), tasks=ALL_TASKS),
    Model("base", "base: 6 layers", "reference-base", (EXPORTED,), has_files=True, tasks=ALL_TASKS),
    Model(
        "base-scratch",
        "base without distillation, from random weights",
        "reference-base",
        (MLM_ONLY, "student.initialise_from=random"),
    ),
    Model("base-lowest", "base from the six lowest layers of its teacher", "reference-base", (LOWEST,)),
    Model("base-no-mlm", "base without MLM", "reference-base", (NO_MLM,)),
    Model("base-no-kl", "base without KL", "reference-base", (NO_KL,)),
    Model("base-no-cosine", "base without cosine", "reference-base", (NO_COSINE,)),
    Model("base-less-mlm", "base with a fourth of MLM's weight", "reference-base", (LESS_MLM,)),
    Model("base-rare", "base with masks that prefer rare pieces", "reference-base", (RARE,)),
    Model("base-rare-mlm-only", "base-rare without distillation", "reference-base", (RARE, MLM_ONLY)),
    Model("base-rare-all", "base-rare with KL at all tokens", "reference-base", (RARE, ALL, EXPORTED)),
    Model("base-rare-no-cosine", "base-rare without cosine", "reference-base", (RARE, NO_COSINE)),
)
