"""Teachers by their Hub id, from a local Hub that the unmodified client talks to, each in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ..hub.conftest import local_hub  # noqa: F401
from ..hub.server import LocalHub

UPLOAD = """
import sys
from huggingface_hub import HfApi
folder, repo, branch = sys.argv[1:]
api = HfApi()
api.create_repo(repo, exist_ok=True)
if branch != "main":
    api.create_branch(repo, branch=branch)
api.upload_folder(repo_id=repo, folder_path=folder, revision=branch)
"""
LOAD = """
import json, sys
from distilrubert.modeling.errors import UserError
from distilrubert.modeling.teacher import load_teacher
outcomes = []
for model, revision in json.loads(sys.argv[1]):
    try:
        teacher = load_teacher(model, revision)
        weight = teacher.model.bert.embeddings.word_embeddings.weight
        outcomes.append([teacher.name, teacher.revision, float(weight.sum()), len(teacher.tokenizer)])
    except UserError as error:
        outcomes.append(str(error))
print(json.dumps(outcomes))
"""


class Client:
    """Runs scripts as a user of the Hub with an empty cache."""

    def __init__(self, hub: LocalHub, home: Path) -> None:
        self.environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(home),
            "HF_TOKEN": hub.tokens["me"],
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def run(self, code: str, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def load(self, *teachers: tuple[str, str | None], **environment: str) -> list[str | list[object]]:
        outcomes: list[str | list[object]] = json.loads(self.run(LOAD, json.dumps(teachers), **environment))
        return outcomes


@pytest.fixture
def client(local_hub: LocalHub, tmp_path: Path) -> Client:  # noqa: F811
    return Client(local_hub, tmp_path / "home")


@pytest.mark.slow
def test_a_teacher_by_its_id(
    client: Client,
    local_hub: LocalHub,  # noqa: F811
    tiny_teacher_folder: Path,
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_teacher_folder, source)
    (source / "onnx").mkdir()
    (source / "onnx" / "model.safetensors").write_bytes(bytes(1000))
    client.run(UPLOAD, str(source), "me/teacher", "main")
    shutil.rmtree(source / "onnx")
    weights = load_file(source / "model.safetensors")
    torch.save(weights, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    client.run(UPLOAD, str(source), "me/pickled", "old")
    expected = [float(weights["bert.embeddings.word_embeddings.weight"].sum()), 220]

    outcomes = client.load(
        ("me/teacher", None), ("me/pickled", "old"), ("me/pickled", None), ("me/teacher", "v9"), ("me/absent", None)
    )
    assert outcomes[0] == ["me/teacher", None, *expected]
    assert outcomes[1] == ["me/pickled", "old", *expected]
    assert "config.json" in outcomes[2]
    assert outcomes[3] == "me/teacher (revision v9): the model on the Hub has no such revision"
    assert outcomes[4] == "me/absent: neither a folder nor a model that you can see on the Hub"
    # Exports in folders are not fetched, and no conversion of the pickled weights is asked for.
    assert not any("onnx" in path for method, path in local_hub.requests if method == "GET")
    assert not any("discussions" in path for _, path in local_hub.requests)

    # What was downloaded once is there without a network.
    again, absent = client.load(("me/teacher", None), ("me/other", None), HF_HUB_OFFLINE="1")
    assert again == ["me/teacher", None, *expected]
    assert absent.startswith("me/other (revision main): no such folder, not in the cache")
