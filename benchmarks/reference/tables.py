"""The tables of the results."""

import itertools
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from comparisons import FINE_TUNED, FROZEN, TEXT, Compared, Comparison, compare, corrected
from results import (
    BAG_OF_WORDS,
    FILE_ROW_PREFIX,
    HELD_OUT,
    PROBE,
    PYTORCH,
    TEACHER,
    Result,
    all_tasks,
    probed_tasks,
    widest,
)

from distilrubert.common.formats import FORMATS
from distilrubert.evaluation.tasks.baselines import BASELINES
from distilrubert.evaluation.tasks.significance import critical_value
from distilrubert.evaluation.tasks.task import known_tasks
from distilrubert.model_card.formatting import count, duration, listing, number
from distilrubert.model_card.scores import Value
from distilrubert.model_card.tables import markdown_table

NONE = "–"
NOT_RUN = "not run"
# The titles of the parts of a comparison.
PARTS = {
    TEXT: "Predictions of held-out text",
    FROZEN: "Linear probes of frozen vectors, in points",
    FINE_TUNED: "Fine-tuned, in points",
}
# One file of each size: int8 files for other CPUs are as large.
FILES = ("model.safetensors", *(FORMATS[kind].path for kind in ("onnx-fp32", "onnx-int8", "openvino-int8")))
# Agreed before anything was measured.
LEAST_SHARE = 0.97
MOST_LOST_IN_INT8 = 0.005


def tasks_table(results: Sequence[Result], common: Sequence[str]) -> str:
    """A row for each fine-tuning of the teacher, each baseline, each model and each exported file that was scored."""
    titles = all_tasks(results)
    if not titles:
        return "No task was measured."
    measured = [result for result in results if result.tasks]
    rows = []
    of_teacher: dict[tuple[str, ...], list[Result]] = {}
    for result in measured:
        scores = (str(result.score(TEACHER, task).mean) for task in common)
        of_teacher.setdefault((result.arithmetic_of_tasks, *scores), []).append(result)
    arithmetics = [arithmetic for arithmetic, *_ in of_teacher]
    for (arithmetic, *_), students in of_teacher.items():
        is_only = arithmetics.count(arithmetic) == 1
        name = TEACHER if is_only else f"{TEACHER} of {listing([result.model.name for result in students])}"
        rows.append([name, NONE, arithmetic, *_scores(widest(students), TEACHER, titles, common)])
    first = widest(measured)
    rows += [[case, NONE, NONE, *_scores(first, case, titles, common)] for case in _baselines(first)]
    for result in measured:
        how = [count(result.row.values["updates"]), result.arithmetic_of_tasks]
        rows.append([_named(result), *how, *_scores(result, result.model.name, titles, common)])
        for kind, row in result.files.items():
            name = f"{result.model.name}, {_file(kind)}"
            rows.append([name, how[0], kind.rpartition("-")[2], *_scores(result, row.case, titles, common)])
    head = ["Model", "updates", "arithmetic", *(f"{title}, %" for title in titles.values())]
    return markdown_table([*head, "share of the score, %", "share of the gain, %"], rows)


def probe_table(results: Sequence[Result]) -> str | None:
    """A row for the teacher and each model: a linear classifier on frozen vectors. None where nothing was probed."""
    probed, titles = [result for result in results if _probes(result)], probed_tasks(results)
    if not titles:
        return None
    widest = max(probed, key=lambda result: len(_probes(result)))
    rows = [_probed(TEACHER, widest, TEACHER, titles)]
    rows += [_probed(case, widest, case, titles, "tasks") for case in _baselines(widest)]
    rows += [_probed(_named(result), result, result.model.name, titles) for result in probed]
    return markdown_table(["Model", *(f"{title}, %" for title in titles.values())], rows)


def _baselines(result: Result) -> list[str]:
    """The cases of the baselines in the file."""
    return [row.case for row in result.report.rows if row.case in BASELINES]


def _probes(result: Result) -> Mapping[str, Any]:
    probes: Mapping[str, Any] = result.row.values.get(PROBE, {})
    return probes


def _probed(label: str, result: Result, case: str, titles: Iterable[str], part: str = PROBE) -> list[str]:
    probed = result.report[case].values.get(part, {})
    return [label, *(_percent(result.score(case, task, part)) if task in probed else NONE for task in titles)]


def _named(result: Result) -> str:
    """The name of a model; students in bold."""
    return f"**{result.model.name}**" if result.model.has_files else result.model.name


def _file(kind: str) -> str:
    return kind.replace("-", " ")


