"""What can be known to be wrong before any work is done or anything is written."""

import tempfile
from pathlib import Path

from distilrubert.conversion.onnx import require_onnx
from distilrubert.conversion.openvino import require_openvino
from distilrubert.distill.sources import open_source
from distilrubert.distill.tracking import check_trackers
from distilrubert.evaluation.exported import require_exportable
from distilrubert.evaluation.task import load_task
from distilrubert.modeling.presets import student_config
from distilrubert.modeling.teacher import load_teacher
from distilrubert.pipeline.hub.connection import connect
from distilrubert.pipeline.run import Run, inputs_of, is_up_to_date
from distilrubert.pipeline.stages import training_stages_of


def check_before_work(run: Run, *, push: bool = False) -> None:
    """Refuse a run that would fail later: hours later, where its teacher is large.

    Args:
        run: the run; its folder is only read.
        push: whether the result is to be pushed, so that target and token are looked at too.

    Raises:
        UserError: naming the first thing that is wrong.
    """
    recipe = run.recipe
    for section, settings in (("distillation", recipe.distillation), ("teacher.pretrain", recipe.teacher.pretrain)):
        if settings:
            settings.check_processes(section, run.launch.processes)
    if push:
        connect(recipe.publish)
    with tempfile.TemporaryDirectory() as unused:
        for source in recipe.corpus.sources:
            open_source(source, Path(unused))
    tasks = [load_task(task) for task in recipe.evaluation.tasks]
    exported = recipe.evaluation.exported
    if exported.cases:
        require_exportable(tasks)
    if recipe.conversion.onnx or exported.onnx:
        require_onnx()
    if recipe.conversion.openvino or exported.openvino:
        require_openvino()
    check_trackers(recipe.distillation.trackers, "distillation")
    # A student that is finished with these settings has had its teacher, which takes seconds to load.
    if recipe.teacher.model and run.launch.leads and not _has_student(run):
        teacher = load_teacher(recipe.teacher.model, recipe.teacher.revision)
        student_config(recipe.student, teacher.model.config)


def _has_student(run: Run) -> bool:
    stages = training_stages_of(run)
    return is_up_to_date(run, stages[-1], inputs_of(run, stages)[stages[-1].name])
