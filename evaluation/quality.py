"""The quality of several models side by side: held-out text, and labelled tasks with seeds."""

import dataclasses
import hashlib
import json
import logging
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from distilrubert.evaluation.bag_of_words import applies_to, score_bag_of_words
from distilrubert.evaluation.finetuning import computes_in_bf16, finetune
from distilrubert.evaluation.intrinsic import Ids, measure_intrinsic
from distilrubert.evaluation.quiet import quiet_libraries
from distilrubert.evaluation.settings import IntrinsicSettings, QualitySettings
from distilrubert.evaluation.task import TaskDefinition
from distilrubert.evaluation.task_data import TaskRows, load_rows
from distilrubert.modeling.errors import UserError
from distilrubert.modeling.persistence import read_json, sha256_of, write_json
from distilrubert.modeling.reports import Environment, Measurements, Row

logger = logging.getLogger(__name__)

BAG_OF_WORDS = "bag-of-words"
# The files of a folder that decide what a model computes.
MODEL_FILES = ("config.json", "*.safetensors", "pytorch_model*.bin", "tokenizer*.json", "vocab.txt")


def measure_quality(
    models: Mapping[str, str | os.PathLike[str]],
    tasks: Sequence[TaskDefinition],
    settings: QualitySettings,
    held_out: Sequence[Ids],
    cache_folder: str | os.PathLike[str],
    own_held_out: Mapping[str, Sequence[Ids]] | None = None,
) -> Measurements:
    """Measure models on held-out text and on tasks, all in the same way.

    What has been measured is kept in the cache folder, one file for each run of a (model, task, learning rate,
    seed), named by the content of what went in: an interrupted measurement goes on where it stopped.

    Args:
        models: folder of a masked language model by the name of its case; the first is the baseline, the teacher.
        tasks: the labelled tasks; none is allowed.
        settings: what is measured and how.
        held_out: sequences of ids, with special tokens, in the baseline's vocabulary; may be empty. Models with
            another vocabulary are not measured on them.
        cache_folder: where finished runs are kept.
        own_held_out: the same text by case, for models with a vocabulary of their own: in their ids. They are then
            measured on it, but not compared with the teacher piece by piece.

    Returns:
        A row for each model: the figures of :func:`~distilrubert.evaluation.intrinsic.measure_intrinsic`, and
        ``tasks``: for each task its metrics as ``{mean, std, values}`` over the seeds (``std`` is the sample's, None
        of a single value) and ``run``: ``learning_rate``, ``seeds``, ``epochs``, ``train_s``, ``validation`` (the
        main score there), ``train_rows``, ``validation_rows``, ``test_rows``. A row ``bag-of-words`` where a task
        classifies sentences. ``ratio`` is the mean over the tasks of the main score, relative to the baseline's.

    Raises:
        UserError: if a folder holds no model, or a task's data is no good.
    """
    for folder in models.values():
        if not (Path(folder) / "config.json").is_file():
            raise UserError(f"{folder}: holds no model: there is no config.json")
    cache = _Cache(Path(cache_folder))
    data = {task.name: load_rows(task, settings.finetuning.train_limit) for task in tasks}
    figures = _intrinsic_figures(models, held_out, own_held_out or {}, settings.intrinsic, cache)
    for case, folder in models.items():
        runner = _TaskRunner(folder, settings, cache)
        figures[case]["tasks"] = {task.name: runner(task, data[task.name]) for task in tasks}
    baseline = next(iter(models))
    rows = [Row(case, values, _ratio(values, figures[baseline], tasks)) for case, values in figures.items()]
    words = {task.name: _bag_of_words(task, data[task.name], cache) for task in tasks if applies_to(task)}
    if words:
        rows.append(Row(BAG_OF_WORDS, {"tasks": words}, _ratio({"tasks": words}, figures[baseline], tasks)))
    return Measurements(Environment.capture(), rows, baseline, _details(tasks, settings))


def _details(tasks: Sequence[TaskDefinition], settings: QualitySettings) -> dict[str, Any]:
    described = {"title", "kind", "max_length", "licence", "source"}
    return {
        "settings": settings.model_dump(mode="json"),
        "precision": "bf16" if computes_in_bf16(settings.finetuning) else "fp32",
        "tasks": {
            task.name: {**task.model_dump(include=described), "main_metric": task.main_metric, "metrics": task.metrics}
            for task in tasks
        },
    }


def _ratio(values: Mapping[str, Any], baseline: Mapping[str, Any], tasks: Sequence[TaskDefinition]) -> float | None:
    """Mean main score over that of the baseline; None without tasks, where one was not measured, or of a zero."""
    if not tasks or any(task.name not in values["tasks"] for task in tasks):
        return None
    own, other = (
        statistics.fmean(figures["tasks"][task.name][task.main_metric]["mean"] for task in tasks)
        for figures in (values, baseline)
    )
    return own / other if other > 0 else None


