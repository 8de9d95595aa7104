"""Tasks for the vectors of sentences, and suites: lists of such tasks with one mean."""

import os
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from distilrubert.common.checked_settings import read_yaml, stated_settings
from distilrubert.common.configuration import Section
from distilrubert.common.contents import content_of
from distilrubert.common.errors import UserError

Kind = Literal["sentence-similarity", "similarity-classification", "vector-classification", "retrieval"]
Classifier = Literal["logistic-regression", "nearest-neighbours"]
Pooling = Literal["mean", "cls"]
Part = Literal["test", "train"]

METRICS: dict[Kind, tuple[str, ...]] = {
    "sentence-similarity": ("spearman",),
    "similarity-classification": ("accuracy",),
    "vector-classification": ("accuracy", "roc_auc"),
    "retrieval": ("ndcg@10", "recall@10"),
}
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "sentence-similarity": ("sentence1", "sentence2", "score"),
    "similarity-classification": ("sentence1", "sentence2", "label"),
    "vector-classification": ("text", "label"),
    "retrieval": ("query", "passage"),
}
SUFFIXES = ("", ".csv", ".parquet", ".jsonl")


class VectorTask(Section):
    """A task that is scored on the vectors of its sentences."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Short name: small letters, digits, '-'.")
    title: str = Field(description="Name for a table.")
    kind: Kind = Field(description=f"One of {', '.join(METRICS)}.")
    metric: str = Field(description="What the mean of a suite is taken of.")
    test: str = Field(description="File of the rows that are scored; it may do without its ending.")
    train: str | None = Field(None, description="File of the rows that classifiers learn from.")
    columns: dict[str, str] = Field({}, description="Column of the files for each column of the kind.")
    train_columns: dict[str, str] = Field({}, description="Where they differ, those of the training rows.")
    classifiers: list[Classifier] = Field(
        ["logistic-regression"], min_length=1, description="Those tried on the vectors; the best one counts."
    )
    licence: str = Field(description="Licence of the data.")
    source: str = Field(description="Where the data comes from.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.metric not in METRICS[self.kind]:
            raise ValueError(f"metric: found {self.metric!r}; allowed for {self.kind}: {', '.join(METRICS[self.kind])}")
        if unknown := [name for name in (*self.columns, *self.train_columns) if name not in COLUMNS[self.kind]]:
            raise ValueError(f"columns: found {unknown[0]!r}; allowed for {self.kind}: {', '.join(COLUMNS[self.kind])}")
        if (self.train is None) == (self.kind == "vector-classification"):
            raise ValueError("train: a file for tasks of kind vector-classification, and for these alone")
        if self.metric == "roc_auc" and self.classifiers != ["logistic-regression"]:
            raise ValueError("classifiers: roc_auc is taken of a logistic regression alone")
        return self

    @property
    def files(self) -> dict[Part, str]:
        """Name of the file of each part."""
        files: dict[Part, str] = {"test": self.test}
        return files | {"train": self.train} if self.train else files

    def columns_of(self, part: Part) -> dict[str, str]:
        """The column of a part's file for each column of the kind."""
        named = self.columns | (self.train_columns if part == "train" else {})
        return {column: named.get(column, column) for column in COLUMNS[self.kind]}


class Suite(Section):
    """Tasks that are reported together, with the mean over them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Short name: small letters, digits, '-'.")
    title: str = Field(description="Name for a table.")
    tasks: list[str] = Field(min_length=1, description="Files of tasks, from the suite's folder.")
    data: dict[str, str] = Field(
        {}, description="Environment variables that may name a folder with the data, each with the folder in it."
    )
    poolings: list[Pooling] = Field(
        [], description="Poolings tried, each with normalised vectors; the best one counts. Empty: the model's own."
    )
    published: dict[str, float] = Field(
        {}, description="Means that others have published of their models, over all tasks, for comparison."
    )
    max_length: int | None = Field(None, ge=8, description="Longest input in tokens; null: the model's own.")
    _tasks: tuple[VectorTask, ...] = PrivateAttr(())
    _folders: tuple[Path, ...] = PrivateAttr(())

    @field_validator("data")
    @classmethod
    def _ours(cls, data: dict[str, str]) -> dict[str, str]:
        if foreign := [name for name in data if not name.startswith("DISTILRUBERT_")]:
            raise ValueError(
                f"only variables named DISTILRUBERT_… are read, because others can hold secrets; rename {foreign[0]}"
            )
        return data

    def locate(self, file: str) -> Path | None:
        """A data file: beside the suite, or in a folder that a variable names; None if it is in none of them."""
        candidates = (folder / f"{file}{suffix}" for folder in self._folders for suffix in SUFFIXES)
        return next((path for path in candidates if path.is_file()), None)

    def present(self) -> list[VectorTask]:
        """The tasks whose data is there.

        Raises:
            UserError: if there is none.
        """
        found = [task for task in self._tasks if all(map(self.locate, task.files.values()))]
        if not found:
            told = f"; let {' or '.join(self.data)} name the folder that has it" if self.data else ""
            raise UserError(f"suite {self.name}: there is no data of any of its tasks{told}")
        return found

    def identity(self) -> dict[str, Any]:
        """What decides the scores: the definitions of the tasks that are present, and the content of their files.

        Raises:
            UserError: if no data is there, or a file cannot be read.
        """
        files = {file: self.locate(file) for task in self.present() for file in task.files.values()}
        return {
            "suite": self.model_dump(mode="json", exclude={"data"}),
            "tasks": [task.model_dump(mode="json") for task in self.present()],
            "files": {name: content_of(path) for name, path in files.items() if path},
        }

    def absent(self) -> list[str]:
        """Names of the tasks whose data is not there."""
        present = self.present()
        return [task.name for task in self._tasks if task not in present]


def known_suites() -> list[str]:
    """Names of the suites that come with the project."""
    return sorted(Path(entry.name).stem for entry in _shipped().iterdir() if entry.name.endswith(".yaml"))


def load_suite(name_or_file: str | os.PathLike[str]) -> Suite:
    """Read a shipped suite, or that of a user's YAML file; a file of one task is a suite of one.

    Raises:
        UserError: if there is no such suite, it or one of its tasks is not valid, or two tasks have one name.
    """
    text = os.fspath(name_or_file)
    path = Path(str(_shipped() / f"{text}.yaml")) if text in known_suites() else Path(text)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise UserError(f"suite {text}: unknown; the shipped ones are {', '.join(known_suites())}; or give a YAML file")
    values = read_yaml(path, "suite")
    if "kind" in values:
        task = stated_settings(VectorTask, values, path)
        suite, tasks = Suite(name=task.name, title=task.title, tasks=[path.name]), [task]
    else:
        suite = stated_settings(Suite, values, path)
        tasks = [
            stated_settings(VectorTask, read_yaml(path.parent / file, "task"), path.parent / file)
            for file in suite.tasks
        ]
    if twice := [name for name, number in Counter(task.name for task in tasks).items() if number > 1]:
        raise UserError(f"{path}: two tasks are named {twice[0]}; each needs a name of its own")
    suite._tasks = tuple(tasks)
    named = (Path(os.environ[name]) / below for name, below in suite.data.items() if os.environ.get(name))
    suite._folders = (path.parent, *named)
    return suite


def _shipped() -> Any:
    return resources.files("distilrubert.evaluation.sentences") / "suites"
