"""A card against the card that its reports give.

A card of this version is rendered again and compared as a whole. Another version words and orders a card differently:
there the model-index of the front matter and the tables are compared, cell by cell.
"""

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.model_card.card import eval_results, render_card
from distilrubert.model_card.card_facts import renderer_version
from distilrubert.model_card.citation import bibliography
from distilrubert.model_card.inputs import REPORTS, file_sizes, read_card_input, read_facts
from distilrubert.model_card.tables import (
    class_table,
    file_table,
    loss_table,
    parity_table,
    quality_table,
    speed_table,
    suite_table,
    task_table,
)
from distilrubert.pipeline.statement import Statement, checked, unchecked

CARD = "README.md"
Reports = Mapping[str, Measurements]
NOT_IN_REPORTS = "the reports do not give this line"
_NUMBER = re.compile(r"(?:(?<!\w)[-−])?\d[\d,]*(?:\.(\d+))?(?:e(-?\d+))?")
# Of a score in the front matter, which another version may state in three digits.
ROUNDING = 5.001e-4


def check_card(folder: Path, reports: Reports) -> Iterator[Statement]:
    """Compare a card with the reports and files of its repository.

    Raises:
        UserError: if there is no card, or its front matter or ``reports/card.json`` cannot be read.
    """
    card = _read_card(folder)
    for name in REPORTS:
        if name not in reports and f"(reports/{name}.json)" in card.text:
            yield unchecked(f"reports/{name}.json", "file", "the card links to it", "is missing")
    version = _version(folder)
    if version == renderer_version():
        run = read_card_input(folder)
        rendered = ModelCard(render_card(run))
        yield from _check_front_matter(_front_matter(card), _front_matter(rendered))
        yield from _check_lines(CARD, card.text, rendered.text)
        if (folder / "CITATION.bib").is_file():
            yield from _check_lines("CITATION.bib", _text(folder / "CITATION.bib"), bibliography(run))
    else:
        reason = f"rendered by version {version}: the scores of the front matter and the tables are compared"
        yield unchecked(CARD, "text", None, reason)
        yield from _check_tables(card.text, folder, reports)
    quality = reports.get("quality")
    stated = getattr(card.data, "eval_results", None) or []
    finetuning = reports.get("finetuning")
    yield from _check_model_index(stated, eval_results(quality, finetuning) if quality or finetuning else None)


def _read_card(folder: Path) -> ModelCard:
    path = folder / CARD
    try:
        return ModelCard(_text(path))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: the front matter cannot be read: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _version(folder: Path) -> str:
    """What rendered the card; "unknown" for cards that do not say it."""
    return str(read_facts(folder).get("version", "unknown"))


def _front_matter(card: ModelCard) -> dict[str, Any]:
    """All keys but the scores, which :func:`_check_model_index` compares."""
    return {key: value for key, value in card.data.to_dict().items() if key != "model-index"}  # type: ignore[no-untyped-call]


def _check_front_matter(stated: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Statement]:
    for key, value in expected.items():
        if stated.get(key) != value:
            yield checked(f"{CARD}, front matter", key, _plain(stated.get(key)), _plain(value), holds=False)
    for key in stated.keys() - expected.keys():
        yield unchecked(f"{CARD}, front matter", key, _plain(stated[key]), NOT_IN_REPORTS)


def _plain(value: Any) -> str | None:
    return None if value is None else str(value)


