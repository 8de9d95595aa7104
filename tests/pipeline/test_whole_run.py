"""A whole run on a small scale: from the demo's recipe to a repository on a (local) Hub, and back from there."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipeline

from distilrubert.pipeline.cli import main
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.stages import stages_of

from ..hub.conftest import local_hub  # noqa: F401
from .example_recipes import CAN_EXPORT, ROOT, arguments_of

TEXT = "Ну что, как дела?"


def publish(run_dir: Path, *arguments: str, **overrides: object) -> int:
    return main(["publish", *arguments_of(run_dir, **overrides), *arguments])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "runs/demo"
    assert publish(folder) == 0
    return folder


@pytest.fixture(scope="module")
def hub(run_dir) -> Path:
    return run_dir / "hub"


def stages_done(caplog) -> list[str]:
    return [record.args[0] for record in caplog.records if record.msg == "%s: done in %.0f s"]


@pytest.fixture
def log(caplog, monkeypatch):
    # The command line keeps its messages to itself; here they are listened to.
    monkeypatch.setattr("distilrubert.pipeline.cli._configure_logging", lambda: None)
    logging.getLogger("distilrubert").propagate = True
    caplog.set_level(logging.INFO, logger="distilrubert")
    return caplog


@pytest.mark.slow
def test_the_lines_of_the_readme_load_the_result(run_dir, monkeypatch):
    monkeypatch.chdir(run_dir.parents[1])
    first_block = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(first_block, names)
    assert names["hidden_states"].shape[0] == 1
    assert torch.isfinite(names["hidden_states"]).all()


@pytest.mark.slow
def test_the_hub_folder_holds_what_the_design_says(hub):
    files = {path.relative_to(hub).as_posix() for path in hub.rglob("*") if path.is_file()}
    expected = {
        "README.md", "config.json", "model.safetensors", "CITATION.bib",
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
        "modules.json", "1_Pooling/config.json", "sentence_bert_config.json",
        "reports/training.json", "reports/parity.json", "reports/speed.json", "reports/quality.json",
    }  # fmt: skip
    if CAN_EXPORT:
        expected |= {"onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert expected <= files
    assert not [name for name in files - expected if not name.startswith(("assets/", "reports/"))]


@pytest.mark.slow
def test_whatever_is_made_lies_in_the_folder_of_a_stage(run_dir):
    beside = {path.name for path in run_dir.iterdir() if not path.is_symlink()}
    assert beside == {".lock", "logs", "recipe.yaml", "reports", "scores", "stages"}
    assert all(path.is_symlink() for path in (run_dir / "reports").iterdir())
    assert all(not path.is_symlink() for path in (run_dir / "hub").rglob("*"))


@pytest.mark.slow
def test_the_reports_say_what_was_done(run_dir):
    training = json.loads((run_dir / "reports/training.json").read_text())
    (row,) = training["rows"]
    assert row["steps"] == 3
    assert row["tokens"] > 0
    assert set(row["losses"]) >= {"kl", "mlm", "cosine"}
    quality = json.loads((run_dir / "reports/quality.json").read_text())
    files = ["student-pytorch-fp32", "student-onnx-int8"] if CAN_EXPORT else []
    assert [row["case"] for row in quality["rows"]] == ["teacher", "student", *files, "bag-of-words", "majority-class"]
    speed = json.loads((run_dir / "reports/speed.json").read_text())
    assert speed["baseline"] == speed["rows"][0]["case"] == "teacher-pytorch-fp32"
    # Raw values alone: what follows from them is derived by whoever reads it.
    assert all(len(row["batches"]["1"]["starts_s"]) == 1 and "latency_s" not in row for row in speed["rows"])


@pytest.mark.slow
def test_a_user_loads_it_as_users_do(hub):
    tokenizer = AutoTokenizer.from_pretrained(hub)
    inputs = tokenizer(TEXT, return_tensors="pt")
    hidden = AutoModel.from_pretrained(hub)(**inputs).last_hidden_state
    assert hidden.shape == (1, inputs["input_ids"].shape[1], 32)
    assert AutoModelForMaskedLM.from_pretrained(hub)(**inputs).logits.shape[-1] == len(tokenizer)
    guesses = pipeline("fill-mask", model=str(hub))("Ну что, как [MASK]?")
    assert len(guesses) == 5


@pytest.mark.slow
@pytest.mark.export
@pytest.mark.parametrize(("file", "tolerance"), [("model.onnx", 1e-4), ("model_quantized.onnx", 0.3)])
def test_the_onnx_files_give_the_same_vectors(hub, file, tolerance):
    import onnxruntime
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    tokenizer = AutoTokenizer.from_pretrained(hub)
    inputs = tokenizer([TEXT, "Хорошо"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(hub)(**inputs).last_hidden_state.numpy()
    real = inputs["attention_mask"].numpy().astype(bool)
    optimum = ORTModelForFeatureExtraction.from_pretrained(hub, subfolder="onnx", file_name=file)
    assert np.abs(optimum(**inputs).last_hidden_state.numpy() - expected)[real].max() < tolerance
    session = onnxruntime.InferenceSession(hub / "onnx" / file, providers=["CPUExecutionProvider"])
    (plain,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    assert np.abs(plain - expected)[real].max() < tolerance


@pytest.mark.slow
def test_everything_that_it_claims_holds(hub, capsys, tmp_path):
    assert main(["verify", str(hub), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["holds"] is True
    assert {statement["verdict"] for statement in found["statements"]} == {"holds", "not checked"}
    copy = shutil.copytree(hub, tmp_path / "hub")
    card = (copy / "README.md").read_text(encoding="utf-8")
    (copy / "README.md").write_text(re.sub(r"value: [\d.]+", "value: 0.99", card, count=1), encoding="utf-8")
    assert main(["verify", str(copy)]) == 1
    said = capsys.readouterr().out
    assert "0.99" in said
    assert "1 do not" in said
    quality = (copy / "reports/quality.json").rename(tmp_path / "quality.json")
    assert main(["verify", str(copy), "--task", str(ROOT / "recipes/demo/intents.yaml")]) == 2
    assert "--task: there is no reports/quality.json to compare with" in capsys.readouterr().err
    quality.rename(copy / "reports/quality.json")


@pytest.mark.slow
def test_a_second_run_does_no_stage_and_leaves_every_byte(run_dir, hub, log):
    before = {path: path.read_bytes() for path in hub.rglob("*") if path.is_file()}
    assert publish(run_dir) == 0
    assert stages_done(log) == []
    assert {path: path.read_bytes() for path in hub.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_changed_recipe_redoes_what_it_changes_and_going_back_takes_no_work(run_dir, log):
    student = (run_dir / "student/model.safetensors").read_bytes()
    assert publish(run_dir, card__title="Another title") == 0
    assert stages_done(log) == ["card"]
    assert "# Another title" in (run_dir / "hub/README.md").read_text()
    assert publish(run_dir, "--dry-run", distillation__max_steps=2) == 0
    assert main(["distill", *arguments_of(run_dir, distillation__max_steps=2)]) == 0
    assert stages_done(log) == ["card", "student"]
    assert (run_dir / "student/model.safetensors").read_bytes() != student
    assert publish(run_dir) == 0
    assert stages_done(log) == ["card", "student"]
    assert (run_dir / "student/model.safetensors").read_bytes() == student
    assert "# Another title" not in (run_dir / "hub/README.md").read_text()


def test_scores_of_files_are_of_the_settings_that_made_them(tmp_path):
    def inputs(*changes: str) -> object:
        run = Run(load_recipe(ROOT / "recipes/demo.yaml", changes), tmp_path)
        (quality,) = (stage for stage in stages_of(run) if stage.name == "quality")
        return quality.inputs(run)

    for exported in ("onnx: [int8]", "openvino: [int8]"):
        scored, other = f"evaluation.exported={{{exported}}}", "conversion.calibration_sentences=7"
        assert inputs(scored) != inputs(scored, other)
    assert inputs("evaluation.exported={}") == inputs("evaluation.exported={}", other)


@pytest.mark.slow
def test_a_dry_run_says_why_and_writes_nothing(run_dir, log, capsys, tmp_path, monkeypatch):
    def contents(folder: Path) -> dict[Path, int]:
        return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}

    before = contents(run_dir)
    assert publish(run_dir, "--dry-run", distillation__max_steps=9) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "distillation.max_steps was 3 and is 9" in said
    assert "up to date" in said
    assert "student will be made first" in said
    assert contents(run_dir) == before
    assert publish(tmp_path / "new", "--dry-run") == 0
    assert "first time" in capsys.readouterr().out
    assert publish(tmp_path / "new", "--dry-run", distillation__batch_tokens=16) == 2
    assert "distillation.batch_tokens: 16 is less than" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert stages_done(log) == []


@pytest.mark.slow
def test_publishing_twice_changes_nothing_the_second_time(run_dir, hub, local_hub, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["me"])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    target = ("--repo-id", "me/demo", "--endpoint", local_hub.endpoint)
    assert publish(run_dir, *target, "--no-push") == 0
    assert "me/demo" in capsys.readouterr().out
    assert "me/demo" not in local_hub.storage.repositories
    assert publish(run_dir, *target) == 0
    first = capsys.readouterr().out
    assert "Published" in first
    assert publish(run_dir, *target) == 0
    assert "Nothing changed" in capsys.readouterr().out
    assert local_hub.tokens["me"] not in first


@pytest.mark.slow
def test_a_finished_folder_is_published_without_what_it_was_made_from(hub, local_hub, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["me"])
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    copy = shutil.copytree(hub, tmp_path / "elsewhere/hub")
    target = ["--repo-id", "me/pushed", "--endpoint", local_hub.endpoint]
    assert main(["push", str(tmp_path / "elsewhere"), *target]) == 2
    assert f"name the model repository in it: {copy}" in capsys.readouterr().err
    assert main(["push", str(copy), *target, "--no-push"]) == 0
    assert "me/pushed" not in local_hub.storage.repositories
    assert main(["push", str(copy), *target]) == 0
    assert main(["push", str(copy), *target, "--verify-only"]) == 0
    (copy / "README.md").unlink()
    assert main(["push", str(copy), *target]) == 1
    assert "README.md" in capsys.readouterr().err


@pytest.mark.slow
def test_a_published_repository_is_verified_as_a_whole(run_dir, local_hub, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["me"])
    assert publish(run_dir, "--repo-id", "me/demo", "--endpoint", local_hub.endpoint) == 0
    # The client reads its endpoint when it is imported.
    hub_here = {"HF_ENDPOINT": local_hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "distilrubert.pipeline", "verify", "me/demo", "--json"]
    done = subprocess.run(command, env={**os.environ, **hub_here}, capture_output=True, text=True, check=True)
    holding = {
        statement["subject"] for statement in json.loads(done.stdout)["statements"] if statement["verdict"] == "holds"
    }
    assert {"README.md", "model.safetensors"} | ({"onnx/model.onnx"} if CAN_EXPORT else set()) <= holding
