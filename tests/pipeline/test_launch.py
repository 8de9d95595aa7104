"""Several processes on one run: they train together, and the rest is the leading one's."""

import argparse
import json
import os
import socket
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from distilrubert.common.errors import UserError
from distilrubert.pipeline import run_commands
from distilrubert.pipeline.checks import check_before_work
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.launch import Launch
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run

from .example_recipes import ROOT, arguments_of

TOGETHER = {
    "teacher.pretrain.batches_per_update": 2,
    "distillation.batches_per_update": 2,
    # Each run would time bf16 for itself, and could choose otherwise than the other.
    "teacher.pretrain.precision": "fp32",
    "distillation.precision": "fp32",
    # The other tests of whole runs export files; what the one process does alone is what trains: fine-tuning.
    "conversion.onnx": "[]",
    "evaluation.exported.onnx": "[]",
}


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_one_goes_on_alone(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "distilrubert.pipeline", "publish", *arguments_of(tmp_path / "two", **TOGETHER)]
    # The one process has all threads again; with a tiny model they mostly wait, which shall take no processor time.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The model repository is in") == 1
    assert (tmp_path / "two/hub/README.md").exists()
    assert main(["distill", *arguments_of(tmp_path / "one", **TOGETHER)]) == 0
    two, one = (load_file(tmp_path / name / "student/model.safetensors") for name in ("two", "one"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert (two[name] - tensor).abs().max() < 1e-5, name
    report = json.loads((tmp_path / "two/reports/training.json").read_text())
    assert report["rows"][0]["processes"] == 2
    logs = [(tmp_path / f"two/logs/rank-{rank}.log").read_text() for rank in (0, 1)]
    assert [log.count(", processes: 2") for log in logs] == [2, 2]
    assert [f"rank-{rank}: process " in log for rank, log in enumerate(logs)] == [True, True]


# What `srun` does for two tasks, and a training that was asked to stop.
SLURM = {
    "srun": "shift; "  # an option
    'for SLURM_PROCID in 0 1; do export SLURM_PROCID SLURM_LOCALID=$SLURM_PROCID SLURM_NTASKS=2; "$@"; done',
    "scontrol": '[ "$1" = requeue ] && echo "again: $2" || printf "first\\nsecond\\n"',
    "python": 'echo "$RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR:$MASTER_PORT $1"; exit $STATUS',
}


@pytest.mark.parametrize(("status", "again"), [(130, ["again: 7"]), (0, []), (2, [])])
def test_the_slurm_job_of_the_documentation(tmp_path, status, again):
    document = (ROOT / "docs/distributed.md").read_text(encoding="utf-8")
    (job,) = (part.partition("```")[0] for part in document.split("```bash\n") if part.startswith("#!/bin/bash"))
    for name, lines in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    stated = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STATUS": str(status), "SLURM_JOB_ID": "7"}
    said = subprocess.run(["bash", "-c", job], env=os.environ | stated, capture_output=True, text=True, timeout=60)
    assert said.stderr == ""
    tasks = [f"{task}/2 {task} first:29400 publish.py" for task in (0, 1)]
    assert said.stdout.splitlines() == [*tasks, *again]


@pytest.mark.parametrize(("launcher", "threads"), [({"TORCHELASTIC_RUN_ID": "1"}, None), ({}, "1")])
def test_alone_it_is_no_longer_held_to_the_one_thread_of_torchrun(monkeypatch, launcher, threads):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name, value in ({"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "KEPT": "yes"} | launcher).items():
        monkeypatch.setenv(name, value)
    left: dict[str, str] = {}
    monkeypatch.setattr(os, "execve", lambda program, arguments, environment: left.update(environment))
    Launch(0, 2).go_on_alone()
    assert (left.get("OMP_NUM_THREADS"), left["KEPT"]) == (threads, "yes")
    assert "WORLD_SIZE" not in left


def test_going_on_alone_does_not_ask_the_hub_for_an_update_again(monkeypatch, tmp_path):
    replaced = lambda program, arguments, environment: monkeypatch.setattr(os, "environ", environment)  # noqa: E731
    monkeypatch.setattr(os, "execve", replaced)
    asked = []
    monkeypatch.setattr(run_commands, "with_commits", lambda run, *, update: asked.append(update))
    options = argparse.Namespace(recipe=None, run_dir=tmp_path, update=True)
    run_commands.run_of(options, Launch(0, 2))
    Launch(0, 2).go_on_alone()
    run_commands.run_of(options, Launch())
    assert asked == [True, False]


MESSAGES = """
import time
from distilrubert.pipeline.launch import Launch

launch = Launch.of_this_process()
if launch.leads:
    for key in ("first", "second"):
        launch.send(key, key)
    launch.wait_until_read("second")
else:
    for key in ("first", "second"):
        time.sleep(1)
        assert launch.receive(key) == key
"""


def test_messages_arrive_without_torchrun():
    """As Slurm starts processes: the leading one serves the messages itself, and for as long as it runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen([sys.executable, "-c", MESSAGES], env={**os.environ, **address, "RANK": str(rank)})
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=300) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()


def test_an_update_that_cannot_be_divided_is_refused_before_any_work(tmp_path):
    recipe = load_recipe(ROOT / "recipes/demo.yaml", ["distillation.batches_per_update=3"])
    run = Run(recipe, tmp_path / "run", Launch(0, 2))
    with pytest.raises(UserError, match=r"distillation\.batches_per_update: 3 is no multiple of .* 2"):
        check_before_work(run)
    assert not run.folder.exists()
