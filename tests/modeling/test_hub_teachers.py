"""Teachers by their Hub id, from a local Hub that the unmodified client talks to, and what is said when it fails."""

import json
import os
import shutil
import socket
import subprocess
import sys
import traceback
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
from distilrubert.conversion.conversion_settings import ConversionSettings
from distilrubert.conversion.model_folder import convert
from distilrubert.modeling import downloads
from distilrubert.modeling.heads import has_head
from distilrubert.modeling.sentence_modules import SentenceModules, SentenceSettings, read_sentence_modules
from distilrubert.modeling.teacher import load_teacher
from distilrubert.pipeline.cli import main

from ..hub import server
from ..hub.conftest import local_hub  # noqa: F401
from ..hub.server import ACCOUNTS, LocalHub
from ..hub.storage import Entry, Refusal
from ..hub.wire import Request, Response

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
from distilrubert.common.errors import UserError
from distilrubert.common.persistence import read_json
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


DESCRIBE = """
import sys
from distilrubert.modeling.downloads import description_folder
print(description_folder(sys.argv[1]))
"""


ESTIMATE = """
import sys
from pathlib import Path
from distilrubert.pipeline.engine import states_of
from distilrubert.pipeline.estimates import estimate
from distilrubert.pipeline.recipe import load_recipe
from distilrubert.pipeline.run import Run
from distilrubert.pipeline.stages import stages_of
recipe, teacher, folder = sys.argv[1:]
changes = ["teacher.pretrain=null", f"teacher.model={teacher}", "distillation.max_steps=1"]
run = Run(load_recipe(Path(recipe), changes), Path(folder))
print(*(estimate(run, state).operations for state in states_of(run, stages_of(run)) if state.stage.name == "student"))
"""


