"""`distilrubert finetune`: a model for a task, as a folder that is ready to be loaded."""

import argparse
import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from distilrubert.common.checked_settings import stated_settings
from distilrubert.common.derived import derive
from distilrubert.common.formats import CHECKPOINT, FORMATS, SHARED_FILES, FileFormat, FormatCase, measured_cases
from distilrubert.common.measurements import Environment, Measurements, Row
from distilrubert.common.persistence import atomic_folder, check_output_folder, sha256_of
from distilrubert.common.quiet_datasets import quiet_datasets
from distilrubert.conversion.conversion_settings import ConversionSettings, ExportedSettings
from distilrubert.conversion.export_source import ExportSource
from distilrubert.conversion.parity import tolerance_name
from distilrubert.conversion.writers import require_packages, write_file
from distilrubert.evaluation.evaluation_settings import FinetuningSettings
from distilrubert.evaluation.tasks.baselines import BASELINES
from distilrubert.evaluation.tasks.calibration import calibrate
from distilrubert.evaluation.tasks.file_agreement import BOUNDS, FileComparison
from distilrubert.evaluation.tasks.row_results import class_counts, confusion, score_bins
from distilrubert.evaluation.tasks.task import TaskDefinition, load_task
from distilrubert.evaluation.tasks.task_data import TaskRows, load_rows
from distilrubert.evaluation.tasks.task_loss import model_inputs
from distilrubert.evaluation.tasks.task_model import TaskModel, train_task_model
from distilrubert.evaluation.tasks.task_runs import row_counts, summary_of
from distilrubert.modeling.checkpoints import quiet_transformers, read_model_config
from distilrubert.modeling.downloads import checkpoint_folder
from distilrubert.modeling.runtimes import open_model
from distilrubert.pipeline.exporting import check_exported
from distilrubert.pipeline.options import given, of_options
from distilrubert.pipeline.recipe import overridden
from distilrubert.pipeline.run import LOCK, locked
from distilrubert.pipeline.summary import print_finetuned


def finetune(options: argparse.Namespace) -> None:
    """Fine-tune one model on one task, and write it with its files into a new folder."""
    output = options.output.absolute()
    check_output_folder(output)
    exported = of_options(ExportedSettings, given(options, ExportedSettings))
    formats = [FORMATS[case] for case in exported.cases]
    settings = stated_settings(FinetuningSettings, overridden({}, options.overrides), "--set")
    task = load_task(options.task)
    for entry in formats:
        require_packages(entry.runtime)
    folder = checkpoint_folder(options.model)
    model_type = read_model_config(folder, str(options.model)).model_type
    check_exported(exported.cases, [task], model_type)
    rows = load_rows(task, settings.train_limit)
    # In seconds, and before hours of training: they find rows of which nothing can be learnt.
    baselines = baseline_rows(task, rows)
    with _training_folder(output) as work:
        model = train_task_model(folder, task, rows, settings, work, options.seed, str(options.model))
        with atomic_folder(output) as beside, quiet_transformers(), quiet_datasets():
            report = write_task_model(model, formats, beside, baselines, options.equal_decisions)
            report.details["rows"]["train_limit"] = settings.train_limit
            report.save(beside / "reports" / "finetuning.json")
        shutil.rmtree(work, ignore_errors=True)
    print_finetuned(derive(report))
    if calibration := report.details["calibration"]:
        print(_calibration_line(calibration))
    print(f"The model is in {options.output}, and its report in {options.output / 'reports' / 'finetuning.json'}")


@contextlib.contextmanager
def _training_folder(output: Path) -> Iterator[Path]:
    """Where checkpoints lie until the output is finished, for one process; it goes where there are none."""
    work = output.with_name(f"{output.name}.training")
    with locked(work):
        try:
            yield work
        finally:
            if work.is_dir() and [path.name for path in work.iterdir()] == [LOCK]:
                shutil.rmtree(work)


