"""The quality of several models side by side: held-out text, and labelled tasks with seeds."""

import functools
import hashlib
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrubert.common.contents import model_contents
from distilrubert.common.derived import MAJORITY
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.evaluation.evaluation_settings import IntrinsicSettings, QualitySettings
from distilrubert.evaluation.tasks.exported import PYTORCH, Exporter, with_pytorch
from distilrubert.evaluation.tasks.finetuning import Learner, chosen_precision
from distilrubert.evaluation.tasks.loading import load_to_predict
from distilrubert.evaluation.tasks.result_cache import ResultCache
from distilrubert.evaluation.tasks.significance import is_learnt, standard_error_of_gain
from distilrubert.evaluation.tasks.task import TaskDefinition
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows
from distilrubert.evaluation.tasks.task_runs import TaskRunner, baseline_figures, fine_tune
from distilrubert.evaluation.text.intrinsic import Ids, measure_intrinsic
from distilrubert.modeling.checkpoints import quiet_transformers
from distilrubert.modeling.heads import has_head

logger = logging.getLogger(__name__)


def measure_quality(
    models: Mapping[str, str | os.PathLike[str]],
    tasks: Sequence[TaskDefinition],
    settings: QualitySettings,
    held_out: Sequence[Ids],
    cache_folder: str | os.PathLike[str],
    own_held_out: Mapping[str, Sequence[Ids]] | None = None,
    exporters: Mapping[str, Mapping[str, Exporter]] | None = None,
    processes: int = 1,
    probed: Sequence[TaskDefinition] = (),
) -> Measurements:
    """Measure models on held-out text and on tasks, all in the same way.

    Each run of a (model, task, learning rate, seed) is kept in a file of the cache folder, named by a hash of its
    inputs: an interrupted measurement resumes.

    Args:
        models: folder of a masked language model by the name of its case; the first is the baseline, the teacher.
        tasks: the labelled tasks; none is allowed.
        settings: the protocol.
        held_out: sequences of ids, with special tokens, in the baseline's vocabulary; may be empty. Models with
            another vocabulary are not measured on them.
        cache_folder: where finished runs are kept.
        own_held_out: the same text by case, in the ids of models with a vocabulary of their own. They are measured on
            it, but not compared with the teacher token by token.
        exporters: by case, kinds of files by name: each fine-tuned model of that case is also scored as such a file,
            and in PyTorch in fp32, with which the files are compared.
        processes: fine-tuning runs at once, each with its share of PyTorch's threads.
        probed: tasks on which models are not fine-tuned: a linear probe scores them in a fraction of the time.

    Returns:
        A row for each model: the values of :func:`~distilrubert.evaluation.text.intrinsic.measure_intrinsic`, and
        ``tasks``: for each task the ``values`` of its metrics over the seeds, ``rows``: the row results of each run
        (:mod:`.row_results`), and ``run``: ``learning_rate``, ``seeds``, ``epochs``, ``train_s``, ``validation`` (the
        main score there), ``train_rows``, ``validation_rows``, ``test_rows``, ``test_rows_in_train`` (test rows that
        are also training rows).
        ``linear_probe`` has the same form, for the tasks that have classes. A row ``<case>-<name>`` for each kind of
        file, with ``tasks`` only. A row for each of the :data:`~distilrubert.evaluation.tasks.baselines.BASELINES`.
        ``gain_over_majority`` has the ``standard_error`` for each task that the teacher has learnt, see
        :func:`.standard_error_of_gain`. Means and ratios are derived: :mod:`distilrubert.common.derived`.

    Raises:
        UserError: if a folder holds no model, a task's data is invalid, or it cannot be probed.
    """
    exporters = {case: with_pytorch(kinds) for case, kinds in (exporters or {}).items() if kinds}
    _refuse_what_cannot_be_measured(models, probed)
    cache, everything = ResultCache(Path(cache_folder)), [*tasks, *probed]
    data = {task.name: load_rows(task, settings.finetuning.train_limit) for task in everything}
    figures = _intrinsic_figures(models, held_out, own_held_out or {}, settings.intrinsic, cache)
    chosen = settings.finetuning.model_copy(update={"precision": chosen_precision(settings.finetuning)})
    protocol = settings.model_copy(update={"finetuning": chosen})
    _refuse_models_that_cannot_learn(models, tasks, data, protocol)
    runners = [TaskRunner(case, folder, protocol, cache, exporters.get(case, {})) for case, folder in models.items()]
    # The baselines take seconds and come first: bad rows are found before hours of fine-tuning.
    baselines = baseline_figures(everything, data, cache)
    for runner in runners:
        if probes := {
            task.name: runner.probed(task, data[task.name]) for task in everything if task.task_kind.labelled
        }:
            figures[runner.case]["linear_probe"] = probes
    fine_tuned = fine_tune(runners, tasks, data, processes)
    for case in models:
        figures[case]["tasks"] = fine_tuned.pop(case, {})
    figures |= {case: {"tasks": scores} for case, scores in fine_tuned.items()} | baselines
    baseline = next(iter(models))
    mains = {task.name: task.main_metric for task in tasks}
    gains = _gains(figures, baseline, mains)
    rows = [Row(case, values | gains.get(case, {})) for case, values in figures.items()]
    return Measurements(Environment.capture(), rows, baseline, _details(everything, settings, processes, exporters))


