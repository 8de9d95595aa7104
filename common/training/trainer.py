"""The training loop, on accelerate.

Order, masks and dropout are functions of the seed, the epoch and the batch. So a run that is stopped at any moment and
resumed ends with the same weights, bit for bit, and the number of processes changes a result only by rounding.
"""

import atexit
import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from tqdm import tqdm

from distilrubert.common.bars import progress_bar
from distilrubert.common.errors import UserError
from distilrubert.common.measurements import Environment, Measurements
from distilrubert.common.processes import peak_memory_mib, return_freed_memory
from distilrubert.common.recorded_inputs import agrees, difference
from distilrubert.common.training.batching import BatchPlan, build_loader, choose_workers
from distilrubert.common.training.live_progress import write_live_progress
from distilrubert.common.training.loss_module import Prepared
from distilrubert.common.training.progress import (
    Progress,
    listed,
    peak_gpu_memory_mib,
    training_report,
)
from distilrubert.common.training.ranks import destroy_process_group, largest, on_main, total
from distilrubert.common.training.run_checkpoints import (
    Checkpoints,
    load_weights,
    read_state,
    restore,
    save_weights,
)
from distilrubert.common.training.signals import Interrupted, StopRequest
from distilrubert.common.training.tracking import check_trackers, finish_trackers, start_trackers
from distilrubert.common.training.training_run import EpochEvaluation, TrainingRun
from distilrubert.common.training.update import AbandonedUpdate, Update, Updater
from distilrubert.common.training.validation import Validation

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds between the calls that give freed memory back to the system, each of which takes up to about a second.
MEMORY_SECONDS = 60.0


def train(run: TrainingRun) -> Measurements:
    """Train the run's model in place, resuming from its newest checkpoint. It ends on the device where it began.

    Under torchrun or ``accelerate launch`` every process makes this call, and all see the same folder.

    Raises:
        UserError: if `batches_per_update` is no multiple of the number of processes, a tracker is not installed, the
            folder cannot be written, a checkpoint in it belongs to another run, a batch is too large for the GPU, or
            too many updates in a row had to be skipped. The newest checkpoint stays in each case.
        Interrupted: after Ctrl-C or one of `STOP_SIGNALS`, when a checkpoint has been saved.
    """
    check_trackers(run.settings.trackers, f"{run.section}.trackers")
    # accelerate keeps the precision of the process's first run. The process group stays.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        # Without this, accelerate takes each process on a CPU for a run of its own, and a Mac's GPU, without float64.
        cpu=not torch.cuda.is_available(),
        # Autocast is entered where it is needed; accelerate's own precision would hold for the whole process.
        mixed_precision="no",
        log_with=run.settings.trackers or None,
        project_dir=str(run.folder / "trackers"),
        kwargs_handlers=[
            DistributedDataParallelKwargs(
                find_unused_parameters=run.find_unused_parameters, gradient_as_bucket_view=True
            )
        ],
    )
    # A process group that is still there at the end of the interpreter can abort it.
    atexit.register(destroy_process_group)
    # A process that ends while others still join the group breaks their start.
    accelerator.wait_for_everyone()
    run.settings.check_processes(run.section, accelerator.num_processes)
    home = next(run.objective.parameters()).device
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    # Without checkpoints there is nothing to save, and a signal stops the run at once.
    stop_request = StopRequest(enabled=run.settings.keep_checkpoints > 0)
    # Has no effect on a CPU.
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = run.settings.tf32
    with torch.random.fork_rng(devices=devices), stop_request as stop:
        try:
            return _Loop(run, accelerator, stop).execute()
        except torch.OutOfMemoryError:
            raise UserError(
                f"{run.section}: a batch needs more memory than the GPU has; make the batches smaller, and more of "
                "them for an update, or turn on gradient_checkpointing; the newest checkpoint stays"
            ) from None
        finally:
            finish_trackers(accelerator)
            torch.backends.cuda.matmul.allow_tf32 = tf32
            run.objective.to(home).end_training()
            run.objective.set_compiled(compiled=False)


def _with_next(items: Iterator[T]) -> Iterator[tuple[T, T | None]]:
    """Each item with the one behind it, which is made before the item is worked on; behind the last one is None."""
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        yield item, following
        item = following


