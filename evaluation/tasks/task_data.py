"""The rows of a task: read, checked, split."""

import contextlib
import dataclasses
import glob
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetsError
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from distilrubert.common.errors import UserError
from distilrubert.common.hub_failures import clean, token_in_use
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.evaluation.tasks.task import TaskDefinition

READERS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json", ".txt": "text"}
# What `datasets` says of a file that has a head and nothing else, and pandas of one that has nothing.
_NO_ROWS = ("corresponds to no data", "No columns to parse from file")
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")


@dataclasses.dataclass(frozen=True)
class TaskRows:
    """A task's rows in the standard form of its kind; learning rate and epoch are chosen on `validation`.

    `unlabelled` are rows whose labels are not used, for a student that learns from a teacher.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    unlabelled: Dataset | None = None

    @property
    def parts(self) -> dict[str, Dataset]:
        """Those that are there, by name."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: part for name, part in found.items() if part is not None}

    def fingerprint(self) -> str:
        """SHA-256 of the content of the parts."""
        parts = [part.to_dict() for part in self.parts.values()]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()

    def first_of_each(self) -> Self:
        """The first row of each part."""
        return type(self)(*(part.select([0]) for part in (self.train, self.validation, self.test)))

    def classes_to_train_on(self) -> set[int]:
        """The classes of the training part's sentences, or of its words."""
        rows = self.train
        if "label" not in rows.column_names:
            return {tag for tags in rows["tags"] for tag in tags}
        labels = rows["label"][:]
        if isinstance(labels[0], list):
            return {index for row in labels for index, value in enumerate(row) if value}
        return set(labels)

    def count_test_rows_in_train(self) -> int:
        """Test rows whose text is also that of a training row, whatever its case, spacing and label."""
        seen = set(map(_text_of, self.train))
        return sum(_text_of(row) in seen for row in self.test)


def load_rows(
    task: TaskDefinition, train_limit: int | None = None, unlabelled: Sequence[str] | None = None
) -> TaskRows:
    """Read the rows of a task and split off the parts that have no file, always in the same way.

    Args:
        task: the task.
        train_limit: only this many of the labelled training rows (a fixed random choice, of whole queries, but for
            the last one, where candidates are ranked) are taken, before a validation part is split off.
        unlabelled: files with the task's columns of text; with the training rows beyond the limit they make up the rows
            without labels. Texts of the other parts are left out of them. None: there is to be no such part.

    Raises:
        UserError: if data cannot be read, a column or label differs from the definition, a part is empty, or the
            rows to train on are all of one class.
    """
    train, groups = _read_part(task, "train")
    if task.test_share is None:
        test = _read_part(task, "test")[0]
    else:
        train, groups, test = _split_off(task, train, groups, task.test_share)
    rest = train.select([])
    if train_limit is not None and train_limit < len(train):
        order = _random_order(task, groups)
        kept, rest = order[:train_limit], train.select(np.sort(order[train_limit:]))
        train, groups = train.select(kept), groups[kept]
    if task.data.validation is None:
        train, groups, validation = _split_off(task, train, groups, task.validation_share)
    else:
        validation = _read_part(task, "validation")[0]
    rows = TaskRows(train, validation, test)
    for metric in task.ranking_metrics:
        _require_candidates(task, metric, {"validation": validation, "test": test})
    is_of_several = task.task_kind.problem_type == "multi_label_classification"
    if task.task_kind.labelled and not is_of_several and len(rows.classes_to_train_on()) < 2:
        raise UserError(f"task {task.name}: all {len(train)} rows to train on are of one class; two are needed")
    if unlabelled is not None:
        rows = dataclasses.replace(rows, unlabelled=_unlabelled(task, rows, rest, unlabelled))
    return rows