def _refuse_what_cannot_be_measured(
    models: Mapping[str, str | os.PathLike[str]], probed: Sequence[TaskDefinition]
) -> None:
    for folder in models.values():
        if not (Path(folder) / "config.json").is_file():
            raise UserError(f"{folder}: holds no model: there is no config.json")
    for task in probed:
        if not task.task_kind.labelled:
            raise UserError(f"task {task.name}: has no classes, so there is no linear probe of it")


def _refuse_models_that_cannot_learn(
    models: Mapping[str, str | os.PathLike[str]],
    tasks: Sequence[TaskDefinition],
    data: Mapping[str, TaskRows],
    settings: QualitySettings,
) -> None:
    """Load each model once with the head of each kind of task, and encode a row, before anything is trained."""
    first_of_kind = {task.kind: task for task in reversed(tasks)}
    with quiet_transformers(), quiet_datasets():
        for folder, task in itertools.product(models.values(), first_of_kind.values()):
            Learner.prepare(folder, task, data[task.name].first_of_each(), settings.finetuning, settings.seeds[0])


def _gains(
    figures: Mapping[str, Mapping[str, Any]], teacher: str, main_metrics: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """``gain_over_majority`` of each row but the teacher's and the majority class's, on the tasks that are learnt."""
    majority, others = figures.get(MAJORITY, {}).get("tasks", {}), figures[teacher]["tasks"]
    learnt = {
        task: metric for task, metric in main_metrics.items() if is_learnt(metric, others[task], majority.get(task))
    }

    def gain(task: str, scores: Mapping[str, Any]) -> dict[str, float]:
        return {"standard_error": standard_error_of_gain(learnt[task], scores, others[task], majority[task])}

    gains = {
        case: {task: gain(task, values["tasks"][task]) for task in learnt if task in values["tasks"]}
        for case, values in figures.items()
        if case not in (teacher, MAJORITY)
    }
    return {case: {"gain_over_majority": of_tasks} for case, of_tasks in gains.items() if of_tasks}


def _details(
    tasks: Sequence[TaskDefinition],
    settings: QualitySettings,
    processes: int,
    exporters: Mapping[str, Mapping[str, Exporter]],
) -> dict[str, Any]:
    kinds = [item for kinds in exporters.values() for item in kinds.items()]
    exported = {name: dict(exporter.settings) for name, exporter in kinds if name != PYTORCH}
    return {
        "settings": settings.model_dump(mode="json"),
        "precision": chosen_precision(settings.finetuning),
        # Each had its share of the environment's threads.
        "processes": processes,
        "tasks": {task.name: task.description for task in tasks},
        # The settings of each kind of file that was scored.
        **({"exported": exported} if exported else {}),
    }


def _intrinsic_figures(
    models: Mapping[str, str | os.PathLike[str]],
    held_out: Sequence[Ids],
    own_held_out: Mapping[str, Sequence[Ids]],
    settings: IntrinsicSettings,
    cache: ResultCache,
) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {case: {} for case in models}
    if not len(held_out):
        return figures
    baseline, baseline_folder = next(iter(models.items()))
    for case, folder in models.items():
        sequences = own_held_out.get(case, held_out)
        teacher_folder = None if case == baseline or case in own_held_out else baseline_folder
        inputs = {
            "model": model_contents(Path(folder)),
            "teacher": model_contents(Path(teacher_folder)) if teacher_folder else None,
            "held_out": _content_of(sequences),
            "settings": settings.model_dump(mode="json"),
        }

        measure = functools.partial(_measure_folder, case, folder, teacher_folder, sequences, settings)
        figures[case] = cache("held-out", inputs, measure)
    return figures


def _content_of(held_out: Sequence[Ids]) -> str:
    digest = hashlib.sha256()
    for index in range(len(held_out)):
        digest.update(np.asarray(held_out[index], dtype=np.int64).tobytes() + b"|")
    return digest.hexdigest()


def _measure_folder(
    case: str,
    folder: str | os.PathLike[str],
    teacher_folder: str | os.PathLike[str] | None,
    held_out: Sequence[Ids],
    settings: IntrinsicSettings,
) -> dict[str, Any]:
    logger.info("%s: predicting held-out text", case)
    with quiet_transformers(), quiet_datasets():
        model, tokenizer = load_to_predict(folder)
        teacher, teacher_tokenizer = load_to_predict(teacher_folder) if teacher_folder else (None, tokenizer)
    if not all(has_head(each) for each in (model, teacher) if each is not None):
        logger.info("%s: without a masked-language head nothing is predicted", case)
        return {}
    if tokenizer.get_vocab() != teacher_tokenizer.get_vocab():
        logger.warning("%s: has a vocabulary of its own, so it is not measured on held-out tokens", folder)
        return {}
    return measure_intrinsic(model, tokenizer, held_out, settings, teacher)