def _scores(result: Result, case: str, titles: Mapping[str, str], common: Sequence[str]) -> list[str]:
    measured = result.report[case].values["tasks"]
    cells = [_percent(result.score(case, task)) if task in measured else NONE for task in titles]
    if not common or any(task not in measured for task in common):
        return [*cells, NONE, NONE]
    return [*cells, _percent(result.share(common, case)), _percent(result.gain(common, case))]


def _percent(value: Value) -> str:
    return f"{100 * value.mean:.1f}" + (f" ± {100 * value.std:.1f}" if value.std is not None else "")


def held_out_table(results: Sequence[Result]) -> str:
    """Family by family, a row for the teacher and each model: its training, and how it predicts held-out text."""
    rows = []
    for recipe, family in itertools.groupby(results, key=lambda result: result.model.recipe):
        first, *others = family
        text = recipe.removeprefix("reference-")
        rows.append([f"{TEACHER}, on the text of {text}", *[NONE] * 4, *_held_out(first, TEACHER)])
        for result in (first, *others):
            own = result.row.values
            effort = [count(own["updates"]), f"{own['tokens'] / 1e6:.2f}", duration(own["wall_time_s"])]
            name = f"`{result.model.name}`: {result.model.title}"
            rows.append([name, *effort, result.arithmetic, *_held_out(result, result.model.name)])
    titles = [title for title, _, _ in HELD_OUT.values()]
    return markdown_table(["Model", "updates", "tokens, millions", "time", "computed in", *titles], rows)


def _held_out(result: Result, case: str) -> list[str]:
    values = [(result.held_out(key, case), factor) for key, (_, factor, _) in HELD_OUT.items()]
    return [NONE if value is None else number(factor * value) for value, factor in values]


def size_table(results: Sequence[Result]) -> str:
    """A row for the teacher and each student: parameters, and the size of the files that differ in it."""
    students = [result for result in results if result.model.has_files]
    if not students:
        return "No student was run."
    measured = {path for result in students for path in result.row.values["files_mib"]}
    files = [path for path in FILES if path in measured]
    whole = results[0].report[TEACHER].values["parameters"]
    rows = [[TEACHER, f"{whole / 1e6:.2f}", "1.0", *[NONE] * len(files)]]
    for result in students:
        own = result.row.values
        sizes = [f"{own['files_mib'][path]:.1f}" if path in own["files_mib"] else NONE for path in files]
        ratio = f"{whole / own['parameters']:.1f}"
        rows.append([f"**{result.model.name}**", f"{own['parameters'] / 1e6:.2f}", ratio, *sizes])
    head = ["Model", "parameters, millions", "times smaller", *(f"`{path}`, MiB" for path in files)]
    return markdown_table(head, rows)


def gain_table(base: Result) -> str | None:
    """What base and the bag of words keep of the teacher's gain over the majority class, on each task it has learnt."""
    learnt = [task for task in base.tasks if base.is_learnt(task)]
    if not learnt:
        return None
    rows = []
    for task in learnt:
        majority = base.majority(task)
        assert majority is not None
        lead = 100 * (base.score(TEACHER, task).mean - majority)
        row = [base.tasks[task]["title"], f"{100 * majority:.1f}", f"{lead:+.1f}"]
        for case in (base.model.name, BAG_OF_WORDS):
            known = any(found.case == case and task in found.values["tasks"] for found in base.report.rows)
            row += [_percent(base.share([task], case)), _percent(base.gain([task], case))] if known else [NONE, NONE]
        rows.append(row)
    cells = [_percent(base.share(learnt)), _percent(base.gain(learnt))]
    rows.append(["mean", NONE, NONE, *cells, NONE, NONE])
    own = [f"{name}: {part}, %" for name in ("base", "bag of words") for part in ("score", "gain")]
    return markdown_table(["Task", "majority class, %", "teacher's gain, points", *own], rows)


def comparison_tables(head: Sequence[str], compared: Compared) -> str:
    """Below its title, for each part a row for each pair of models and a column for each measure that any has."""
    tables = []
    significant = corrected(compared)
    for part in PARTS:
        found = {
            names: {each.measure: each for each in comparisons if each.part == part}
            for names, comparisons in significant.items()
        }
        measures = list(dict.fromkeys(itertools.chain(*found.values())))
        rows = [
            [*names, *(_compared(measured[measure]) if measure in measured else NONE for measure in measures)]
            for names, measured in found.items()
            if measured
        ]
        if rows:
            table = markdown_table([*head, *measures], rows, text_columns=len(head))
            tested = any(each.p_value is not None for measured in found.values() for each in measured.values())
            note = "" if tested else " (no row results, so no tests)"
            tables.append(f"{PARTS[part]}{note}:\n\n{table}")
    return "\n\n".join(tables) or "Not run yet."


