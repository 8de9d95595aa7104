"""The recipe: one YAML file that says everything a run needs."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from distilrubert.common.checked_settings import kind_of, load_yaml, read_yaml, validated
from distilrubert.common.configuration import NameOrPath, Section
from distilrubert.common.errors import UserError
from distilrubert.common.formats import FORMATS
from distilrubert.conversion.conversion_settings import ConversionSettings, ExportedSettings
from distilrubert.distill.corpus.corpus_settings import CorpusSettings
from distilrubert.distill.distillation_settings import DistillationSettings, PretrainingSettings
from distilrubert.distill.losses import SENTENCE_LOSSES, losses_for
from distilrubert.evaluation.evaluation_settings import FinetuningSettings, IntrinsicSettings, Seeds
from distilrubert.evaluation.speed.speed_settings import SpeedSettings
from distilrubert.model_card.card_settings import CardSettings
from distilrubert.modeling.architecture import StudentArchitecture
from distilrubert.modeling.sentence_modules import SentenceSettings
from distilrubert.pipeline.hub.publish_settings import PublishSettings, check_form
from distilrubert.pipeline.task_settings import TaskSettings


class TeacherSettings(Section):
    """Where the teacher comes from: a checkpoint, or a small one trained on the recipe's own corpus."""

    model: NameOrPath | None = Field(
        None,
        description="Hub id or folder of a BERT, DistilBERT, RoBERTa, XLM-R, CamemBERT or ModernBERT; with its "
        "masked-language-modelling head, which losses over predictions need, or an encoder alone.",
    )
    revision: str = Field("main", description="Branch, tag or commit of the checkpoint on the Hub.")
    pretrain: PretrainingSettings | None = Field(
        None, description="Train a teacher on the recipe's corpus first, instead of loading one."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.model is None) == (self.pretrain is None):
            raise ValueError("give either model (a Hub id or folder) or pretrain")
        return self


class EvaluationSettings(Section):
    """What is measured: speed, held-out prediction, labelled tasks."""

    speed: SpeedSettings = Field(default_factory=SpeedSettings, description="How speed is measured.")
    intrinsic: IntrinsicSettings = Field(
        default_factory=IntrinsicSettings, description="How the prediction of held-out text is measured."
    )
    tasks: list[NameOrPath] = Field([], description="Labelled tasks: names of shipped ones or paths of YAML files.")
    probed_tasks: list[NameOrPath] = Field(
        [],
        description="Tasks on which a linear probe of the frozen models is scored and nothing is fine-tuned: minutes "
        "instead of hours. Those of `tasks` have one too.",
    )
    suite: NameOrPath | None = Field(
        None,
        description="Suite on which the vectors of sentences are scored, those of teacher, student and its int8 files: "
        "the name of a shipped one, or the path of a YAML file.",
    )
    seeds: Seeds = Field([1, 2, 3], description="Seeds of the fine-tuning runs of each task.")
    finetuning: FinetuningSettings = Field(
        default_factory=FinetuningSettings, description="The fine-tuning protocol, the same for every model."
    )
    processes: int = Field(
        1,
        ge=1,
        description="Fine-tuning runs at once, each with its share of the CPU's threads: faster than one after another "
        "on several cores, for the memory of one run each.",
    )
    exported: ExportedSettings = Field(
        default_factory=ExportedSettings,
        description="Files to score the fine-tuned students as.",
    )