@dataclasses.dataclass(frozen=True)
class _Cache:
    """Results by the content of what they were made from."""

    folder: Path

    def __call__(self, name: str, inputs: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        path = self.folder / f"{name}-{digest[:20]}.json"
        if path.exists():
            logger.info("%s is measured already", name)
        else:
            write_json(path, {"inputs": inputs, "result": compute()})
        result: dict[str, Any] = read_json(path)["result"]
        return result


def _fingerprint(folder: str | os.PathLike[str]) -> str:
    """A hash of the files that decide what a model computes."""
    files = sorted({path for pattern in MODEL_FILES for path in Path(folder).glob(pattern)})
    return hashlib.sha256("".join(f"{path.name} {sha256_of(path)}\n" for path in files).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class _TaskRunner:
    """Runs one model on tasks: the learning rate with the first seed, then the other seeds."""

    model_folder: str | os.PathLike[str]
    settings: QualitySettings
    cache: _Cache

    def __call__(self, task: TaskDefinition, rows: TaskRows) -> dict[str, Any]:
        rates, (first, *others) = self.settings.finetuning.learning_rates, self.settings.seeds
        tried = {rate: self._run(task, rows, rate, first) for rate in rates}
        chosen = max(rates, key=lambda rate: tried[rate]["validation"][task.main_metric])
        runs = [tried[chosen], *(self._run(task, rows, chosen, seed) for seed in others)]
        summary = _summary(task, [run["test"] for run in runs])
        logger.info("%s: %s %s", self.model_folder, task.name, summary[task.main_metric])
        return {
            **summary,
            "run": {
                "learning_rate": chosen,
                "seeds": self.settings.seeds,
                "epochs": [run["epochs"] for run in runs],
                "train_s": [run["seconds"] for run in runs],
                "validation": [run["validation"][task.main_metric] for run in runs],
                **_row_counts(rows),
            },
        }

    def _run(self, task: TaskDefinition, rows: TaskRows, rate: float, seed: int) -> dict[str, Any]:
        settings = self.settings.finetuning
        inputs = {
            "model": _fingerprint(self.model_folder),
            "task": _task_inputs(task, rows),
            "settings": settings.model_dump(mode="json", exclude={"learning_rates", "train_limit"}),
            "learning_rate": rate,
            "seed": seed,
        }
        return self.cache(
            task.name,
            inputs,
            lambda: finetune(self.model_folder, task, rows, settings, learning_rate=rate, seed=seed).to_dict(),
        )


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


def _bag_of_words(task: TaskDefinition, rows: TaskRows, cache: _Cache) -> dict[str, Any]:
    inputs = {"model": BAG_OF_WORDS, "task": _task_inputs(task, rows)}
    scores = cache(f"{task.name}-{BAG_OF_WORDS}", inputs, lambda: score_bag_of_words(task, rows))
    return {**_summary(task, [scores]), "run": _row_counts(rows)}


def _intrinsic_figures(
    models: Mapping[str, str | os.PathLike[str]],
    held_out: Sequence[Ids],
    own_held_out: Mapping[str, Sequence[Ids]],
    settings: IntrinsicSettings,
    cache: _Cache,
) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {case: {} for case in models}
    if not len(held_out):
        return figures
    baseline, baseline_folder = next(iter(models.items()))
    for case, folder in models.items():
        sequences = own_held_out.get(case, held_out)
        teacher_folder = None if case == baseline or case in own_held_out else baseline_folder
        inputs = {
            "model": _fingerprint(folder),
            "teacher": _fingerprint(teacher_folder) if teacher_folder else None,
            "held_out": _content_of(sequences),
            "settings": settings.model_dump(mode="json"),
        }

        def measure(folder: Any = folder, teacher: Any = teacher_folder, sequences: Any = sequences) -> Any:
            return _measure_folder(folder, teacher, sequences, settings)

        figures[case] = cache("held-out", inputs, measure)
    return figures


def _content_of(held_out: Sequence[Ids]) -> str:
    digest = hashlib.sha256()
    for index in range(len(held_out)):
        digest.update(np.asarray(held_out[index], dtype=np.int64).tobytes() + b"|")
    return digest.hexdigest()


def _measure_folder(
    folder: str | os.PathLike[str],
    teacher_folder: str | os.PathLike[str] | None,
    held_out: Sequence[Ids],
    settings: IntrinsicSettings,
) -> dict[str, Any]:
    with quiet_libraries():
        model, tokenizer = _load_masked_lm(folder)
        teacher, teacher_tokenizer = _load_masked_lm(teacher_folder) if teacher_folder else (None, tokenizer)
    if tokenizer.get_vocab() != teacher_tokenizer.get_vocab():
        logger.warning("%s: has a vocabulary of its own, so it is not measured on held-out pieces", folder)
        return {}
    return measure_intrinsic(model, tokenizer, held_out, settings, teacher)


def _load_masked_lm(folder: str | os.PathLike[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        return model.eval().to(device), AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder}: cannot be loaded as a masked language model: {error}") from error
