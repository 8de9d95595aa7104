"""A labelled task, as its YAML file defines it."""

import difflib
import os
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Self

from datasets import Dataset
from pydantic import Field, field_validator, model_validator

from distilrubert.common.checked_settings import read_yaml, stated_settings
from distilrubert.common.configuration import RecipePath, Section
from distilrubert.common.errors import UserError
from distilrubert.evaluation.tasks.kinds import KINDS
from distilrubert.evaluation.tasks.kinds.task_kind import Labels, TaskKind
from distilrubert.evaluation.tasks.metrics import METRICS, RANKED


class TaskFiles(Section):
    """The task's data as files: parquet, csv or jsonl, also compressed (.gz, .zst)."""

    train: RecipePath = Field(description="Labelled rows to train on. A relative path starts at the YAML's folder.")
    validation: RecipePath | None = Field(None, description="Rows to choose on; null: a share of train.")
    test: RecipePath | None = Field(None, description="Rows to report on; null: a share of train (test_share).")


class TaskDataset(Section):
    """The task's data as a dataset of the Hugging Face Hub."""

    id: str = Field(description="Id of the dataset on the Hub.")
    config: str | None = Field(None, description="Name of its configuration.")
    revision: str = Field("main", description="Branch, tag or commit.")
    train: str = Field("train", description="Split to train on.")
    validation: str | None = Field(None, description="Split to choose on; null: a share of train.")
    test: str | None = Field("test", description="Split to report on; null: a share of train (test_share).")


