"""A card against the reports beside it: each figure that they decide is written again and compared.

Figures are compared, not words: a card that another version wrote says the same things otherwise. Where this version
would use the same words, a figure must be the same; where it would not, some report must state it.
"""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import read_json
from distilrubert.model_card.card import eval_results
from distilrubert.model_card.inputs import REPORTS
from distilrubert.model_card.procedure import describe_distillation, describe_optimisation, describe_pretraining
from distilrubert.model_card.prose import (
    describe_fastest,
    describe_parameters,
    describe_parity,
    describe_quality,
    describe_shape,
    describe_speed,
)
from distilrubert.model_card.tables import file_table, loss_table, parity_table, quality_table, speed_table
from distilrubert.pipeline.verification.card_values import (
    Facts,
    Figure,
    claims_figures,
    figures_in,
    figures_of_cell,
    wording_of,
)
from distilrubert.pipeline.verification.statement import Statement, checked, unchecked

CARD = "README.md"
Reports = Mapping[str, Measurements]
Table = list[list[str]]
NO_SUCH_FIGURE = "no report has such a figure"
VAGUE = "no figure that can be compared"
# What a cell without a figure holds.
NOTHING = ("", "–", "-")
# A rounding to fewer digits than these agrees with too much.
TELLING = 2
# Which report decides the table below a heading.
TABLES = {
    "Speed": "speed",
    "Quality": "quality",
    "Agreement of the files": "parity",
    "How it was distilled": "training",
}
UNDECIDED = "nothing in the repository decides it"
# Between fences; what follows a fence that nothing closes is looked at.
_CODE = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1[`~]*[ \t]*$", re.MULTILINE | re.DOTALL)


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


def check_card(folder: Path, reports: Reports) -> list[Statement]:
    """Compare a card with the reports and files of its repository.

    The scores of the front matter, the figures in the tables and in the sentences that the reports decide must be
    those of the reports. Of further tables and lines with figures nothing can be said, so that they are not checked;
    what the card does not have, and code, claims nothing.

    Raises:
        UserError: if there is no card, or its front matter cannot be read.
    """
    card = _read_card(folder)
    text = _CODE.sub("", str(card.text))
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


def _check_model_index(claimed: Sequence[EvalResult], quality: Measurements | None) -> Iterator[Statement]:
    measured = eval_results(quality) if quality else []
    for result in claimed:
        subject, figure = f"{CARD}, model-index", f"{result.dataset_name}: {result.metric_name or result.metric_type}"
        if quality is None:
            yield unchecked(subject, figure, result.metric_value, "there is no reports/quality.json")
            continue
        alike = [found for found in measured if _identity(found) == _identity(result)]
        # The name tells two kinds of F1 apart; a version may call them otherwise, then one of them has to agree.
        named = [found for found in alike if found.metric_name == result.metric_name] or alike
        cells = [_Cell(figure, _written(result.metric_value), _written(found.metric_value)) for found in named]
        value = named[0].metric_value if len(named) == 1 else None
        if any(cell.is_vague for cell in cells):
            yield unchecked(subject, figure, result.metric_value, VAGUE, value)
        elif agreeing := [found for found, cell in zip(named, cells, strict=True) if cell.agrees]:
            yield checked(subject, figure, result.metric_value, agreeing[0].metric_value, holds=True)
        else:
            reason = NO_SUCH_FIGURE if value is None else ""
            yield checked(subject, figure, result.metric_value, value, reason, holds=False)


def _written(value: Any) -> str:
    """A value of the front matter as a cell, with the digits that it was given: YAML reads 1 and 1.0 as one."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _identity(result: EvalResult) -> tuple[str | None, ...]:
    return result.task_type, result.dataset_type, result.dataset_split, result.metric_type


def _check_tables(text: str, folder: Path, reports: Reports) -> Iterator[Statement]:
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    makers = {"speed": speed_table, "quality": quality_table, "parity": parity_table, "training": _loss_table}
    expected = {"Files": file_table(sizes)}
    expected |= {heading: makers[name](reports[name]) for heading, name in TABLES.items() if name in reports}
    tables = list(_tables(text))
    first = dict(reversed(tables))
    parts = {line.strip() for line in re.findall(r"^## (.*)", text, re.MULTILINE)}
    for heading in ("Files", *TABLES):
        where = f"{CARD}, {heading}"
        shown = _cells(first.get(heading, []))
        if heading not in parts:
            yield unchecked(where, "table", None, "the card has no such part")
        elif heading in expected:
            facts = Facts([reports[TABLES[heading]].to_dict()] if heading in TABLES else [])
            yield from _compare(where, shown, _cells(expected[heading].splitlines()), facts)
        else:
            yield unchecked(where, "table", f"{len(shown[1:])} rows", f"there is no reports/{TABLES[heading]}.json")
    for heading, lines in tables:
        is_known = heading in ("Files", *TABLES) and lines is first[heading]
        if not is_known and (figures := sum(map(claims_figures, itertools.chain(*_cells(lines))))):
            yield unchecked(f"{CARD}, {heading}", "another table", f"{figures} figures", UNDECIDED)


def _loss_table(training: Measurements) -> str:
    return loss_table(training.details["settings"]["weights"], training)


def _is_of_table(line: str) -> bool:
    return line.lstrip().startswith("|")


def _tables(text: str) -> Iterator[tuple[str, list[str]]]:
    """The lines of each table, with the heading of the second level above it."""
    heading = ""
    for is_table, lines in itertools.groupby(text.splitlines(), _is_of_table):
        if is_table:
            yield heading, list(lines)
        else:
            heading = [heading, *(line[3:].strip() for line in lines if line.startswith("## "))][-1]


def _cells(lines: Sequence[str]) -> Table:
    """Cells of a table, without the rule below its head."""
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines]
    return rows[:1] + rows[2:]


def _compare(where: str, shown: Table, expected: Table, facts: Facts) -> Iterator[Statement]:
    """A claim for each figure that differs, or else one for the whole table; and for each row that is left out."""
    known = {row[0]: dict(zip(expected[0], row, strict=True)) for row in expected[1:]}
    head, rows = (shown[0], shown[1:]) if shown else ([], [])
    everything = [
        _Cell(f"{row[0]}: {column}", cell, known.get(row[0], {}).get(column))
        for row in rows
        for column, cell in itertools.zip_longest(head[1:], row[1:], fillvalue="")
    ]
    for cell in everything:
        if cell.is_vague:
            yield unchecked(where, cell.name, cell.text, VAGUE, cell.expected)
    words = [text for text in (*head, *(row[0] for row in rows)) if text not in (*expected[0], *known)]
    words += [cell.text for cell in everything if cell.is_of_other_words]
    for text in filter(claims_figures, words):
        yield unchecked(where, "words of the table", text, UNDECIDED)
    cells = [cell for cell in everything if figures_of_cell(cell.text) and not cell.is_vague]
    wrong = [cell for cell in cells if not cell.holds(facts)]
    for cell in wrong:
        reason = "" if cell.decided else NO_SUCH_FIGURE
        yield checked(where, cell.name, cell.text, cell.expected, reason, holds=False)
    if not wrong:
        placed = sum(cell.decided for cell in cells)
        elsewhere = f", {len(cells) - placed} somewhere in the report" if placed < len(cells) else ""
        found = f"{placed} equal{elsewhere}"
        yield checked(where, "figures of the table", f"{len(cells)} figures", found, holds=True)
    # Under another name a row is not left out.
    others = [_figures_of_row(row) for row in rows if row[0] not in known]
    for label, *given in expected[1:]:
        if label not in {row[0] for row in rows} and _figures_of_row([label, *given]) not in others:
            yield unchecked(where, f"row {label}", None, "the card leaves it out", " ".join(given))


@dataclasses.dataclass(frozen=True)
class _Cell:
    """A figure that a table shows, and what this version would write in its place; None where it has no such place."""

    name: str
    text: str
    expected: str | None

    @property
    def decided(self) -> bool:
        """Whether this version has a figure in this place."""
        return bool(self.expected and figures_of_cell(self.expected))

    @property
    def is_of_other_words(self) -> bool:
        """Whether words stand where this version has no figure, and others."""
        return not self.decided and not figures_of_cell(self.text) and self.text != self.expected

    @property
    def is_vague(self) -> bool:
        """Whether words, or a figure that says next to nothing, stand where this version has a figure that tells."""
        if not self.decided or self.text in NOTHING:
            return False
        shown, expected = figures_of_cell(self.text), figures_of_cell(self.expected or "")
        if not shown:
            return True
        few = shown[0].text != expected[0].text and shown[0].digits < TELLING < expected[0].digits
        return few and shown[0].agrees(expected[0])

    @property
    def agrees(self) -> bool:
        """Whether both are roundings of one value."""
        return _agree(figures_of_cell(self.text), figures_of_cell(self.expected or ""))

    def holds(self, facts: Facts) -> bool:
        return self.agrees if self.decided else facts.state(figures_of_cell(self.text)[0])


def _figures_of_row(row: Sequence[str]) -> list[str]:
    return [figure.text for cell in row[1:] for figure in figures_of_cell(cell)]


def _agree(shown: Sequence[Figure], expected: Sequence[Figure]) -> bool:
    return len(shown) == len(expected) and all(map(Figure.agrees, shown, expected))


def _check_sentences(text: str, folder: Path, reports: Reports) -> Iterator[Statement]:
    config = folder / "config.json"
    facts = Facts([report.to_dict() for report in reports.values()] + ([read_json(config)] if config.is_file() else []))
    prose = [line for line in text.splitlines() if not _is_of_table(line)]
    lines = [line for line in prose if figures_in(line)]
    where, holding = f"{CARD}, text", 0
    compared: set[str | None] = set()
    for sentence in _sentences(folder, reports):
        compared.add(sentence)
        expected = figures_in(sentence)
        if all(figure.value is None for figure in expected):
            continue
        alike = [line for line in lines if wording_of(line) == wording_of(sentence)]
        nearest = next(iter(difflib.get_close_matches(sentence, alike or lines, n=1)), None)
        agreeing = [line for line in alike if _agree(figures_in(line), expected)]
        compared.update(agreeing or [nearest])
        if agreeing:
            holding += 1
        elif alike:
            yield checked(where, "sentence", nearest, sentence, holds=False)
        elif nearest is None:
            yield unchecked(where, "sentence", None, "the card has no such sentence", sentence)
        elif strange := _strange(nearest, expected, facts):
            yield unchecked(where, "sentence", nearest, f"in other words, and no report has {strange}", sentence)
        else:
            holding += 1
    yield checked(where, "sentences with figures", f"{holding} sentences", f"{holding} agree", holds=True)
    for line in prose:
        if line not in compared and claims_figures(line):
            yield unchecked(where, "another sentence", line.strip(), UNDECIDED)


def _strange(line: str, expected: Sequence[Figure], facts: Facts) -> str:
    """The figures of a sentence in other words that neither ours nor a report states."""
    figures = [
        figure for figure in figures_in(line) if not any(map(figure.agrees, expected)) and not facts.state(figure)
    ]
    return ", ".join(figure.text for figure in figures)


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
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    paragraphs = [
        # Of other architectures no card of ours tells the shape.
        describe_shape(config) if config.get("model_type") == "distilbert" else None,
        describe_parameters(speed, training),
        describe_fastest(speed) if speed else None,
        *(describe(reports[name]) for name, describe in describers.items() if name in reports),
        describe_optimisation(training.details["settings"]) if training else None,
    ]
    for paragraph in paragraphs:
        yield from paragraph.splitlines() if paragraph else ()
