"""The scores of a model and of its files on the tasks of a suite."""

import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrubert.common.contents import content_of, model_contents
from distilrubert.common.formats import CHECKPOINT, FileFormat
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.common.sentence_files import MODULES_FILE, modules_in
from distilrubert.evaluation.sentences.frozen_vectors import Prompts, SentenceEncoder, own_prompts
from distilrubert.evaluation.sentences.suites import Suite, VectorTask
from distilrubert.evaluation.sentences.vector_rows import Parts, read_parts
from distilrubert.evaluation.sentences.vector_tasks import score_vectors
from distilrubert.evaluation.tasks.result_cache import ResultCache
from distilrubert.modeling.checkpoints import quiet_transformers

logger = logging.getLogger(__name__)


def measure_suite(
    models: Mapping[str, str | os.PathLike[str]],
    suite: Suite,
    cache_folder: str | os.PathLike[str],
    files: Mapping[str, Sequence[FileFormat]] | None = None,
    prompts: Prompts | None = None,
) -> Measurements:
    """Score models on the tasks of a suite whose data is there; nothing is trained but classifiers on frozen vectors.

    Finished scores are kept in the cache folder, by the content of the model, the file and the rows.

    Args:
        models: folders by the name of their case; the first is the baseline.
        suite: what is measured.
        cache_folder: where finished scores are kept.
        files: by case, the formats of the folder's files that are scored too.
        prompts: put before the texts; None: each model's own.

    Returns:
        A row for each model, and one ``<case>-<format>`` for each file: ``scores``, by task the metrics of each way in
        which they were reached (pooling and classifier), of which the best counts. The details name the tasks that are
        ``absent``.

    Raises:
        UserError: if no data is there, or a model, a file or rows cannot be used.
    """
    tasks = suite.present()
    parts = {task.name: read_parts(task, suite) for task in tasks}
    cache = ResultCache(Path(cache_folder))
    measured = [
        _Measured(
            case if file is CHECKPOINT else f"{case}-{file.case}",
            Path(folder),
            file,
            prompts or own_prompts(Path(folder)),
            suite,
        )
        for case, folder in models.items()
        for file in (CHECKPOINT, *(files or {}).get(case, ()))
    ]
    scores = {one.case: {task.name: one.scores(task, parts[task.name], cache) for task in tasks} for one in measured}
    details: dict[str, Any] = {
        "suite": suite.model_dump(mode="json", include={"name", "title", "poolings", "max_length", "published"}),
        "tasks": {
            task.name: {
                **task.model_dump(include={"title", "kind", "metric", "licence", "source"}),
                "rows": {part: len(next(iter(rows.values()))) for part, rows in parts[task.name].items()},
            }
            for task in tasks
        },
        "absent": suite.absent(),
        "prompts": {one.case: dataclasses.asdict(one.prompts) for one in measured},
    }
    rows = [Row(case, {"scores": own}) for case, own in scores.items()]
    return Measurements(Environment.capture(), rows, measured[0].case, details)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """One file of a model."""

    case: str
    folder: Path
    file: FileFormat
    prompts: Prompts
    suite: Suite

    def scores(self, task: VectorTask, parts: Parts, cache: ResultCache) -> dict[str, Any]:
        """The scores on a task, measured or out of the cache."""
        inputs = {
            **self._content,
            "task": task.model_dump(mode="json", include={"name", "kind", "metric", "classifiers"}),
            "rows": hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest(),
            "prompts": dataclasses.asdict(self.prompts),
            "suite": self.suite.model_dump(mode="json", include={"poolings", "max_length"}),
        }
        # No bars of the evaluators, and no notes of scikit-learn on them.
        with quiet_transformers(), quiet_datasets():
            found = cache(f"{self.suite.name}-{task.name}", inputs, lambda: score_vectors(task, parts, self._encoder))
        best = max(way[task.metric] for way in found.values())
        logger.info("%s: %s, %s: %.3f", self.case, task.name, task.metric, best)
        return found

    @functools.cached_property
    def _content(self) -> dict[str, Any]:
        paths = [self.folder / name for name in (MODULES_FILE, "sentence_bert_config.json")]
        folders = [self.folder / str(module["path"]) for module in modules_in(self.folder) if module.get("path")]
        paths += [path for folder in folders for path in sorted(folder.rglob("*"))]
        described = {os.path.relpath(path, self.folder): content_of(path)["sha256"] for path in paths if path.is_file()}
        file = {} if self.file is CHECKPOINT else self.file.digests(self.folder)
        return {"model": model_contents(self.folder), "modules": described, "file": file}

    @functools.cached_property
    def _encoder(self) -> SentenceEncoder:
        logger.info("%s: computing vectors", self.case)
        return SentenceEncoder(self.folder, self.suite, self.file, self.prompts)
