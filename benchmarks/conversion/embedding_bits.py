"""What word embeddings in 4 bits cost a fine-tuned student in scores, beside those in 8 bits.

    DISTILRUBERT_DATA=FOLDER python benchmarks/conversion/embedding_bits.py STUDENT --output FILE.json

The student is fine-tuned on each task by the protocol of recipes/reference-slim.yaml, at one learning rate, once for
each seed. Each fine-tuned model is scored on the test part as it is, and as the int8 files of both runtimes with
embeddings of either size. A quarter of an hour on one core for a student of reference-slim.

A row for each task and file: ``values``, the scores of the seeds; ``loss``, how much the mean lies below that in
PyTorch; ``size_mib`` of the file. `details` has the protocol.
"""

import argparse
import functools
import statistics
import tempfile
from pathlib import Path
from typing import Any

from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.writers import export_finetuned, write_file
from distilrubert.evaluation.tasks.exported import PYTORCH, Exporter, with_pytorch
from distilrubert.evaluation.tasks.finetuning import finetune
from distilrubert.evaluation.tasks.task import TaskDefinition, load_tasks
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.modeling.checkpoints import load_pretrained
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import revision

RECIPE = Path(__file__).parents[2] / "recipes/reference-slim.yaml"
TASKS = ("rusentiment", "factrueval")
CASES = ("onnx-int8", "openvino-int8")
BITS = (8, 4)
SIZED_TEXTS = ["Как дела?", "Хорошо, спасибо."]


def main() -> None:
    """Fine-tune, score and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("student", type=Path, metavar="STUDENT", help="folder of a checkpoint")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument("--learning-rate", type=float, default=2e-4, metavar="X", help="default: 2e-4")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="default: 1 2 3")
    parser.add_argument("--train-limit", type=int, metavar="N", help="rows to train on (default: as in the recipe)")
    options = parser.parse_args()
    settings = load_recipe(RECIPE).evaluation.finetuning
    settings = settings.model_copy(update={"train_limit": options.train_limit or settings.train_limit})
    sizes, rows = _sizes(options.student), []
    for task in load_tasks(TASKS):
        data = load_rows(task, settings.train_limit)
        how = {"learning_rate": options.learning_rate, "exporters": _exporters()}
        runs = [finetune(options.student, task, data, settings, seed=seed, **how)["exported"] for seed in options.seeds]
        rows += [Row(f"{task.name}-{name}", _figures(task, name, runs) | sizes.get(name, {})) for name in runs[0]]
        for row in rows[-len(runs[0]) :]:
            print(f"{row.case:34} {row.values['mean']:.4f}  loss {100 * row.values['loss']:5.2f} points", flush=True)
    details = {
        "protocol": settings.model_dump(), "learning_rate": options.learning_rate, "seeds": options.seeds,
        "revision": revision(),
    }  # fmt: skip
    Measurements(Environment.capture(), rows, details=details).save(options.output)


def _variants() -> dict[str, tuple[str, ConversionSettings]]:
    """The case and the settings of each file, by name."""
    return {
        f"{case}-{bits}-bit-embeddings": (case, ConversionSettings(embedding_bits=bits))
        for case in CASES
        for bits in BITS
    }


def _exporters() -> dict[str, Exporter]:
    made = {name: functools.partial(export_finetuned, *how) for name, how in _variants().items()}
    return with_pytorch({name: Exporter(export) for name, export in made.items()})


def _sizes(student: Path) -> dict[str, dict[str, float]]:
    """MiB of each file of the student's encoder, by name."""
    checkpoint, found = load_pretrained(student), {}
    for name, (case, settings) in _variants().items():
        with tempfile.TemporaryDirectory() as work:
            write_file(case, ExportSource.of_text(checkpoint, settings, SIZED_TEXTS), Path(work))
            found[name] = {"size_mib": FORMATS[case].size_mib(Path(work))}
    return found


def _figures(task: TaskDefinition, name: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    values = [run[name][task.main_metric] for run in runs]
    mean = statistics.fmean(values)
    return {
        "task": task.name,
        "file": name,
        "metric": task.main_metric,
        "values": values,
        "mean": mean,
        "loss": statistics.fmean(run[PYTORCH][task.main_metric] for run in runs) - mean,
    }


if __name__ == "__main__":
    main()