class Client:
    """Runs scripts as a user of the Hub with an empty cache."""

    def __init__(self, hub: LocalHub, home: Path) -> None:
        self.environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(home),
            "HF_TOKEN": hub.tokens["me"],
            "HF_HUB_DISABLE_XET": "1",
        }

    def run(self, code: str, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        assert code == UPLOAD or "Fetching" not in done.stderr, "the client drew a bar into a pipe"
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

    described = Path(client.run(DESCRIBE, "me/teacher").strip())
    assert {"config.json", "tokenizer.json"} <= {path.name for path in described.iterdir()}
    demo = str(Path(__file__).parents[2] / "recipes/demo.yaml")
    assert float(client.run(ESTIMATE, demo, "me/teacher", str(tmp_path / "run"))) > 0
    assert not any(described.rglob("*.safetensors"))

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
    assert absent.startswith(
        "me/other (revision main): no such folder, not complete in the cache, and HF_HUB_OFFLINE is set"
    )


CANARY = "hf_" + "CanaryOfTheTeachers"


@pytest.fixture
def endpoint(
    local_hub: LocalHub,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The Hub of this process, which has a token of its own and an empty cache."""
    local_hub.storage.accounts[CANARY] = ACCOUNTS["me"]
    monkeypatch.setenv("HF_TOKEN", CANARY)
    use(local_hub.endpoint, tmp_path / "cache", monkeypatch)
    return local_hub.endpoint


def use(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(downloads, "model_info", huggingface_hub.HfApi(endpoint).model_info)
    for name in ("snapshot_download", "hf_hub_download"):
        monkeypatch.setattr(downloads, name, partial(getattr(huggingface_hub, name), endpoint=endpoint))
    monkeypatch.setattr(downloads, "constants", SimpleNamespace(ENDPOINT=endpoint))


def refuse(monkeypatch: pytest.MonkeyPatch, refusal: Refusal, path: str = "") -> None:
    """Let the local Hub refuse requests whose path holds this."""
    dispatch = server.dispatch

    def answer(hub: LocalHub, request: Request) -> Response:
        if path in request.path:
            raise refusal
        return dispatch(hub, request)

    monkeypatch.setattr(server, "dispatch", answer)


def failure() -> str:
    """What the user is told; the token is not in it, nor in the traceback."""
    with pytest.raises(UserError) as caught:
        downloads.checkpoint_folder("me/teacher")
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, ""),
        (401, "; log in anew (hf auth login), or set or unset HF_TOKEN"),
        (403, "; use a token that may read the model"),
        (429, "; wait some minutes, then repeat"),
        (503, "; repeat later"),
    ],
)
def test_a_hub_that_refuses_is_not_called_unreachable(
    endpoint: str, status: int, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, Refusal(status, f"\x1b[31mNot with {CANARY}"))
    text = failure()
    assert text.startswith(f"me/teacher (revision main): cannot be downloaded, {endpoint} answers with {status} (")
    assert "Not with ***" in text
    assert text.endswith(f"){advice}")
    assert "\x1b" not in text


def test_a_token_is_not_shown_where_a_long_message_is_cut(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, Refusal(403, f"{'x' * 290} {CANARY}"))
    assert "hf_C" not in failure()


def test_a_file_that_the_hub_refuses(
    local_hub: LocalHub,  # noqa: F811
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = local_hub.storage.create("me/teacher", "me")
    repository.commit("main", {"config.json": Entry(b"{}")}, repository.branches["main"], "A file", "me")
    refuse(monkeypatch, Refusal(403, f"Not with {CANARY}"), "/resolve/")
    assert f"{endpoint} answers with 403" in failure()


@pytest.mark.parametrize(
    ("kind", "cached", "is_taken"),
    [
        # As transformers asks for them: of an encoder it is not known what follows it.
        ("BertForMaskedLM", ["config.json", "model.safetensors"], True),
        ("BertModel", ["config.json", "model.safetensors"], False),
        ("BertForMaskedLM", ["config.json"], False),
        # As our own download leaves them.
        ("BertForMaskedLM", None, True),
        ("BertModel", None, True),
    ],
)
def test_an_earlier_download_is_taken_without_the_hub_if_it_is_whole(
    kind: str,
    cached: list[str] | None,
    is_taken: bool,
    local_hub: LocalHub,  # noqa: F811
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = local_hub.storage.create("me/teacher", "me")
    files = {"config.json": Entry(json.dumps({"architectures": [kind]}).encode()), "model.safetensors": Entry(b"x")}
    repository.commit("main", files, repository.branches["main"], "A model", "me")
    for file in cached or ():
        huggingface_hub.hf_hub_download("me/teacher", file, endpoint=endpoint)
    folder = None if cached else downloads.checkpoint_folder("me/teacher")
    refuse(monkeypatch, Refusal(503, "Not now"))
    if is_taken:
        assert downloads.checkpoint_folder("me/teacher") == (folder or downloads.description_folder("me/teacher"))
    else:
        assert f"{endpoint} answers with 503" in failure()


def test_half_a_download_is_not_taken_for_a_whole_one(
    local_hub: LocalHub,  # noqa: F811
    endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = local_hub.storage.create("me/teacher", "me")
    files = {"config.json": Entry(b"{}"), "model.safetensors": Entry(b"x")}
    repository.commit("main", files, repository.branches["main"], "A model", "me")
    downloads.description_folder("me/teacher")
    refuse(monkeypatch, Refusal(503, "Not now"), "/revision/main")
    # The client from 1.x on says itself that the Hub did not answer.
    broken = "me/teacher: model.safetensors could not be downloaded, the connection broke; repeat"
    assert (said := failure()) == broken or "answers with 503" in said


def test_a_refused_token_is_told_from_a_model_that_is_not_there(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, Refusal(401, f"{CANARY} is expired", code="RepoNotFound"))
    assert f"{endpoint} answers with 401 (" in failure()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="neither a folder nor a model that you can see"):
        downloads.checkpoint_folder("me/teacher")


def test_a_hub_where_nobody_answers(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        use(nobody, tmp_path / "cache", monkeypatch)
        # It is bound, so that nobody else takes it, and does not listen.
        said = failure()
    assert said == (
        "me/teacher (revision main): no such folder, not complete in the cache, and "
        f"{nobody} cannot be reached or broke the connection (Connection refused); connect or give a folder"
    )


def test_a_token_that_is_none_is_not_shown(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{CANARY} \x07")
    assert failure().startswith("HF_TOKEN: holds characters that no token has")


def test_an_encoder_of_sentence_transformers_by_its_id(
    local_hub: LocalHub,  # noqa: F811
    endpoint: str,
    tiny_teacher_folder: Path,
    sentences: list[str],
    tmp_path: Path,
) -> None:
    """Its pooling lies in a folder of an unusual name; that of what normalises is empty, so it is on no Hub."""
    source, package = tmp_path / "source", "sentence_transformers.models."
    BertModel.from_pretrained(tiny_teacher_folder).save_pretrained(source)
    for file in tiny_teacher_folder.glob("*token*"):
        shutil.copy(file, source)
    kinds = {"": "Transformer", "pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": package + kind}
        for place, (path, kind) in enumerate(kinds.items())
    ]
    (source / "pooling").mkdir()
    pooling = {"pooling_mode": "cls", "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    pooling["word_embedding_dimension"] = BertConfig.from_pretrained(tiny_teacher_folder).hidden_size
    files = {
        "modules.json": modules,
        "pooling/config.json": pooling,
        "config_sentence_transformers.json": {"prompts": {"query": "Да: ", "document": ""}},
    }
    for name, content in files.items():
        (source / name).write_text(json.dumps(content), encoding="utf-8")
    stored = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    entries = {name: Entry(path.read_bytes()) for name, path in stored.items()}
    repository = local_hub.storage.create("me/encoder", "me")
    repository.commit("main", entries, repository.branches["main"], "An encoder", "me")

    (tmp_path / "texts.txt").write_text("\n".join(sentences), encoding="utf-8")
    options = ["--corpus", str(tmp_path / "texts.txt"), "--held-out", "0", "--output", str(tmp_path / "trimmed")]
    assert main(["trim", "me/encoder", *options]) == 0
    assert read_sentence_modules(tmp_path / "trimmed") == SentenceModules("cls", "Да: ", "")
    # A teacher's own files are fetched without what follows the encoder, but for its pooling.
    teacher = load_teacher("me/encoder")
    assert not has_head(teacher.model)
    assert SentenceSettings().completed(downloads.checkpoint_folder("me/encoder")).pooling == "cls"
    # So does what is made of it by its id.
    encoder = SentenceModules("cls", "Да: ", "")
    convert("me/encoder", tmp_path / "converted", ConversionSettings(onnx=[]), sentences, encoder=encoder)
    assert read_sentence_modules(tmp_path / "converted") == encoder

    library = pytest.importorskip("sentence_transformers")
    (source / "2_Normalize").mkdir()
    expected_BD, found_BD = (
        torch.from_numpy(library.SentenceTransformer(str(folder), device="cpu").encode(sentences, prompt_name="query"))
        for folder in (source, tmp_path / "trimmed")
    )
    torch.testing.assert_close(found_BD, expected_BD, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found_BD.norm(dim=1), torch.ones(len(found_BD)))


def test_a_suite_scores_what_follows_an_encoder_by_its_id(
    local_hub: LocalHub,  # noqa: F811
    endpoint: str,
    tiny_teacher_folder: Path,
    tmp_path: Path,
) -> None:
    """The weights of its last map lie in a folder of their own."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    encoder = Transformer(str(tiny_teacher_folder))
    width = encoder.get_embedding_dimension()
    source = tmp_path / "source"
    library.SentenceTransformer(modules=[encoder, Pooling(width), Dense(width, 8)], device="cpu").save(str(source))
    stored = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
    repository = local_hub.storage.create("me/dense", "me")
    entries = {name: Entry(path.read_bytes()) for name, path in stored.items()}
    repository.commit("main", entries, repository.branches["main"], "An encoder", "me")
    for model in (str(source), "me/dense"):
        assert main(["evaluate", model, "--suite", "questions", "--output", str(tmp_path / f"{len(model)}.json")]) == 0
    own, found = (read_json(tmp_path / f"{len(model)}.json")["rows"] for model in (str(source), "me/dense"))
    assert own == found