def _calibration_line(calibration: Mapping[str, float]) -> str:
    """What was done to the probabilities, in a line."""
    fitted, error = calibration["fitted_temperature"], f"{calibration['calibration_error']:.3f}"
    limit = ", the limit of what is tried" if calibration["is_at_limit"] else ""
    on_test = "expected calibration error on the test part"
    if calibration["temperature"] != fitted:
        return (
            f"Probabilities: left as they are, {on_test} {error}; the temperature of the validation part "
            f"({fitted:.2f}{limit}) makes its calibration error larger"
        )
    return (
        f"Probabilities: temperature {fitted:.2f}{limit}; {on_test} {error}, without it "
        f"{calibration['calibration_error_before']:.3f}"
    )


def write_task_model(
    model: TaskModel,
    formats: Sequence[FileFormat],
    folder: Path,
    baselines: Sequence[Row],
    equal_decisions: float | None = None,
    conversion: ConversionSettings | None = None,
) -> Measurements:
    """Write a fine-tuned model into an empty folder, and compare each of its files with it.

    Args:
        model: it is moved to the CPU. One with classes gets probabilities, see :mod:`.tasks.calibration`.
        formats: the files to make beside config.json, model.safetensors and the tokenizer.
        folder: to fill.
        baselines: rows for the report, see :func:`baseline_rows`.
        equal_decisions: least share of decisions in which an int8 file equals the model; by default as in
            :data:`~distilrubert.evaluation.tasks.file_agreement.BOUNDS`.
        conversion: how int8 is made; by default as everywhere.

    Returns:
        A row for each file, see :meth:`.file_agreement.FileComparison.measure`, with its ``size_mib``, ``path``,
        ``hint`` and ``sha256``, and the rows of the baselines.

    Raises:
        UserError: if a file differs from the model by more than is allowed.
    """
    learner, task = model.learner, model.learner.task
    calibration = calibrate(learner) if task.task_kind.labelled else None
    comparison = FileComparison(learner)
    examples = model_inputs(learner.features["train"], learner.tokenizer)
    export_task = task.task_kind.export_task
    how = conversion or ConversionSettings()
    source = ExportSource.of_examples(learner.model, model.tokenizer, how, examples, export_task)
    bounds = dict(BOUNDS)
    if equal_decisions is not None:
        bounds["int8"] = dataclasses.replace(bounds["int8"], equal_decisions=equal_decisions)
    environment, rows = Environment.capture(), []
    for entry in (CHECKPOINT, *formats):
        write_file(entry.case, source, folder)
        for case in measured_cases([entry], environment.instruction_sets):
            row = comparison.measure(case.name, open_model(folder, entry, export_task, hint=case.hint))
            bounds[tolerance_name(case)].check(row, entry.path)
            rows.append(dataclasses.replace(row, values=row.values | _facts(case, folder)))
    problem = task.task_kind.problem_type
    (test,) = rows[0].values["tasks"][task.name]["rows"]
    reliability = calibration.pop("reliability") if calibration else None
    details = {
        "task": {"name": task.name, **task.description, "classes": task.classes},
        **model.choices(),
        "validation": model.validation,
        "calibration": calibration,
        "reliability": reliability,
        "confusion": confusion(test, len(task.classes)) if problem == "single_label_classification" else None,
        "score_bins": score_bins(*comparison.test_answers()) if problem == "regression" else None,
        "class_counts": class_counts(task, *comparison.test_answers()),
        "rows": row_counts(learner.rows),
        "bounds": {name: dataclasses.asdict(bound) for name, bound in bounds.items()},
        "int8": source.report() if any(entry.precision == "int8" for entry in formats) else None,
        "sha256": {name: sha256_of(folder / name) for name in SHARED_FILES if (folder / name).is_file()},
    }
    return Measurements(environment, [*rows, *baselines], details=details)


def _facts(case: FormatCase, folder: Path) -> dict[str, object]:
    entry = case.format
    return {
        "size_mib": entry.size_mib(folder),
        "path": entry.path,
        "hint": case.hint,
        "sha256": entry.digests(folder),
    }


def baseline_rows(task: TaskDefinition, rows: TaskRows) -> list[Row]:
    """The rows of a report of the :data:`~distilrubert.evaluation.tasks.baselines.BASELINES` that can do the task.

    Raises:
        UserError: if nothing can be learnt from the texts.
    """
    return [
        Row(case, {"tasks": {task.name: summary_of(task, [BASELINES[case](task, rows)])}})
        for case in task.task_kind.baselines
    ]