class Recipe(Section):
    """Everything that one run needs."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=96,
        description="Name of the model and of the run directory: letters, digits, '.', '_' and '-'.",
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of everything that is drawn at random.")
    teacher: TeacherSettings = Field(description="The model to learn from.")
    corpus: CorpusSettings = Field(default_factory=CorpusSettings, description="The text to distil on.")
    student: StudentArchitecture = Field(default_factory=StudentArchitecture, description="The model to make.")
    sentences: SentenceSettings | None = Field(
        None, description="For an encoder of sentences, which distillation.weights then need a loss for."
    )
    distillation: DistillationSettings = Field(
        default_factory=DistillationSettings, description="Losses and optimisation."
    )
    task: TaskSettings | None = Field(
        None, description="For a student of a task, after the distillation on the corpus or in its place."
    )
    conversion: ConversionSettings = Field(
        default_factory=ConversionSettings, description="The files to export and how close they must be."
    )
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings, description="What to measure.")
    card: CardSettings = Field(description="What the model card says beyond the measurements.")
    publish: PublishSettings = Field(default_factory=PublishSettings, description="Where the result goes.")

    @field_validator("name")
    @classmethod
    def _acceptable_to_the_hub(cls, name: str) -> str:
        if "--" in name or ".." in name or name.endswith((".git", ".ipynb", "-", ".")):
            raise ValueError("the Hub refuses names with '--' or '..', or that end in '-', '.', '.git' or '.ipynb'")
        return name

    @model_validator(mode="after")
    def _has_what_is_distilled(self) -> Self:
        if "student" not in self.model_fields_set:
            raise ValueError("student is missing")
        if self.corpus.sources:
            return self
        if self.task is None:
            raise ValueError("corpus.sources is missing" if "corpus" in self.model_fields_set else "corpus is missing")
        if self.teacher.pretrain:
            raise ValueError("teacher.pretrain: needs a corpus; add corpus, or name teacher.model")
        if (own := self.student.own_vocabulary()) and own.train:
            raise ValueError(
                "student.vocabulary.train: is made from a corpus; add corpus, or trim the teacher's vocabulary to the "
                "task's text"
            )
        if self.student.pruning() and not self.student.start_from:
            raise ValueError(
                "student.prune: ranks the parts of the teacher on a corpus; add corpus, or name layers, dim, heads and "
                "hidden_dim instead of a preset that is pruned"
            )
        return self

    @model_validator(mode="after")
    def _task_is_all(self) -> Self:
        if self.task is None:
            return self
        if self.sentences:
            raise ValueError("sentences: a student of a task is no encoder of sentences; leave out one of the two")
        for field in ("tasks", "probed_tasks", "suite"):
            if getattr(self.evaluation, field):
                raise ValueError(
                    f"evaluation.{field}: a student of a task is scored on that task alone; leave it out, and make the "
                    "general student by a recipe without task to score it"
                )
        for field in ("task", "tolerance"):
            if getattr(self.conversion, field) != ConversionSettings.model_fields[field].default:
                raise ValueError(
                    f"conversion.{field}: the files of a student of a task have its head, and are compared with it in "
                    "decisions (task.equal_decisions); leave it out"
                )
        if "masked-lm-int8" in self.conversion.onnx:
            raise ValueError("conversion.onnx: a student of a task has no head for masks; leave out masked-lm-int8")
        return self

    @model_validator(mode="after")
    def _starts_from_a_student_of_its_teacher(self) -> Self:
        if self.student.start_from and self.teacher.pretrain:
            raise ValueError(
                "student.start_from: a teacher that is trained here has a new vocabulary; name the one that the "
                "student had, as teacher.model"
            )
        return self

    @model_validator(mode="after")
    def _losses_of_the_vocabulary(self) -> Self:
        # Which vocabulary a finished student has, its files say.
        if self.student.start_from:
            return self
        own = self.student.own_vocabulary()
        if own and own.trim and self.teacher.pretrain:
            raise ValueError(
                "student.vocabulary.trim is for a teacher that is loaded; one that is trained here has "
                "teacher.pretrain.vocabulary_size tokens"
            )
        is_paired = own is not None and own.train is not None
        allowed = losses_for("two" if is_paired else "one")
        named = [name for name, weight in self.distillation.weights if weight > 0]
        if strange := [name for name in named if name not in allowed]:
            whose = "a vocabulary of its own" if is_paired else "its teacher's vocabulary"
            raise ValueError(
                f"distillation.weights: {', '.join(strange)} cannot be computed for a student with {whose}; allowed "
                f"are {', '.join(allowed)}"
            )
        return self

    @model_validator(mode="after")
    def _sentence_losses(self) -> Self:
        named = [name for name in SENTENCE_LOSSES if getattr(self.distillation.weights, name) > 0]
        if self.sentences and not named:
            raise ValueError(f"sentences: needs {' or '.join(SENTENCE_LOSSES)} in distillation.weights")
        if named and not self.sentences:
            raise ValueError(f"distillation.weights: {', '.join(named)} need a section sentences, for example {{}}")
        if self.sentences and self.conversion.task != "feature-extraction":
            raise ValueError("conversion.task: fill-mask makes no vectors of sentences; use feature-extraction")
        return self

    @model_validator(mode="after")
    def _page_has_its_file(self) -> Self:
        file, use = FORMATS["onnx-masked-lm-int8"], "fills masks"
        if self.task or self.sentences:
            file, use = FORMATS["onnx-int8"], "runs the student" if self.task else "compares sentences"
        if self.publish.space and file.case not in self.conversion.cases:
            raise ValueError(f"publish.space: the page {use} with {file.path}; add {file.name} to conversion.onnx")
        return self

    @model_validator(mode="after")
    def _frozen_embeddings_are_the_teachers(self) -> Self:
        own = self.student.own_vocabulary()
        is_new = own is not None and own.train is not None
        others = {
            "vocabulary.train": is_new,
            "initialise_from: random": self.student.initialise_from == "random",
            "prune": self.student.prune is not None,
            f"preset: {self.student.preset}": self.student.pruning() is not None,
        }
        if self.distillation.freeze_embeddings and any(others.values()):
            raise ValueError(
                "distillation.freeze_embeddings: only for embeddings that are the teacher's own, not with "
                f"student.{next(name for name, holds in others.items() if holds)}"
            )
        return self


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; relative paths inside it start at its folder.

    An override is ``key=value`` with a dotted key and a YAML value, for example ``distillation.max_steps=200``.

    Raises:
        UserError: if the file cannot be read, is not YAML, or a field is missing, unknown or of the wrong kind.
    """
    values = overridden(read_yaml(path, "recipe"), overrides)
    try:
        recipe = validated(Recipe, values, folder=path.parent.resolve())
        # Not by pydantic, whose messages show the value: an endpoint may have a password in it.
        check_form(recipe.publish)
        return recipe
    except UserError as error:
        field = str(error).partition(": ")[0].split()[-1]
        keys = [override.partition("=")[0] for override in overrides]
        raise UserError(f"{path}: {error}{', given on the command line' if field in keys else ''}") from None


def overridden(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Plain values by key with each ``key=value`` of the command line put in.

    Raises:
        UserError: if an override has no key or no YAML value, or its key goes through something that is no section.
    """
    changed = copy.deepcopy(dict(values))
    for override in overrides:
        _apply(changed, override)
    return changed


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected KEY=VALUE")
    try:
        value = load_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"--set {override}: the value is not YAML") from error
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {parent} holds {kind_of(values)}, so it has no keys")
    values[last] = value
