"""What word embeddings in 4 bits cost a fine-tuned student in scores, beside those in 8 bits.

    DISTILRUBERT_DATA=FOLDER python benchmarks/conversion/embedding_bits.py STUDENT --output FILE.json

The student is fine-tuned on each task by the protocol of recipes/reference-slim.yaml, at one learning rate, once for
each seed. Each fine-tuned model is scored on the test part as it is, and as the int8 files of both runtimes with
embeddings of either size. A quarter of an hour on one core for a student of reference-slim.

A row for each task and file: its `format`, its `embedding_bits`, the `metric`, the ``values`` of the seeds and the
``size_mib`` of the file with the encoder alone. `details` has the protocol.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from distilrubert.common.formats import FORMATS
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.writers import write_file
from distilrubert.evaluation.tasks.exported import Exporter, with_pytorch
from distilrubert.evaluation.tasks.finetuning import finetune
from distilrubert.evaluation.tasks.task import load_tasks
from distilrubert.evaluation.tasks.task_data import load_rows
from distilrubert.modeling.checkpoints import load_pretrained
from distilrubert.pipeline.exporting import exporters_of
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import revision

RECIPE = Path(__file__).parents[2] / "recipes/reference-slim.yaml"
LEARNING_RATE = 2e-4
SEEDS = (1, 2, 3)
TASKS = ("rusentiment", "factrueval")
CASES = ("onnx-int8", "openvino-int8")
BITS = (8, 4)
SIZED_TEXTS = ["Как дела?", "Хорошо, спасибо."]


def main() -> None:
    """Fine-tune, score and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("student", type=Path, metavar="STUDENT", help="folder of a checkpoint")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    options = parser.parse_args()
    settings = load_recipe(RECIPE).evaluation.finetuning
    sizes, rows = _sizes(options.student), []
    for task in load_tasks(TASKS):
        data = load_rows(task, settings.train_limit)
        how = {"learning_rate": LEARNING_RATE, "exporters": _exporters()}
        runs = [finetune(options.student, task, data, settings, seed=seed, **how)["exported"] for seed in SEEDS]
        for name in runs[0]:
            values = [run[name][task.main_metric] for run in runs]
            row = Row(f"{task.name}-{name}", {"task": task.name, "metric": task.main_metric, "values": values})
            row.values.update(sizes.get(name, {"format": name, "embedding_bits": None}))
            rows.append(row)
            print(f"{row.case:44}", *(f"{value:.4f}" for value in values), flush=True)
    details = {"protocol": settings.model_dump(), "learning_rate": LEARNING_RATE, "seeds": list(SEEDS)}
    Measurements(Environment.capture(), rows, details={**details, "revision": revision()}).save(options.output)


def _variants() -> dict[int, ConversionSettings]:
    return {bits: ConversionSettings(embedding_bits=bits) for bits in BITS}


def _name(case: str, bits: int) -> str:
    return f"{case}-{bits}-bit-embeddings"


def _exporters() -> dict[str, Exporter]:
    """What makes each file, and the fine-tuned model itself."""
    made = {bits: exporters_of(CASES, settings) for bits, settings in _variants().items()}
    return with_pytorch({_name(case, bits): made[bits][case] for case in CASES for bits in BITS})


def _sizes(student: Path) -> dict[str, dict[str, Any]]:
    """What each file is, with its MiB, by name."""
    checkpoint, found = load_pretrained(student), {}
    for bits, settings in _variants().items():
        source = ExportSource.of_text(checkpoint, settings, SIZED_TEXTS)
        for case in CASES:
            with tempfile.TemporaryDirectory() as work:
                write_file(case, source, Path(work))
                size = FORMATS[case].size_mib(Path(work))
            found[_name(case, bits)] = {"format": case, "embedding_bits": bits, "size_mib": size}
    return found


if __name__ == "__main__":
    main()
