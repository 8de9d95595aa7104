"""Scores of one model on one task: run by run, each kept as soon as it is there."""

import dataclasses
import functools
import logging
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distilrubert.evaluation.bag_of_words import score_bag_of_words
from distilrubert.evaluation.exported import Exporter
from distilrubert.evaluation.finetuning import chosen_precision, finetune
from distilrubert.evaluation.linear_probe import probe
from distilrubert.evaluation.parallel import run_all
from distilrubert.evaluation.result_cache import ResultCache, fingerprint
from distilrubert.evaluation.settings import QualitySettings
from distilrubert.evaluation.task import TaskDefinition
from distilrubert.evaluation.task_data import TaskRows

logger = logging.getLogger(__name__)

BAG_OF_WORDS = "bag-of-words"

Result = dict[str, Any]
"""What one fine-tuning run gave, as a plain FinetuningResult."""
Summaries = tuple[dict[str, Any], dict[str, dict[str, Any]]]
"""The figures of a model over its runs on a task, and those of each kind of file by its name."""


@dataclasses.dataclass(frozen=True)
class TaskRunner:
    """Runs one model on tasks.

    Attributes:
        case: name of the model, for the log.
        model_folder: the checkpoint.
        settings: the protocol.
        cache: where finished runs are kept.
        exporters: kinds of files that each fine-tuned model is also scored as, by name.
    """

    case: str
    model_folder: str | os.PathLike[str]
    settings: QualitySettings
    cache: ResultCache
    exporters: Mapping[str, Exporter] = dataclasses.field(default_factory=dict)

    def job(self, task: TaskDefinition, rows: TaskRows, rate: float, seed: int) -> Callable[[], Result]:
        """One fine-tuning run, for any process to do."""
        return functools.partial(self._run, task, rows, rate, seed)

    def summary(self, task: TaskDefinition, rows: TaskRows, rate: float, runs: Sequence[Result]) -> Summaries:
        """The figures over the runs with the chosen learning rate."""
        summary = _summary(task, [run["test"] for run in runs])
        logger.info("%s: %s %s: %.3f", self.case, task.name, task.main_metric, summary[task.main_metric]["mean"])
        how = {"learning_rate": rate, "seeds": self.settings.seeds, **_row_counts(rows)}
        training = {
            "epochs": [run["epochs"] for run in runs],
            "train_s": [run["seconds"] for run in runs],
            "validation": [run["validation"][task.main_metric] for run in runs],
        }
        files = {name: _summary(task, [run["exported"][name] for run in runs]) for name in self.exporters}
        return {**summary, "run": how | training}, {name: {**file, "run": how} for name, file in files.items()}

    def probed(self, task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
        """The figures of a linear probe."""
        inputs = {"model": fingerprint(self.model_folder), "task": _task_inputs(task, rows), "probe": 1}
        result = self.cache(f"{task.name}-probe", inputs, lambda: probe(self.model_folder, task, rows))
        how = {"regularisation": result["regularisation"], **_row_counts(rows)}
        return {**_summary(task, [result["test"]]), "run": how}

    def _run(self, task: TaskDefinition, rows: TaskRows, rate: float, seed: int) -> dict[str, Any]:
        settings = self.settings.finetuning
        inputs = {
            "model": fingerprint(self.model_folder),
            "task": _task_inputs(task, rows),
            "settings": settings.model_dump(mode="json", exclude={"learning_rates", "train_limit"})
            | {"precision": chosen_precision(settings)},
            "learning_rate": rate,
            "seed": seed,
        }
        if self.exporters:
            inputs["exported"] = {name: dict(exporter.settings) for name, exporter in self.exporters.items()}

        def compute() -> dict[str, Any]:
            run = finetune(
                self.model_folder, task, rows, settings, learning_rate=rate, seed=seed, exporters=self.exporters
            ).to_dict()
            reached, of_run = run["validation"][task.main_metric], f"learning rate {rate:g}, seed {seed}"
            logger.info("%s: %s, %s: %.3f on validation, %.0f s", self.case, task.name, of_run, reached, run["seconds"])
            return run

        return self.cache(task.name, inputs, compute)


def fine_tune(
    runners: Sequence[TaskRunner], tasks: Sequence[TaskDefinition], data: Mapping[str, TaskRows], processes: int
) -> dict[tuple[str, str], Summaries]:
    """Fine-tune each model on each task: with each learning rate and the first seed, then with the best and the others.

    Args:
        runners: the models, all with the same settings.
        tasks: the tasks.
        data: rows by the task's name.
        processes: how many runs at once.

    Returns:
        The figures by case and task.
    """
    cells = {(runner.case, task.name): (runner, task, data[task.name]) for runner in runners for task in tasks}
    trials = run_all(
        {
            (*cell, rate): runner.job(task, rows, rate, runner.settings.seeds[0])
            for cell, (runner, task, rows) in cells.items()
            for rate in runner.settings.finetuning.learning_rates
        },
        processes,
        "learning rates",
    )
    chosen = {
        cell: max(
            runner.settings.finetuning.learning_rates,
            key=lambda rate: trials[*cell, rate]["validation"][task.main_metric],
        )
        for cell, (runner, task, _) in cells.items()
    }
    others = run_all(
        {
            (*cell, seed): runner.job(task, rows, chosen[cell], seed)
            for cell, (runner, task, rows) in cells.items()
            for seed in runner.settings.seeds[1:]
        },
        processes,
        "seeds",
    )
    summaries = {}
    for cell, (runner, task, rows) in cells.items():
        runs = [trials[*cell, chosen[cell]], *(others[*cell, seed] for seed in runner.settings.seeds[1:])]
        summaries[cell] = runner.summary(task, rows, chosen[cell], runs)
    return summaries


def bag_of_words_figures(task: TaskDefinition, rows: TaskRows, cache: ResultCache) -> dict[str, Any]:
    """The figures of the bag-of-words baseline."""
    inputs = {"model": BAG_OF_WORDS, "task": _task_inputs(task, rows)}
    scores = cache(f"{task.name}-{BAG_OF_WORDS}", inputs, lambda: score_bag_of_words(task, rows))
    return {**_summary(task, [scores]), "run": _row_counts(rows)}


def _task_inputs(task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
    decisive = {"name", "kind", "labels", "max_length", "metrics"}
    return {**task.model_dump(mode="json", include=decisive), "rows": rows.fingerprint()}


def _row_counts(rows: TaskRows) -> dict[str, int]:
    return {f"{field.name}_rows": len(getattr(rows, field.name)) for field in dataclasses.fields(rows)}


def _summary(task: TaskDefinition, scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean, standard deviation and raw values of each metric."""
    columns = {metric: [values[metric] for values in scores] for metric in task.metrics}
    return {
        metric: {
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "values": values,
        }
        for metric, values in columns.items()
    }
