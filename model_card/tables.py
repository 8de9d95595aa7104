"""The tables of a card, which the terminal shows too. A column without a value is left out."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Measurements, Row
from distilrubert.model_card.cases import Case, file_of, stored_in_16_bits
from distilrubert.model_card.formatting import SPECIAL, cosine, count, number, score
from distilrubert.model_card.inputs import losses_of
from distilrubert.model_card.scores import (
    INTRINSIC_TITLES,
    METRIC_TITLES,
    PER_TOKEN,
    Value,
    have_vocabularies_of_their_own,
    intrinsic_scores,
    main_scores,
    task_scores,
)

MODEL_TITLES = {
    "teacher": "Teacher",
    "student": "This model",
    "bag-of-words": "Bag of words",
    "word-tags": "Most frequent tag of each word",
    "majority-class": "Majority class",
}
SPEED_COLUMNS = {
    "size_mib": "Size, MiB",
    "latency_s": "CPU latency, s",
    "cuda_latency_s": "GPU latency, s",
    "samples_per_s": "CPU throughput, samples/s",
    "cuda_samples_per_s": "GPU throughput, samples/s",
    "latency_ratio": "Latency ratio, ×",
    "throughput_ratio": "Throughput ratio, ×",
}
SPREADS = {"latency_s": "latency_spread_s", "samples_per_s": "samples_spread_per_s"}
PARITY_COLUMNS = {
    "maximal_difference": "Largest difference",
    "mean_difference": "Mean difference",
    "token_cosine": "Cosine of token vectors",
    "token_cosine_p1": "1st percentile over tokens",
    "pooled_cosine": "Cosine of sentence vectors",
    "vector_cosine_p1": "Cosine of vectors as published, 1st percentile",
    "top1_agreement": "Same first prediction for a token",
}
TASK_TITLES = {
    **MODEL_TITLES,
    "pytorch-fp32": "This model",
    "student-alone": "The same student without a teacher",
}
# Teacher first, then the model and its files, then what it is compared with.
_TASK_ORDER = {"teacher": 0, "student-alone": 2, "bag-of-words": 3, "word-tags": 3, "majority-class": 4}
NO_VALUE = "–"
_CODE = re.compile("(`[^`]+`)")


@dataclasses.dataclass(frozen=True)
class Table:
    """Headings and rows of cells; text between backticks is code.

    Attributes:
        text_columns: number of columns with text, which are the first; the others hold numbers.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1

    @property
    def markdown(self) -> str:
        """As a card shows it; nothing without rows."""
        head, *rows = ([_escaped(cell) for cell in cells] for cells in (self.head, *self.rows))
        return markdown_table(head, rows, self.text_columns) if rows else ""


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table: the first `text_columns` to the left, the others, which hold numbers, to the right."""
    rules = [":---"] * text_columns + ["---:"] * (len(head) - text_columns)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rules, *rows))


def _escaped(cell: str) -> str:
    parts = _CODE.split(" ".join(cell.split()))
    # A bar ends a cell also in code, where nothing else is special.
    return "".join(part.replace("|", r"\|") if _CODE.fullmatch(part) else part.translate(SPECIAL) for part in parts)


def speed_table(speed: Measurements) -> Table:
    """The table of the reference card: size, latency and throughput of every model and file, CPU beside GPU."""
    merged: dict[str, dict[str, str]] = {}
    for row in speed.rows:
        case = Case.parse(row.case)
        cells = _speed_cells(row)
        if case.cuda:
            cells = {f"cuda_{key}": cells[key] for key in SPREADS if key in cells}
        merged[case.label] = {**cells, **merged.get(case.label, {})}
    columns = _measured(SPEED_COLUMNS, merged.values())
    rows = [[label, *(cells.get(key, NO_VALUE) for key in columns)] for label, cells in merged.items()]
    return Table(["Model", *columns.values()], rows)


def _speed_cells(row: Row) -> dict[str, str]:
    """The cells of a row by column; with several starts there is a spread."""
    values = row.values
    cells = {key: number(values[key]) for key in SPEED_COLUMNS if values.get(key) is not None}
    if stored_in_16_bits(row):
        cells["size_mib"] += " (16-bit)"
    if values.get("starts", 0) > 1:
        for key in cells:
            if spread := values.get(SPREADS.get(key, "")):
                cells[key] += f" ± {number(spread, 2)}"
            if ends := values.get(f"{key}_range"):
                cells[key] += f" ({'–'.join(map(number, ends))})"
    return cells


def suite_table(suite: Measurements) -> Table:
    """The best score of each task of a suite, and their mean; of other models the means that they have published."""
    tasks, absent = suite.details["tasks"], suite.details["absent"]
    rows = [
        [
            _model_title(row.case),
            *(f"{score:.3f}" for score in (*row.values["best"].values(), row.values["mean_score"])),
        ]
        for row in suite.rows
    ]
    # Theirs are means over all tasks.
    published = {} if absent else suite.details["suite"].get("published", {})
    rows += [[name, *(NO_VALUE for _ in tasks), f"{score:.3f}"] for name, score in published.items()]
    return Table(["Model", *tasks, f"Mean of {len(tasks)}"], rows)


def task_table(report: Measurements) -> Table:
    """The scores of a student of a task, of its files, of what it is compared with, and how the files agree with it."""
    task = report.details["task"]
    rows = [
        [
            TASK_TITLES.get(row.case) or file_of(row.case),
            *(f"{row.values['tasks'][task['name']][metric]['mean']:.3f}" for metric in task["metrics"]),
            *agreement_cells(row),
        ]
        for row in sorted(report.rows, key=lambda row: _TASK_ORDER.get(row.case, 1))
    ]
    metrics = [METRIC_TITLES.get(metric, metric) for metric in task["metrics"]]
    agreement = ["Equal decisions", "Equal clear decisions", "Largest difference", "Size, MiB"]
    return Table(["Model", *metrics, *agreement], rows)


def agreement_cells(row: Row) -> list[str]:
    """How many decisions of a file are those of the model, the largest difference of a logit, and its size."""
    values = row.values
    if not values.get("decisions"):
        return [NO_VALUE] * 4
    # Earlier reports do not tell which are clear.
    compared = values.get("clear_decisions")
    clear = _share(values["different_clear_decisions"], compared) if compared else NO_VALUE
    return [
        _share(values["different_decisions"], values["decisions"]),
        clear,
        number(values["maximal_difference"]),
        number(values["size_mib"]),
    ]


def _share(different: int, compared: int) -> str:
    """How much is equal, in percent."""
    return f"{100 * (compared - different) / compared:.2f} %"


def class_table(report: Measurements) -> Table:
    """Precision, recall and F1 of each class, or of each type of span, on the test part."""
    rows = []
    for counts in _class_counts(report):
        expected, found, right = counts["expected"], counts["found"], counts["correct"]
        shares = [right / found if found else 0.0, right / expected if expected else 0.0]
        f1 = 2 * right / (expected + found) if expected + found else 0.0
        rows.append([f"`{counts['class']}`", *(f"{share:.3f}" for share in (*shares, f1)), count(expected)])
    is_of_spans = report.details["task"]["kind"] == "token-classification"
    return Table(["Class", "Precision", "Recall", "F1", "Spans" if is_of_spans else "Rows"], rows)


def _class_counts(report: Measurements) -> Sequence[Mapping[str, Any]]:
    """What each class has; earlier reports have the confusion matrix alone."""
    found: Sequence[Mapping[str, Any]] | None = report.details.get("class_counts")
    matrix = report.details.get("confusion")
    if found is not None or not matrix:
        return found or []
    return [
        {
            "class": name,
            "expected": sum(matrix[index]),
            "found": sum(row[index] for row in matrix),
            "correct": matrix[index][index],
        }
        for index, name in enumerate(report.details["task"]["classes"])
    ]


def parity_table(parity: Measurements) -> Table:
    """How far each exported file's outputs are from PyTorch's."""
    columns = _measured(PARITY_COLUMNS, [row.values for row in parity.rows])
    rows = [[file_of(row.case), *(_parity_cell(row.values, key) for key in columns)] for row in parity.rows]
    return Table(["File", *columns.values()], rows)


def _parity_cell(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if value is None:
        return NO_VALUE
    return cosine(value) if "cosine" in key else number(value)


def quality_table(quality: Measurements) -> Table:
    """Held-out measures and task scores, mean ± standard deviation, the models side by side."""
    models = [row.case for row in quality.rows]
    values: dict[str, Mapping[str, Value]] = {}
    own = "Held-out text, not comparable" if have_vocabularies_of_their_own(quality) else "Held-out text"
    for name, measured in intrinsic_scores(quality):
        values[f"{own if name in PER_TOKEN else 'Held-out text'}: {INTRINSIC_TITLES[name]}"] = measured
    for found in main_scores(quality, "linear_probe"):
        values[f"{found.title}, linear probe: {found.metric_title}"] = found.values
    for found in task_scores(quality):
        values[f"{found.title}: {found.metric_title}"] = found.values
    if ratios := {row.case: Value(row.ratio) for row in quality.rows if row.ratio is not None}:
        values["Mean of the tasks' main metrics, relative to the teacher"] = ratios
    rows = [[label, *(of[model].text if model in of else NO_VALUE for model in models)] for label, of in values.items()]
    return Table(["Measure", *map(_model_title, models)], [*rows, *_leads(quality)])


def _leads(quality: Measurements) -> Iterator[list[str]]:
    """For each task that the teacher has learnt, which share of its gain over the majority class each model has."""
    gains = [row.values.get("gain_over_majority", {}) for row in quality.rows]
    for task in dict.fromkeys(task for gain in gains for task in gain):
        title = quality.details.get("tasks", {}).get(task, {}).get("title", task)
        cells = [
            score(gain[task]["value"], gain[task]["standard_error"]) if task in gain else NO_VALUE for gain in gains
        ]
        yield [f"{title}: share of the teacher's gain over the majority class", *cells]


def _model_title(name: str) -> str:
    """The head of a model's column; a student's file has its name there."""
    case = Case.parse(name)
    return ", ".join(filter(None, (MODEL_TITLES.get(case.model, case.model), case.file_label)))


def file_table(files: Mapping[str, int]) -> Table:
    """The weights in the repository and who should take which."""
    rows = []
    for entry in FORMATS.values():
        if entry.path in files:
            size = sum(files.get(path, 0) for path in entry.paths)
            rows.append([f"`{entry.path}`", entry.title, entry.take_when, number(size / 2**20)])
    return Table(["File", "What it is", "Take it when", "Size, MiB"], rows, text_columns=3)


def loss_table(training: Measurements) -> Table:
    """The losses that the student was trained on, with their weights."""
    rows = [[loss["meaning"], f"{loss['weight']:g}"] for loss in losses_of(training).values()]
    return Table(["Loss", "Weight"], rows)


def _measured(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The columns that at least one row has a value for."""
    rows = list(rows)
    return {key: title for key, title in columns.items() if any(row.get(key) is not None for row in rows)}