def _check_lines(file: str, stated: str, rendered: str) -> Iterator[Statement]:
    """Every line that differs, or one statement for all. A line between the rendered ones is not checked."""
    ours, theirs = _lines(rendered), _lines(stated)
    same = 0
    for kind, start, end, first, last in difflib.SequenceMatcher(None, theirs, ours, autojunk=False).get_opcodes():
        if kind == "equal":
            same += end - start
        for line, expected in itertools.zip_longest(theirs[start:end], ours[first:last]) if kind != "equal" else ():
            if expected is None:
                yield unchecked(file, "line", line, NOT_IN_REPORTS)
            else:
                reason = "" if line else "this line is missing"
                yield checked(file, "line", line, expected, reason, holds=False)
    if same == len(ours):
        yield checked(file, "text", f"{same} lines", f"{same} lines are those that the reports give", holds=True)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _check_model_index(stated: Sequence[EvalResult], expected: Sequence[EvalResult] | None) -> Iterator[Statement]:
    subject = f"{CARD}, model-index"
    found = {_identity(result): result.metric_value for result in expected or ()}
    for result in stated:
        quantity, value = f"{result.dataset_name}: {result.metric_name or result.metric_type}", result.metric_value
        if expected is None:
            yield unchecked(subject, quantity, _plain(value), "reports/quality.json is missing")
        else:
            measured = found.get(_identity(result))
            reason = "" if measured is not None else "the report does not have this score"
            # Numbers, and not texts as in a table: of these a coarse one would agree with much.
            are_numbers = all(type(each) in (int, float) for each in (value, measured))
            holds = are_numbers and abs(value - measured) <= ROUNDING
            yield checked(subject, quantity, value, measured, reason, holds=holds)


def _identity(result: EvalResult) -> tuple[str | None, ...]:
    return result.task_type, result.dataset_type, result.dataset_split, result.metric_type, result.metric_name


def _check_tables(text: str, folder: Path, reports: Reports) -> Iterator[Statement]:
    """Compare the cells that the card and this version's tables both have, by row and column."""
    shown = dict(_cells(text))
    makers = {
        "speed": speed_table,
        "quality": quality_table,
        "parity": parity_table,
        "training": loss_table,
        "finetuning": task_table,
        "suite": suite_table,
    }
    tables = {f"reports/{name}.json": make(reports[name]) for name, make in makers.items() if name in reports}
    if (finetuning := reports.get("finetuning")) and finetuning.details.get("class_counts"):
        tables["reports/finetuning.json, classes"] = class_table(finetuning)
    for source, table in {**tables, "files": file_table(file_sizes(folder))}.items():
        cells = {key: cell for key, cell in _cells(table.markdown) if _NUMBER.search(cell)}
        common = [key for key in cells if key in shown]
        wrong = [key for key in common if not _agree(shown[key], cells[key])]
        for row, column in wrong:
            yield checked(f"{CARD}, table", f"{row}: {column}", shown[row, column], cells[row, column], holds=False)
        if common and not wrong:
            yield checked(f"{CARD}, table", source, f"{len(common)} cells", f"{len(common)} agree", holds=True)
        if len(common) < len(cells):
            missing = f"{len(cells) - len(common)} of {len(cells)} values are not in the card under these names"
            yield unchecked(f"{CARD}, table", source, None, missing)


def _cells(markdown: str) -> Iterator[tuple[tuple[str, str], str]]:
    """The cells of all tables by the label of the row and the title of the column."""
    head: list[str] = []
    for line in markdown.splitlines():
        cells = line.removeprefix("| ").removesuffix(" |").split(" | ") if line.startswith("| ") else []
        if head and cells:
            yield from (((cells[0], column), cell) for column, cell in zip(head[1:], cells[1:], strict=False))
        else:
            head = cells


def _agree(one: str, other: str) -> bool:
    """Whether two texts have the same numbers, as far as the one with fewer digits goes."""
    pairs = list(zip(_numbers(one), _numbers(other), strict=False))
    return one == other or (bool(pairs) and all(abs(a - b) <= 0.5001 * max(u, v) for (a, u), (b, v) in pairs))


def _numbers(text: str) -> list[tuple[float, float]]:
    """Each number with the unit of its last digit."""
    return [
        (float(found[0].replace(",", "").replace("−", "-")), 10.0 ** (int(found[2] or 0) - len(found[1] or "")))
        for found in _NUMBER.finditer(text)
    ]