class _Loop:
    """One call of :func:`train` on one process."""

    def __init__(self, run: TrainingRun, accelerator: Accelerator, stop: StopRequest) -> None:
        self.run, self.settings, self.accelerator, self.stop = run, run.settings, accelerator, stop
        self.checkpoints = Checkpoints(run.folder / "checkpoints", run.settings.keep_checkpoints)
        self.newest: Path | None = on_main(accelerator, self.checkpoints.prepare)
        try:
            self.plan = BatchPlan(run.examples.lengths, run.settings, run.seed)
            self.validation = Validation(
                run.validation, run.collator, run.objective, run.settings, run.seed, accelerator
            )
        except UserError as error:
            raise UserError(f"{run.section}.{error}") from None
        run.objective.to(accelerator.device)
        if run.settings.compile:
            run.objective.set_compiled(compiled=True)
        self.update = Updater(accelerator, run.objective, run.settings, self.plan.total_steps, run.seed)
        self.progress = Progress()
        self.saved_step: int | None = None

    def execute(self) -> Measurements:
        """Make the remaining updates and report; a finished run only reports."""
        state = self._resume(self.newest) if self.newest else {}
        if not self._is_over():
            self._begin()
            with progress_bar(self.run.case, self.plan.total_steps, unit="update", done=self.progress.step) as bar:
                for (epoch, indices, batches), following in _with_next(self._batches()):
                    self._advance(epoch, indices, batches, following and following[-1], bar)
                    if self._is_over():
                        break
            state = self._save()
        if not self.progress.curves:
            raise UserError(
                f"{self.run.section}: none of the {self.progress.step} updates was finite; look for weights that are "
                f"not, or train with a lower {self.run.section}.learning_rate"
            )
        if self.run.evaluation:
            load_weights(self._best_weights(self.run.evaluation), self.run.objective)
        if total(self.accelerator, {"stop": self.stop.received})["stop"]:
            raise Interrupted(f"{self.run.case}: stopped when it had finished; {self._kept()}")
        return training_report(self.run.case, state, self.run.epoch_tokens, self.run.objective.describe())

    def _resume(self, checkpoint: Path) -> dict[str, Any]:
        """Load a checkpoint and return its state."""
        state: dict[str, Any] = read_state(checkpoint)
        try:
            identity, progress, was = state["identity"], Progress(**state["progress"]), state["precision"]
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{checkpoint}: was written by another version of distilrubert; remove {checkpoint.parent} to start "
                "again, or use that version"
            ) from error
        now = self.run.identity()
        if not agrees(identity, now):
            raise UserError(
                f"{checkpoint}: belongs to another run: {difference(identity, now)}; remove "
                f"{checkpoint.parent} to start again, or undo the change"
            )
        restore(checkpoint, self.run.objective, self.update.optimizer)
        self.update.loss_scale.restore(state.get("loss_scale", {}))
        self.progress = progress
        self.saved_step = progress.step
        self._log("resuming from %s", checkpoint)
        if (here := self.update.precision) != was:
            self.update.precision = was
            self._log("computes in %s as before; %s is faster on this machine", was, here)
        return state

    def _begin(self) -> None:
        """Start the clocks and trackers of this call."""
        if self.progress.step:
            self.progress.resumes += 1
        now = time.monotonic()
        # The time of earlier calls counts, as if this one had begun that much earlier.
        self.began, self.saved_at, self.tidied_at = now - self.progress.wall_time_s, now, now
        progress = self.progress
        progress.run_ids = start_trackers(
            self.accelerator, self.run.project, self.run.case, self.run.all_settings(), progress.step, progress.run_ids
        )
        self._log(
            "%d updates, batches in each: %d, precision: %s, processes: %d",
            self.plan.total_steps,
            self.settings.batches_per_update,
            self.update.precision,
            self.accelerator.num_processes,
        )

    def _log(self, message: str, *values: object, level: int | None = None) -> None:
        shown = (level or self.run.log_level) if self.accelerator.is_main_process else logging.DEBUG
        logger.log(shown, f"{self.run.case}: {message}", *values)

    def _batches(self) -> Iterator[tuple[int, Sequence[int], Sequence[Prepared]]]:
        """The remaining updates: the epoch, and this process's batches with their places in the plan of the epoch."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        each = self.settings.batches_per_update // processes
        for epoch, first, planned in self.plan.remaining(self.progress.step):
            loader = build_loader(
                self.run.examples,
                self.run.collator,
                planned[rank::processes],
                epoch=epoch,
                prepare=self.run.objective.preparation(),
                num_workers=choose_workers(self.settings.num_workers, self.accelerator.device),
                ahead=each,
                pin_memory=self.accelerator.device.type == "cuda",
            )
            # One iterator, taken `each` times: consecutive groups.
            indices = zip(*[itertools.count(first + rank, processes)] * each, strict=True)
            for places, batches in zip(indices, zip(*[iter(loader)] * each, strict=True), strict=False):
                yield epoch, places, batches

    def _advance(
        self,
        epoch: int,
        indices: Sequence[int],
        batches: Sequence[Prepared],
        following: Sequence[Prepared] | None,
        bar: "tqdm[NoReturn]",
    ) -> None:
        """Make one update and whatever is due after it."""
        progress, settings = self.progress, self.settings
        requests = {"stop": self.stop.received, "save": self._is_time_to_save()}
        try:
            done = self.update(progress.step, epoch, indices, batches, requests, self._should_abandon, following)
        except AbandonedUpdate:
            self._stop()
        progress.add_update(done)
        self._read_clock()
        if done.is_skipped:
            self._report_skipped(done)
        bar.set_postfix_str(f"{progress.tokens_per_s:.0f} tokens/s, {listed(done.losses)}", refresh=False)
        bar.update()
        if self.run.evaluation and self.plan.ends_epoch(progress.step):
            self._evaluate(self.run.evaluation)
        is_last = self._is_over()
        if progress.window_updates and (is_last or progress.step % settings.log_every == 0):
            self._log_point(done.learning_rate)
        self._return_freed_memory()
        if is_last or progress.step % settings.validate_every == 0:
            self._validate()
        every = settings.checkpoint_every
        if is_last:
            return
        if done.requests["stop"]:
            self._stop()
        if done.requests["save"] or (every and progress.step % every == 0):
            self._save()

    def _is_over(self) -> bool:
        evaluation = self.run.evaluation
        return self.progress.step == self.plan.total_steps or (
            evaluation is not None and evaluation.is_over(self.progress.evaluations)
        )

    def _evaluate(self, evaluation: EpochEvaluation) -> None:
        """Measure the model after an epoch, and keep its weights if it is the best so far."""
        evaluations = self.progress.evaluations
        self.run.objective.end_training()
        with self.progress.timed("validation"):
            metrics = on_main(self.accelerator, evaluation.measure)
        evaluations.append({"step": self.progress.step, **metrics})
        self._log("epoch %d: %s", len(evaluations), listed(metrics))
        self.accelerator.log({f"evaluation/{key}": value for key, value in metrics.items()}, step=self.progress.step)
        if evaluation.best(evaluations) == len(evaluations) - 1:
            with self.progress.timed("checkpoint"):
                on_main(self.accelerator, lambda: save_weights(self._best_weights(evaluation), self.run.objective))
        self._read_clock()

    def _best_weights(self, evaluation: EpochEvaluation) -> Path:
        """Named by the step: a run that is resumed may not find the same epoch the best one again."""
        evaluations = self.progress.evaluations
        return self.run.folder / f"best-{evaluations[evaluation.best(evaluations)]['step']:08}.safetensors"

    def _remove_other_weights(self) -> None:
        if self.run.evaluation and self.progress.evaluations:
            best = self._best_weights(self.run.evaluation)
            for weights in self.run.folder.glob("best-*.safetensors"):
                if weights != best:
                    weights.unlink()

    def _report_skipped(self, update: Update) -> None:
        """Log a skipped update, or give up."""
        progress, section = self.progress, self.run.section
        found = f"step {progress.step} is not finite: {listed(update.losses)}"
        skipped = progress.skipped_in_a_row
        if skipped > self.settings.max_skipped_updates or skipped == self.plan.total_steps:
            raise UserError(
                f"{section}: {found}; so are the {skipped - 1} updates before it, and {section}.max_skipped_updates is "
                f"{self.settings.max_skipped_updates}; {self._kept()}; remove {self.checkpoints.folder} and train with "
                f"a lower {section}.learning_rate or a longer {section}.warmup"
            )
        self._log("%s; the update is skipped", found, level=logging.WARNING)

    def _read_clock(self) -> None:
        self.progress.wall_time_s = time.monotonic() - self.began

    def _should_abandon(self) -> bool:
        # Several processes would have to agree before each batch, so they finish the update.
        return self.stop.received and self.accelerator.num_processes == 1

    def _stop(self) -> NoReturn:
        # Saving the same step again would leave it without a checkpoint for a moment.
        if self.saved_step != self.progress.step:
            self._save()
        raise Interrupted(f"{self.run.case}: stopped at step {self.progress.step}; {self._kept()}")

    def _is_time_to_save(self) -> bool:
        minutes = self.settings.checkpoint_minutes
        # The clock of the main process decides for all.
        if minutes is None or not self.accelerator.is_main_process:
            return False
        return time.monotonic() - self.saved_at > minutes * 60

    def _return_freed_memory(self) -> None:
        now = time.monotonic()
        if now - self.tidied_at > MEMORY_SECONDS:
            return_freed_memory()
            self.tidied_at = now

    def _log_point(self, learning_rate: float) -> None:
        """Add a point to the curves, and show it with what differs from one machine to another."""
        progress = self.progress
        measured = {
            "epoch": progress.tokens / self.run.epoch_tokens,
            "tokens_per_s": progress.window_tokens_per_s,
            "peak_memory_mib": peak_memory_mib(),
            "peak_gpu_memory_mib": peak_gpu_memory_mib(self.accelerator.device),
            "skipped_updates": progress.skipped_updates,
        }
        point = progress.add_point(learning_rate)
        self._log("%s, %.0f tokens/s", listed(point), measured["tokens_per_s"])
        self.accelerator.log({**point, **measured}, step=progress.step)
        if self.accelerator.is_main_process and self.settings.keep_checkpoints:
            write_live_progress(self.run.folder, progress, self.plan.total_steps, measured["tokens_per_s"])

    def _validate(self) -> None:
        with self.progress.timed("validation"):
            losses = self.validation.measure(self.update.precision)
        if not all(map(math.isfinite, losses.values())):
            found = f"not finite on held-out text: {listed(losses)}"
            if self.progress.step == self.plan.total_steps:
                raise UserError(f"{self.run.section}: {found}; {self._kept()}")
            self._log("step %d is %s", self.progress.step, found, level=logging.WARNING)
        elif losses:
            self.progress.validation.append({"step": self.progress.step, **losses})
            self._log("held-out text: %s", listed(losses))
            self.accelerator.log({f"validation/{key}": loss for key, loss in losses.items()}, step=self.progress.step)

    def _save(self) -> dict[str, Any]:
        """Write a checkpoint, if any are kept, and return its state."""
        progress, accelerator = self.progress, self.accelerator
        self._read_clock()
        progress.peak_memory_mib = max(progress.peak_memory_mib, largest(accelerator, peak_memory_mib()))
        gpu_peak = largest(accelerator, peak_gpu_memory_mib(accelerator.device))
        progress.peak_gpu_memory_mib = max(progress.peak_gpu_memory_mib, gpu_peak)
        state = {
            "identity": self.run.identity(),
            "settings": self.run.all_settings(),
            "environment": Environment.capture().to_dict(),
            "precision": self.update.precision,
            "processes": accelerator.num_processes,
            **({"loss_scale": self.update.loss_scale.state()} if self.update.precision == "fp16" else {}),
            "progress": dataclasses.asdict(progress),
        }
        if not self.settings.keep_checkpoints:
            on_main(accelerator, self._remove_other_weights)
            return state
        with progress.timed("checkpoint"):
            self.newest = on_main(
                accelerator,
                lambda: self.checkpoints.save(progress.step, self.run.objective, self.update.optimizer, state),
            )
        # Until now the checkpoint before could have been resumed.
        on_main(accelerator, self._remove_other_weights)
        self.saved_at, self.saved_step = time.monotonic(), progress.step
        return state

    def _kept(self) -> str:
        return f"the newest checkpoint is {self.newest}" if self.newest else "there is no checkpoint yet"
