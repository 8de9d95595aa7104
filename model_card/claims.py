"""A card against the reports beside it: each number that the reports decide is written again and compared."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distilrubert.model_card.card import eval_results
from distilrubert.model_card.inputs import REPORTS
from distilrubert.model_card.procedure import describe_distillation, describe_pretraining
from distilrubert.model_card.prose import (
    describe_fastest,
    describe_parameters,
    describe_parity,
    describe_quality,
    describe_shape,
    describe_speed,
)
from distilrubert.model_card.tables import file_table, parity_table, quality_table, speed_table
from distilrubert.modeling.claims import Claim, judged, unchecked
from distilrubert.modeling.errors import UserError
from distilrubert.modeling.persistence import read_json
from distilrubert.modeling.reports import Measurements

CARD = "README.md"
Reports = Mapping[str, Measurements]
Table = list[list[str]]
# Which report decides the table below a heading.
TABLES = {"Speed": "speed", "Quality": "quality", "Agreement of the files": "parity"}


def read_reports(folder: Path) -> dict[str, Measurements]:
    """The reports in a model repository, by name; those that are missing are left out.

    Raises:
        UserError: if one is not of its form, or there is none at all.
    """
    paths = {name: folder / "reports" / f"{name}.json" for name in REPORTS}
    found = {name: Measurements.load(path) for name, path in paths.items() if path.is_file()}
    if not found:
        raise UserError(f"{folder}: holds none of the reports {', '.join(f'reports/{name}.json' for name in REPORTS)}")
    return found


def check_card(folder: Path, reports: Reports) -> list[Claim]:
    """Compare a card with the reports and files of its repository.

    The scores of the front matter, the cells of the tables and the sentences that hold figures must be those that
    the reports give, character by character; a part that the card does not have claims nothing.

    Raises:
        UserError: if there is no card, or its front matter cannot be read.
    """
    card = _read_card(folder)
    text = str(card.text)
    assert isinstance(card.data, ModelCardData)
    return [
        *_check_model_index(card.data.eval_results or [], reports.get("quality")),
        *_check_tables(text, folder, reports),
        *_check_sentences(text, folder, reports),
    ]


def _read_card(folder: Path) -> ModelCard:
    path = folder / CARD
    try:
        return ModelCard(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; a model repository has a card") from error
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: the front matter cannot be read: {error}") from error


def _check_model_index(claimed: Sequence[EvalResult], quality: Measurements | None) -> Iterator[Claim]:
    measured = {_identity(result): result for result in (eval_results(quality) if quality else [])}
    for result in claimed:
        subject, figure = f"{CARD}, model-index", f"{result.dataset_name}: {result.metric_name or result.metric_type}"
        if quality is None:
            yield unchecked(subject, figure, result.metric_value, "there is no reports/quality.json")
            continue
        found = measured.get(_identity(result))
        value = found.metric_value if found else None
        reason = "" if found else "reports/quality.json has no such score"
        yield judged(subject, figure, result.metric_value, value, reason, holds=result.metric_value == value)


def _identity(result: EvalResult) -> tuple[str | None, ...]:
    return result.task_type, result.dataset_type, result.dataset_split, result.metric_type, result.metric_name


def _check_tables(text: str, folder: Path, reports: Reports) -> Iterator[Claim]:
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    makers = {"speed": speed_table, "quality": quality_table, "parity": parity_table}
    expected = {"Files": file_table(sizes)}
    expected |= {heading: makers[name](reports[name]) for heading, name in TABLES.items() if name in reports}
    sections = _sections(text)
    for heading in ("Files", *TABLES):
        where = f"{CARD}, {heading}"
        if heading not in sections:
            yield unchecked(where, "table", None, "the card has no such part")
        elif heading in expected:
            yield from _compare(where, _table(sections[heading]), _table(expected[heading].splitlines()))
        else:
            rows = len(_table(sections[heading])) - 1
            yield unchecked(where, "table", f"{rows} rows", f"there is no reports/{TABLES[heading]}.json")


def _sections(text: str) -> dict[str, list[str]]:
    """Lines below each heading of the second level."""
    _, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    return {lines[0].strip(): lines[1:] for part in parts if (lines := part.splitlines())}


def _table(lines: Sequence[str]) -> Table:
    """Cells of the first table among the lines, without the rule below its head."""
    rows: Table = []
    for line in lines:
        if line.lstrip().startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
        elif rows:
            break
    return rows[:1] + rows[2:]


def _compare(where: str, shown: Table, expected: Table) -> list[Claim]:
    """A claim for each cell that differs; if none does, one for the whole table."""
    rows = {row[0]: row for row in expected}
    wrong = [claim for row in shown for claim in _compare_rows(where, expected[0], row, rows.get(row[0]))]
    wrong += [
        judged(where, f"row {label}", None, " ".join(row[1:]), "the card leaves it out", holds=False)
        for label, row in rows.items()
        if label not in {row[0] for row in shown}
    ]
    cells = sum(len(row) - 1 for row in expected[1:])
    return wrong or [judged(where, "cells of the table", f"{cells} cells", f"{cells} equal", holds=True)]


def _compare_rows(where: str, head: list[str], shown: list[str], expected: list[str] | None) -> Iterator[Claim]:
    if expected is None or len(shown) != len(expected):
        given = " ".join(expected[1:]) if expected else None
        yield judged(where, f"row {shown[0]}", " ".join(shown[1:]), given, "no such row is measured", holds=False)
        return
    for column, claimed, measured in zip(head, shown, expected, strict=True):
        if claimed != measured:
            yield judged(where, f"{shown[0]}: {column}", claimed, measured, holds=False)


def _check_sentences(text: str, folder: Path, reports: Reports) -> Iterator[Claim]:
    lines = text.splitlines()
    expected = list(_sentences(folder, reports))
    wrong = [sentence for sentence in expected if sentence not in lines]
    for sentence in wrong:
        nearest = difflib.get_close_matches(sentence, lines, n=1)
        yield judged(f"{CARD}, text", "sentence", nearest[0] if nearest else None, sentence, holds=False)
    if not wrong:
        count = len(expected)
        yield judged(f"{CARD}, text", "sentences with figures", f"{count} lines", f"{count} equal", holds=True)


def _sentences(folder: Path, reports: Reports) -> Iterator[str]:
    """Each line of the card that figures of a report decide."""
    speed, training = reports.get("speed"), reports.get("training")
    describers = {
        "speed": describe_speed,
        "quality": describe_quality,
        "parity": describe_parity,
        "training": describe_distillation,
        "pretraining": describe_pretraining,
    }
    config = folder / "config.json"
    paragraphs = [
        describe_shape(read_json(config)) if config.is_file() else None,
        describe_parameters(speed, training),
        describe_fastest(speed) if speed else None,
        *(describe(reports[name]) for name, describe in describers.items() if name in reports),
    ]
    for paragraph in paragraphs:
        yield from paragraph.splitlines() if paragraph else ()