class TaskDefinition(Section):
    """One labelled task: its data, its columns and classes, its metrics."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Short name: small letters, digits, '-'.")
    title: str = Field(description="Name for a table.")
    kind: str = Field(description=f"One of {', '.join(KINDS)}.")
    files: TaskFiles | None = Field(None, description="The data as files; this or dataset.")
    dataset: TaskDataset | None = Field(None, description="The data as a dataset of the Hub; this or files.")
    columns: dict[str, str] = Field(
        {}, description="Column of the data for each column of the kind; empty: the kind's own names."
    )
    labels: list[str | int] | dict[str, list[str | int]] = Field(
        [],
        description="The classes in order; as a mapping, the raw labels that each class stands for. In a task with "
        "two classes the second one is the one that F1 looks for.",
    )
    filter: dict[str, list[str | int]] = Field(
        {}, description="Rows of the training part to keep: for each column named, the values allowed."
    )
    group_by: str | None = Field(
        None,
        description="Column whose equal values (a document, an article) are kept together in a split of train; null: "
        "none, with ndcg_at_10 that of the text, which is the query.",
    )
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of train to choose on, if it has to give it.")
    test_share: float | None = Field(None, gt=0, lt=1, description="Share of train to report on, if there is no test.")
    test_split: str | None = Field(
        None,
        description="What the part that is reported on is called in the data set, for the card; null: test, for a "
        "dataset of the Hub the split itself, and train where it is a share of train.",
    )
    split_seed: int = Field(0, ge=0, description="Seed of the splits of train.")
    max_length: int = Field(128, ge=8, description="Longest input, tokens including the special ones.")
    metrics: list[str] = Field(min_length=1, description="Metrics to report; the first is the main one.")
    licence: str = Field(description="Licence of the data.")
    source: str = Field(description="Where the data comes from.")

    @field_validator("labels", "filter", mode="before")
    @classmethod
    def _plain_lists(cls, value: Any) -> Any:
        groups = value if isinstance(value, dict) else {}
        parts = [list(groups), *groups.values()] if groups else [value]
        if any(isinstance(label, bool) for part in parts if isinstance(part, list) for label in part):
            raise ValueError("yes, no, on, off, true and false are truth values in YAML: put them in quotes")
        if alone := [name for name, raws in groups.items() if not isinstance(raws, list)]:
            raise ValueError(f"{alone[0]}: a list is needed, as in {alone[0]}: [{value[alone[0]]}]")
        if empty := [name for name, raws in groups.items() if not raws]:
            raise ValueError(f"{empty[0]}: no raw label stands for it; name one, or leave the class out")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _require_known("kind", [self.kind], list(KINDS))
        kind = KINDS[self.kind]
        _require_known("columns", self.columns, kind.columns)
        _require_known("metrics", self.metrics, kind.metrics)
        if (self.files is None) == (self.dataset is None):
            raise ValueError("give either files or dataset")
        if kind.labelled and len(self.classes) < 2:
            raise ValueError(f"labels: a task of kind {self.kind} lists at least two classes")
        if self.classes and not kind.labelled:
            raise ValueError(f"labels: a task of kind {self.kind} has no classes; leave them out")
        if isinstance(self.labels, dict) and sum(map(len, self.labels.values())) != len(self.label_ids):
            raise ValueError("labels: a raw label stands under two classes")
        if twice := [name for name, count in Counter(self.classes).items() if count > 1]:
            raise ValueError(f"labels: {twice[0]} is listed twice")
        kind.check_classes(self.classes)
        if "f1" in self.metrics and len(self.classes) != 2:
            raise ValueError("metrics: f1 is for two classes; use f1_weighted or f1_macro")
        if (self.data.test is None) == (self.test_share is None):
            raise ValueError("give either a test part or test_share")
        return self

    @property
    def data(self) -> TaskFiles | TaskDataset:
        """Where the rows are."""
        found = self.files or self.dataset
        assert found is not None
        return found

    @property
    def task_kind(self) -> TaskKind:
        """The description of the kind of task."""
        return KINDS[self.kind]

    @property
    def main_metric(self) -> str:
        """The metric that models are chosen and compared by."""
        return self.metrics[0]

    @property
    def ranking_metrics(self) -> list[str]:
        """The metrics that compare the candidates of a query: the rows with the same text before another one."""
        return [name for name in self.metrics if METRICS[name].features is RANKED]

    @property
    def kept_together(self) -> str | None:
        """The column whose equal values a split of train does not separate."""
        return self.group_by or (self.columns.get("text", "text") if self.ranking_metrics else None)

    def queries_of(self, rows: Dataset) -> list[int]:
        """The query of each row, as a number; nothing where none are ranked."""
        numbers: dict[str, int] = {}
        texts = rows["text"][:] if self.ranking_metrics else []
        return [numbers.setdefault(text, len(numbers)) for text in texts]

    @property
    def description(self) -> dict[str, Any]:
        """What a report says about the task, for the card."""
        described = {"title", "kind", "max_length", "licence", "source"}
        return {
            **self.model_dump(include=described),
            "split": self.reported_split,
            "main_metric": self.main_metric,
            "metrics": self.metrics,
        }

    @property
    def reported_split(self) -> str:
        """The split of the data set that is scored."""
        if self.test_split:
            return self.test_split
        if self.data.test is None:
            return "train" if self.files else self.data.train
        return "test" if self.files else self.data.test

    @property
    def classes(self) -> list[str]:
        """Names of the classes; the index is the class id."""
        return [str(label) for label in self.labels]

    @property
    def label_ids(self) -> Labels:
        """The class id of every raw label, as text."""
        if isinstance(self.labels, dict):
            return {str(raw): index for index, raws in enumerate(self.labels.values()) for raw in raws}
        return {label: index for index, label in enumerate(self.classes)}


def known_tasks() -> list[str]:
    """Names of the tasks that come with the project."""
    return sorted(Path(entry.name).stem for entry in _shipped().iterdir() if entry.name.endswith(".yaml"))


def load_task(name_or_file: str | os.PathLike[str]) -> TaskDefinition:
    """Read the definition of a shipped task, or of a user's YAML file.

    Raises:
        UserError: if there is no such task or file, the file is no valid definition, or data files it names are
            missing.
    """
    text = os.fspath(name_or_file)
    path = Path(text)
    if text in known_tasks():
        path = Path(str(_shipped() / f"{text}.yaml"))
    elif path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise UserError(_unknown(text))
    task = stated_settings(TaskDefinition, read_yaml(path, "task"), path, folder=path.parent.resolve())
    for part in ("train", "validation", "test") if task.files else ():
        file = getattr(task.files, part)
        if file is not None and not Path(file).is_file():
            raise UserError(f"{path}: files.{part}: there is no file {file}")
    return task


def load_tasks(names_or_files: Sequence[str | os.PathLike[str]]) -> list[TaskDefinition]:
    """Read several definitions.

    Raises:
        UserError: as :func:`load_task`, and if two tasks have the same name: reports keep scores by name.
    """
    tasks = [load_task(name_or_file) for name_or_file in names_or_files]
    counts = Counter(task.name for task in tasks)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UserError(f"task {twice[0]}: is given {counts[twice[0]]} times; each needs a name of its own")
    return tasks


def _shipped() -> Any:
    return resources.files("distilrubert.evaluation.tasks") / "definitions"


def _unknown(text: str) -> str:
    if Path(text).suffix in (".yaml", ".yml"):
        return f"task {text}: there is no such file"
    nearest = difflib.get_close_matches(text, known_tasks(), n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"task {text}: unknown; {hint}the shipped tasks are {', '.join(known_tasks())}; or give a YAML file"


def _require_known(field: str, found: Any, allowed: Any) -> None:
    for value in found:
        if value not in allowed:
            raise ValueError(f"{field}: unknown {value!r}; allowed: {', '.join(allowed)}")
