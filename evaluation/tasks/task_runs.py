"""Scores of models on tasks, run by run; each finished run is kept in the cache."""

import dataclasses
import functools
import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distilrubert.common.contents import model_contents
from distilrubert.evaluation.evaluation_settings import QualitySettings
from distilrubert.evaluation.tasks.baselines import BASELINES
from distilrubert.evaluation.tasks.baselines.linear_probe import probe
from distilrubert.evaluation.tasks.exported import Exporter
from distilrubert.evaluation.tasks.finetuning import finetune
from distilrubert.evaluation.tasks.parallel import run_all
from distilrubert.evaluation.tasks.result_cache import ResultCache
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows

logger = logging.getLogger(__name__)

Result = dict[str, Any]
"""What :func:`~distilrubert.evaluation.tasks.finetuning.finetune` returns."""


@dataclasses.dataclass(frozen=True)
class TaskRunner:
    """Runs one model on tasks.

    Attributes:
        case: name of the model, for the log.
        model_folder: the checkpoint.
        settings: the protocol, its precision chosen: processes that work at once could time it differently.
        cache: where finished runs are kept.
        exporters: kinds of files that each fine-tuned model is also scored as, by name.
    """

    case: str
    model_folder: str | os.PathLike[str]
    settings: QualitySettings
    cache: ResultCache
    exporters: Mapping[str, Exporter] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def _model(self) -> list[dict[str, Any]]:
        return model_contents(Path(self.model_folder))

    def summary(
        self, task: TaskDefinition, rows: TaskRows, rate: float, runs: Sequence[Result]
    ) -> dict[str, dict[str, Any]]:
        """The scores over the runs with the chosen learning rate, of the model and of its files, by case."""
        summary = summary_of(task, [run["test"] for run in runs])
        mean = statistics.fmean(summary[task.main_metric]["values"])
        logger.info("%s: %s %s: %.3f", self.case, task.name, task.main_metric, mean)
        how = {"learning_rate": rate, "seeds": self.settings.seeds, **row_counts(rows)}
        training = {
            "epochs": [run["epochs"] for run in runs],
            "train_s": [run["seconds"] for run in runs],
            "validation": [run["validation"][task.main_metric] for run in runs],
        }
        files = {
            f"{self.case}-{name}": {**summary_of(task, [run["exported"][name] for run in runs]), "run": how}
            for name in self.exporters
        }
        return {self.case: {**summary, "run": how | training}, **files}

    def probed(self, task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
        """The scores of a linear probe."""
        inputs = {"model": self._model, "task": task_inputs(task, rows)}
        result = self.cache(f"{task.name}-probe", inputs, lambda: probe(self.model_folder, task, rows))
        logger.info("%s: %s, linear probe: %.3f", self.case, task.name, result["test"][task.main_metric])
        how = {"regularisation": result["regularisation"], **row_counts(rows)}
        return {**summary_of(task, [result["test"]]), "run": how}

    def run(self, task: TaskDefinition, rows: TaskRows, rate: float, seed: int) -> Result:
        """One fine-tuning run, in any process."""
        settings = self.settings.finetuning
        inputs = {
            "model": self._model,
            "task": task_inputs(task, rows),
            "settings": settings.model_dump(mode="json", exclude={"learning_rates", "train_limit"}),
            "learning_rate": rate,
            "seed": seed,
        }
        if self.exporters:
            inputs["exported"] = {name: dict(exporter.settings) for name, exporter in self.exporters.items()}

        arguments = self.model_folder, task, rows, settings
        return self.cache(
            task.name,
            inputs,
            lambda: finetune(*arguments, learning_rate=rate, seed=seed, exporters=self.exporters),
        )


class FinetuningRun(NamedTuple):
    """A model, a task and what differs between the runs of both."""

    case: str
    task: str
    learning_rate: float
    seed: int


def fine_tune(
    runners: Sequence[TaskRunner], tasks: Sequence[TaskDefinition], data: Mapping[str, TaskRows], processes: int
) -> dict[str, dict[str, Any]]:
    """Fine-tune each model on each task: with each learning rate and the first seed, then with the best and the others.

    All runners have the same settings. Returns the scores by case and task, of the models and of their files.
    """
    by_case, by_name = {runner.case: runner for runner in runners}, {task.name: task for task in tasks}
    results: dict[FinetuningRun, Result] = {}

    def score(run: FinetuningRun) -> float:
        reached: float = results[run]["validation"][by_name[run.task].main_metric]
        return reached

    def perform(runs: Sequence[FinetuningRun], title: str) -> None:
        jobs = {
            run: functools.partial(
                by_case[run.case].run, by_name[run.task], data[run.task], run.learning_rate, run.seed
            )
            for run in runs
        }
        for run, result in run_all(jobs, processes, title):
            results[run] = result
            found = f"{score(run):.3f} on validation, {result['seconds']:.0f} s"
            logger.info("%s: %s, learning rate %g, seed %d: %s", *run, found)

    rates, (first, *others) = runners[0].settings.finetuning.learning_rates, runners[0].settings.seeds
    cells = [(case, name) for case in by_case for name in by_name]
    perform([FinetuningRun(*cell, rate, first) for cell in cells for rate in rates], "learning rates")
    best = {cell: max((FinetuningRun(*cell, rate, first) for rate in rates), key=score).learning_rate for cell in cells}
    perform([FinetuningRun(*cell, best[cell], seed) for cell in cells for seed in others], "seeds")
    scores: dict[str, dict[str, Any]] = {}
    for case, name in cells:
        rate = best[case, name]
        runs = [results[FinetuningRun(case, name, rate, seed)] for seed in (first, *others)]
        for row, summary in by_case[case].summary(by_name[name], data[name], rate, runs).items():
            scores.setdefault(row, {})[name] = summary
    return scores


def baseline_figures(
    tasks: Sequence[TaskDefinition], data: Mapping[str, TaskRows], cache: ResultCache
) -> dict[str, dict[str, Any]]:
    """The figures of the row of each baseline, by case; none for a baseline that can do none of the tasks."""

    def score(case: str, task: TaskDefinition) -> dict[str, Any]:
        rows = data[task.name]
        inputs = {"model": case, "task": task_inputs(task, rows)}
        scores = cache(f"{task.name}-{case}", inputs, lambda: BASELINES[case](task, rows))
        return {**summary_of(task, [scores]), "run": row_counts(rows)}

    found = {
        case: {task.name: score(case, task) for task in tasks if case in task.task_kind.baselines} for case in BASELINES
    }
    return {case: {"tasks": scores} for case, scores in found.items() if scores}


def task_inputs(task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
    """What a result depends on of a task, as plain JSON values."""
    decisive = {"name", "kind", "labels", "max_length", "metrics"}
    return {**task.model_dump(mode="json", include=decisive), "rows": rows.fingerprint()}


def row_counts(rows: TaskRows) -> dict[str, int]:
    """The rows of each part, and the test rows that are training rows too."""
    counts = {f"{name}_rows": len(part) for name, part in rows.parts.items()}
    return {**counts, "test_rows_in_train": rows.count_test_rows_in_train()}


def summary_of(task: TaskDefinition, scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of each metric over the runs, and ``rows``, the row results of each."""
    summaries = {metric: {"values": [values[metric] for values in scores]} for metric in task.metrics}
    return {**summaries, "rows": [values["rows"] for values in scores]}
