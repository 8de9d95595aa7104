"""What a run would take: rough figures for `publish --dry-run`, each from what is at hand, or none.

Training takes the speed that an earlier training report of the run has measured. Without one, it is the arithmetic of
the matrix products divided by the speed of a product on this machine, which is right within a factor of two or three.
Other stages take as long as they last did in this run directory.
"""

import dataclasses
import math
import time

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForMaskedLM, PretrainedConfig

from distilrubert.common.measurements import Measurements
from distilrubert.common.persistence import read_json
from distilrubert.common.training.training_settings import OptimizationSettings
from distilrubert.distill.corpus.sources import identities_of
from distilrubert.modeling.architecture import student_config
from distilrubert.pipeline.engine import StageState
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.stage_folders import StageFolders
from distilrubert.pipeline.student_vocabulary import teacher_config

FP32_BYTES = 4
# Of a trained weight: itself, its gradient and two moments; a checkpoint has no gradient.
TRAINED, SAVED = 4, 3
# UTF-8 of Russian text in WordPiece tokens; compressed files hold more.
BYTES_PER_TOKEN = 8
CPU_PRODUCT_SIZE, ACCELERATOR_PRODUCT_SIZE, MEASURING_S = 256, 4096, 0.5


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a stage would take; what cannot be told is None.

    Attributes:
        seconds: time.
        memory: bytes, weights and optimiser without activations.
        disk: bytes.
    """

    seconds: float | None = None
    memory: int | None = None
    disk: int | None = None


def estimate(run: Run, state: StageState) -> Estimate:
    """What performing a stage would take."""
    stage, folders = state.stage.name, StageFolders(run.folder)
    if stage == "student":
        return _training(run, run.recipe.distillation, "training", _student_config(run), _teacher_config(run))
    if stage == "teacher" and run.recipe.teacher.pretrain:
        return _training(run, run.recipe.teacher.pretrain, "pretraining", _teacher_config(run), None)
    return Estimate(next((folder.seconds for folder in folders.all(stage) if folder.is_complete), None))


def _training(
    run: Run,
    settings: OptimizationSettings,
    report: str,
    trained: PretrainedConfig | None,
    teacher: PretrainedConfig | None,
) -> Estimate:
    tokens = _tokens(run, settings)
    speed = _measured_tokens_per_s(run, report)
    if trained is None:
        return Estimate(tokens / speed if tokens and speed else None)
    parameters, frozen = _parameters(trained), _parameters(teacher) if teacher else 0
    if tokens and not speed:
        # Two operations a weight forward, four backward.
        speed = _operations_per_s() / (6 * parameters + 2 * frozen)
    return Estimate(
        tokens / speed if tokens and speed else None,
        FP32_BYTES * (TRAINED * parameters + frozen),
        FP32_BYTES * parameters * (SAVED * settings.keep_checkpoints + 1),
    )


def _tokens(run: Run, settings: OptimizationSettings) -> float | None:
    """Tokens that training reads, as far as the corpus or the number of updates tells."""
    update = settings.batch_tokens * settings.batches_per_update
    of_steps = update * settings.max_steps if settings.max_steps else None
    manifest = run.corpus / "manifest.json"
    corpus = read_json(manifest)["total"]["train_tokens"] if manifest.exists() else _tokens_in_files(run)
    return min((tokens for tokens in (of_steps, corpus * settings.epochs) if tokens), default=None)


def _tokens_in_files(run: Run) -> float:
    """Tokens in the files of the corpus, by their size; 0 where it has none."""
    files = [file for source in run.recipe.corpus.sources for file in identities_of(source)]
    return float(sum(file.get("bytes", 0) for file in files)) / BYTES_PER_TOKEN


def _measured_tokens_per_s(run: Run, report: str) -> float | None:
    path = run.reports / f"{report}.json"
    if not path.exists():
        found = StageFolders(run.folder).folder.glob(f"*/reports/{report}.json")
        path = max(found, key=lambda found: found.stat().st_mtime_ns, default=path)
    return Measurements.load(path).rows[0].values["tokens_per_s"] if path.exists() else None


def _operations_per_s() -> float:
    """Floating-point operations a second of a matrix product in fp32 on this machine.

    The fastest of many counts: others take up to thirty times as long when something else is running.
    """
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    size = CPU_PRODUCT_SIZE if device.type == "cpu" else ACCELERATOR_PRODUCT_SIZE
    matrix = torch.randn(size, size, device=device)
    fastest, end = math.inf, time.monotonic() + MEASURING_S
    while time.monotonic() < end:
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * size**3 / fastest


def _parameters(config: PretrainedConfig) -> int:
    with torch.device("meta"):
        return int(AutoModelForMaskedLM.from_config(config).num_parameters())


def _teacher_config(run: Run) -> PretrainedConfig | None:
    """The teacher's configuration, where nothing has to be downloaded for it."""
    teacher = run.recipe.teacher
    if teacher.model is None:
        return teacher_config(run)
    is_folder = (run.folder / teacher.model).is_dir()
    if is_folder or isinstance(try_to_load_from_cache(teacher.model, "config.json", revision=teacher.revision), str):
        return teacher_config(run)
    return None


def _student_config(run: Run) -> PretrainedConfig | None:
    teacher = _teacher_config(run)
    return student_config(run.recipe.student, teacher) if teacher else None