def _compared(each: Comparison) -> str:
    return {True: "▲ ", False: "▼ ", None: ""}[each.is_better] + _difference(each)


def _difference(each: Comparison) -> str:
    digits = 1 if each.measure.endswith("%") else 3 if each.scale < 2 else 2
    error = "" if each.error is None else f" ± {each.error:.{digits}f}"
    return f"{each.difference:+.{digits}f}{error}"


def goals_table(named: Mapping[str, Result]) -> str:
    """What base was to reach, what it reached, and whether that is enough."""
    rows = [_kept(named), _gained(named), _int8(named)]
    return markdown_table(["Goal", "measured", "reached"], rows, text_columns=3)


def _kept(named: Mapping[str, Result]) -> list[str]:
    goal = f"Base has at least {100 * LEAST_SHARE:.0f} % of the teacher's mean score over all tasks"
    if "base" not in named or not named["base"].tasks:
        return [goal, NOT_RUN, NONE]
    base = named["base"]
    learnt = [task for task in base.tasks if base.is_learnt(task)]
    if not learnt:
        return [goal, NONE, "the teacher has learnt no task"]
    share = base.share(learnt)
    reached = "yes" if share.mean >= LEAST_SHARE else "no"
    if share.std is not None and abs(share.mean - LEAST_SHARE) <= critical_value(share.seeds - 1) * (
        share.std / math.sqrt(share.seeds)
    ):
        reached += ", within the error"
    unlearnt = [about["title"] for task, about in base.tasks.items() if task not in learnt]
    if unlearnt:
        reached += f"; without {listing(unlearnt)}, which the teacher has not learnt"
    measured = f"{_percent(share)} %; {_percent(base.gain(learnt))} % of its gain over the majority class"
    return [goal, measured, f"{reached}{_of_all(base.tasks)}"]


def _of_all(tasks: Collection[str]) -> str:
    """How many of the tasks a verdict is about, where it is not all."""
    return "" if len(tasks) == len(known_tasks()) else f"; {len(tasks)} of {len(known_tasks())} tasks were measured"


def _gained(named: Mapping[str, Result]) -> list[str]:
    goal = "Base is better than without distillation on every task"
    if not {"base", "base-mlm-only"} <= named.keys():
        return [goal, NOT_RUN, NONE]
    base, other = named["base"], named["base-mlm-only"]
    gains = [each for each in corrected({("base",): compare(base, other)})["base",] if each.part == FINE_TUNED]
    if not gains:
        return [goal, NOT_RUN, NONE]
    shown = ", ".join(f"{gain.measure.partition(',')[0]} {_difference(gain)} points" for gain in gains)
    behind = [gain.measure.partition(",")[0] for gain in gains if gain.difference <= 0]
    reached = f"no: not on {listing(behind)}" if behind else "yes, by the mean"
    tested = [gain for gain in gains if gain.p_value is not None]
    significant = sum(gain.is_better is True for gain in tested)
    reached += f"; significant on {significant}" if tested else "; not tested, for want of row results"
    return [goal, shown, f"{reached}{_of_all(gains)}"]


def _int8(named: Mapping[str, Result]) -> list[str]:
    goal = f"An int8 file of base is within {100 * MOST_LOST_IN_INT8:.1f} points of base"
    files = {kind: row for kind, row in named["base"].files.items() if "int8" in kind} if "base" in named else {}
    if not files:
        return [goal, NOT_RUN, NONE]
    base = named["base"]
    one_class = [task for task in base.tasks if base.answers_one_class(task)]
    plain = FILE_ROW_PREFIX + PYTORCH if PYTORCH in base.files else base.model.name
    arithmetic = "fp32" if PYTORCH in base.files else base.arithmetic_of_tasks
    gains = {
        _file(kind): [
            base.score(row.case, task).mean - base.score(plain, task).mean
            for task in row.values["tasks"]
            if task not in one_class
        ]
        for kind, row in files.items()
    }
    if len(one_class) == len(base.tasks):
        return [goal, NONE, NONE]
    shown = "; ".join(
        f"{file} {100 * min(points):+.2f} points at worst, {100 * statistics.fmean(points):+.2f} in the mean"
        for file, points in gains.items()
    )
    reached = "yes" if min(map(min, gains.values())) >= -MOST_LOST_IN_INT8 else "no"
    reached += f"; against PyTorch in {arithmetic}"
    if one_class:
        titles = listing([base.tasks[task]["title"] for task in one_class])
        reached += f"; without {titles}, where base gives one class to every row"
    return [goal, shown, reached]