def _random_order(task: TaskDefinition, groups: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The training rows as they are drawn; where candidates are ranked, those of a query one after another."""
    generator = np.random.default_rng(task.split_seed)
    if not task.ranking_metrics:
        return generator.permutation(len(groups))
    _, numbers = np.unique(groups, return_inverse=True)
    return np.argsort(generator.permutation(numbers.max() + 1)[numbers], kind="stable")


def _require_candidates(task: TaskDefinition, metric: str, parts: Mapping[str, Dataset]) -> None:
    """Refuse parts of which a metric that ranks candidates says nothing."""
    for part, rows in parts.items():
        scores, queries = rows["label"][:], task.queries_of(rows)
        if min(scores) < 0:
            raise UserError(f"task {task.name}: {metric}: needs scores of 0 or more, the {part} part has {min(scores)}")
        if len(set(zip(queries, scores, strict=True))) == len(set(queries)):
            raise UserError(
                f"task {task.name}: {metric}: in the {part} part no text has rows with different scores, which are "
                "ranked as the candidates of a query"
            )


def _unlabelled(task: TaskDefinition, rows: TaskRows, rest: Dataset, files: Sequence[str]) -> Dataset:
    """The rows without labels, each text once, and none that another part has."""
    kind, where = task.task_kind, f"task {task.name}"

    def read(row: Mapping[str, Any]) -> dict[str, Any]:
        return kind.read_text(row, task.label_ids)

    found = [read(row) for row in rest]
    for file in files:
        columns = {column: task.columns.get(column, column) for column in kind.text_columns}
        if _suffix_of(Path(file)) == ".txt" and "text" in columns:
            # Lines have no name of their own.
            columns["text"] = "text"
        place = f"{where}: {file}"
        found += _read_rows(read_table(Path(file), [*columns.values()], place), columns, read, place)
    seen = {_text_of(row) for part in rows.parts.values() for row in part}
    kept = []
    for row in found:
        if (text := _text_of(row)) not in seen:
            seen.add(text)
            kept.append(row)
    if not kept:
        raise UserError(
            f"{where}: there is no text without labels; name files in task.unlabelled, or set "
            "task.finetuning.train_limit below the number of training rows"
        )
    return Dataset.from_list(kept, features=rows.train.features)


def _read_rows(
    raw: Dataset, columns: Mapping[str, str], read: Callable[[Mapping[str, Any]], dict[str, Any]], where: str
) -> list[dict[str, Any]]:
    """Rows in standard form."""
    _require_columns(raw, columns.values(), where)
    rows = []
    for number, row in enumerate(raw, start=1):
        try:
            rows.append(read({ours: row[theirs] for ours, theirs in columns.items()}))
        except (ValueError, TypeError) as error:
            raise UserError(f"{where}: row {number}: {error}") from error
    return rows


def _require_columns(raw: Dataset, columns: Iterable[str], where: str) -> None:
    for column in columns:
        if column not in raw.column_names:
            raise UserError(f"{where}: has no column {column}; it has {', '.join(raw.column_names)}")


def _text_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a model reads of a row, normalised."""
    read = (row[column] for column in ("text", "text_pair", "tokens", "question", "context") if column in row)
    texts = (" ".join(part) if isinstance(part, list) else part for part in read)
    return tuple(" ".join(text.casefold().split()) for text in texts)


def _read_part(task: TaskDefinition, part: str) -> tuple[Dataset, np.ndarray[Any, Any]]:
    """Rows in standard form, and the group of each."""
    where = f"task {task.name}: {getattr(task.data, part)}"
    columns = {column: task.columns.get(column, column) for column in task.task_kind.columns}
    filters = task.filter if part == "train" else {}
    group_by = task.kept_together if part == "train" else None
    wanted = [*columns.values(), *filters, *([group_by] if group_by else [])]
    raw = _read_raw(task, part, wanted, where)
    _require_columns(raw, wanted, where)
    allowed = {column: {str(value) for value in values} for column, values in filters.items()}
    rows, groups = [], []
    for number, row in enumerate(raw, start=1):
        if any(str(row[column]) not in values for column, values in allowed.items()):
            continue
        groups.append(str(row[group_by]) if group_by else str(number))
        try:
            values = {ours: row[theirs] for ours, theirs in columns.items()}
            rows.append(task.task_kind.read_row(values, task.label_ids))
        except (ValueError, TypeError) as error:
            raise UserError(f"{where}: row {number}: {error}") from error
    if not rows:
        raise UserError(f"{where}: has no rows" + (" that pass the filter" if filters else ""))
    return Dataset.from_list(rows), np.array(groups)


def _read_raw(task: TaskDefinition, part: str, columns: Sequence[str], where: str) -> Dataset:
    if not task.dataset:
        return read_table(Path(getattr(task.files, part)), columns, where)
    dataset = task.dataset
    with _readable(where):
        return load_dataset(dataset.id, dataset.config, revision=dataset.revision, split=getattr(dataset, part))


def read_table(path: Path, columns: Sequence[str], where: str) -> Dataset:
    """The rows of a file; of CSV, the named columns as text.

    Raises:
        UserError: that begins with `where`, if it cannot be read.
    """
    options = _reader(path, columns, where)
    # `datasets` copies what it reads into a cache. The data is small, and nothing must stay in the user's home.
    with _readable(where), tempfile.TemporaryDirectory() as cache:
        # The name is not a pattern, even with brackets in it.
        return load_dataset(
            **options, data_files=glob.escape(str(path)), split="train", cache_dir=cache, keep_in_memory=True
        )


@contextlib.contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        with quiet_datasets():
            yield
    # datasets 5 raises a RuntimeError for data sets that are a script.
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = clean(_reason(error), token_in_use())
        # Not from the error: a traceback would show the token that is removed here.
        is_empty = any(said in reason for said in _NO_ROWS)
        raise UserError(f"{where}: {'has no rows' if is_empty else f'cannot be read: {reason}'}") from None


def _reader(path: Path, columns: Sequence[str], where: str) -> dict[str, Any]:
    """The builder of `datasets` for a file, with the options that its columns need."""
    suffix = _suffix_of(path)
    if suffix not in READERS:
        known = f"{', '.join(READERS)}, also followed by {', '.join(COMPRESSIONS)}"
        raise UserError(f"{where}: is not a kind of file that can be read; known: {known}")
    # A csv cell is text, also one that reads "NA" or "007".
    as_text = {"keep_default_na": False, "converters": dict.fromkeys(columns, str)}
    return {"path": READERS[suffix], **(as_text if suffix == ".csv" else {})}


def _suffix_of(path: Path) -> str:
    """That of what may be compressed."""
    return (path.with_suffix("") if path.suffix in COMPRESSIONS else path).suffix


def _reason(error: BaseException) -> str:
    """The first cause: it says more than its wrappers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).split("\n")[0] or type(error).__name__


def _split_off(
    task: TaskDefinition, rows: Dataset, groups: np.ndarray[Any, Any], share: float
) -> tuple[Dataset, np.ndarray[Any, Any], Dataset]:
    """Split a share off: by whole groups where the task has them, else with the classes in proportion."""
    try:
        kept, taken = _split_indices(task, rows, groups, share)
    except ValueError as error:
        of_groups = f", groups by {task.kept_together}: {len(set(groups))}" if task.kept_together else ""
        raise UserError(
            f"task {task.name}: rows: {len(rows)}{of_groups}; too few to split a share of {share} off"
        ) from error
    return rows.select(kept), groups[kept], rows.select(taken)


def _split_indices(
    task: TaskDefinition, rows: Dataset, groups: np.ndarray[Any, Any], share: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    everything = np.arange(len(rows))
    if task.kept_together:
        splitter = GroupShuffleSplit(1, test_size=share, random_state=task.split_seed)
        kept, taken = next(iter(splitter.split(everything, groups=groups)))
    else:
        has_one_class = task.task_kind.problem_type == "single_label_classification"
        labels = rows["label"][:] if has_one_class else None
        kept, taken = train_test_split(
            everything,
            test_size=share,
            random_state=task.split_seed,
            stratify=labels if _can_be_stratified(labels, share) else None,
        )
    return np.sort(kept), np.sort(taken)


def _can_be_stratified(labels: Sequence[int] | None, share: float) -> bool:
    """Whether each class can be in both parts, which scikit-learn asks for."""
    if labels is None:
        return False
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    smaller_part = min(int(np.ceil(share * len(labels))), int(np.floor((1 - share) * len(labels))))
    return bool(counts.min() >= 2 and smaller_part >= len(counts))
