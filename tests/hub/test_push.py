"""Publishing to the local Hub by the unmodified client."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from distilrubert.common.errors import UserError
from distilrubert.pipeline.hub.connection import connect
from distilrubert.pipeline.hub.plan import plan_push, render_plan
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.push import push, push_folder, render_publication
from distilrubert.pipeline.hub.verify import render_verification, verify_push

from .conftest import HASTY
from .server import LocalHub
from .storage import Commit, Entry


def with_changes(settings: PublishSettings, **changes: object) -> PublishSettings:
    return settings.model_copy(update=changes)


def test_published_once_and_then_left_alone(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    first = push_folder(folder, target, local_hub.endpoint, HASTY)
    repository = local_hub.storage.repositories["me/demo"]
    assert first.changed
    assert (first.url, first.revision) == (f"{local_hub.endpoint}/me/demo", repository.branches["main"])
    published = {path: local_hub.storage.content(entry) for path, entry in repository.tree().items()}
    published.pop(".gitattributes")
    expected = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert published.keys() == expected
    for path, content in published.items():
        assert (content if isinstance(content, bytes) else content.read_bytes()) == (folder / path).read_bytes()

    local_hub.requests.clear()
    second = push_folder(folder, target, local_hub.endpoint, HASTY)
    assert not second.changed
    assert second.revision == first.revision
    assert "Nothing changed" in render_publication(second)
    assert len(repository.history()) == 2
    assert {method for method, _ in local_hub.requests} == {"GET", "HEAD"}


def test_a_change_is_one_commit_that_sends_only_what_changed(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    push_folder(folder, target, local_hub.endpoint, HASTY)
    uploads = len(local_hub.uploads)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nnew\n", encoding="utf-8")
    (folder / "reports" / "more.json").write_text("[]", encoding="utf-8")
    plan = plan_push(folder, target, connect(target, local_hub.endpoint))
    assert {file.path: file.action for file in plan.changes} == {"README.md": "replace", "reports/more.json": "add"}
    assert push(plan, connect(target, local_hub.endpoint)).changed
    repository = local_hub.storage.repositories["me/demo"]
    assert len(repository.history()) == 3
    assert repository.tree()["README.md"].content.endswith(b"new\n")
    assert len(local_hub.uploads) == uploads


def test_a_plan_changes_nothing(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    plan = plan_push(folder, target, connect(target, local_hub.endpoint))
    assert plan.creates_repository
    assert not plan.is_empty
    assert not local_hub.storage.repositories
    assert {method for method, _ in local_hub.requests} == {"GET"}
    text = render_plan(plan)
    assert "(a new repository)" in text
    assert "+ model.safetensors" in text
    assert plan.to_dict()["upload_bytes"] == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_deleted_only_with_prune(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    push_folder(folder, target, local_hub.endpoint, HASTY)
    (folder / "reports" / "speed.json").unlink()
    assert plan_push(folder, target, connect(target, local_hub.endpoint)).is_empty
    pruned = with_changes(target, prune=True)
    plan = plan_push(folder, pruned, connect(pruned, local_hub.endpoint))
    assert [(file.path, file.action) for file in plan.changes] == [("reports/speed.json", "delete")]
    push(plan, connect(pruned, local_hub.endpoint))
    tree = local_hub.storage.repositories["me/demo"].tree()
    assert "reports/speed.json" not in tree
    assert ".gitattributes" in tree


def test_names_in_a_repository_cannot_control_the_terminal(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    push_folder(folder, target, local_hub.endpoint, HASTY)
    repository = local_hub.storage.repositories["me/demo"]
    tree = repository.tree() | {"a\x1b[2J.txt": Entry(b"theirs")}
    repository.commit("main", tree, repository.branches["main"], "theirs", "colleague")
    connection = connect(target, local_hub.endpoint, HASTY)
    plan = plan_push(folder, with_changes(target, prune=True), connection)
    assert r"- a\x1b[2J.txt" in render_plan(plan)
    verification = verify_push(plan.digests, connection, "main", download=False)
    assert r"It also holds: a\x1b[2J.txt." in render_verification(verification)


def test_what_was_made_with_other_weights_goes_with_them(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    old = {
        "1_Pooling/config.json", "added_tokens.json", "model-00001-of-00002.safetensors",
        "model.safetensors.index.json", "onnx/model_quint8_avx2.onnx", "openvino/openvino_model_fp16.bin",
        "reports/quality.json", "assets/confusion.png",
    }  # fmt: skip
    foreign = {"LICENSE", "onnx/own.onnx", "pytorch_model.bin", "reports/own.json", "2_Dense/config.json"}
    for path in old | foreign:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(f"old {path}", encoding="utf-8")
    push_folder(folder, target, local_hub.endpoint, HASTY)
    for path in old | foreign:
        (folder / path).unlink()
    # As long as the weights stay it is as good as it was.
    assert plan_push(folder, target, connect(target, local_hub.endpoint)).is_empty
    weights = load_file(folder / "model.safetensors")
    save_file({name: -tensor for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    plan = plan_push(folder, target, connect(target, local_hub.endpoint))
    assert {(file.path, file.action) for file in plan.changes} == {
        ("model.safetensors", "replace"), *((path, "delete") for path in old),
    }  # fmt: skip
    assert "- onnx/model_quint8_avx2.onnx" in render_plan(plan)
    push(plan, connect(target, local_hub.endpoint))
    tree = local_hub.storage.repositories["me/demo"].tree()
    assert foreign <= tree.keys()
    assert not old & tree.keys()


def test_what_a_new_card_no_longer_names_goes_with_the_old_one(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    """Fault: a score that was left out stayed in its report, and the true card did not hold by it."""
    (folder / "reports/suite.json").write_text("{}", encoding="utf-8")
    push_folder(folder, target, local_hub.endpoint, HASTY)
    (folder / "reports/suite.json").unlink()
    card = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(f"{card}\nNew.\n", encoding="utf-8")
    plan = plan_push(folder, target, connect(target, local_hub.endpoint))
    assert [(file.path, file.action) for file in plan.changes] == [
        ("README.md", "replace"), ("reports/suite.json", "delete"),
    ]  # fmt: skip


def test_a_private_organisation_repository_on_a_new_branch_with_a_tag(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    settings = with_changes(target, repo_id="team/demo", private=True, revision="next/v2", tag="v2.0")
    found = push_folder(folder, settings, local_hub.endpoint, HASTY)
    repository = local_hub.storage.repositories["team/demo"]
    assert repository.private
    assert repository.branches["next/v2"] == repository.tags["v2.0"] == found.revision
    assert repository.tree("main").keys() == {".gitattributes"}
    assert found.url.endswith("/team/demo/tree/next%2Fv2")
    local_hub.requests.clear()
    assert not push_folder(folder, settings, local_hub.endpoint, HASTY).changed
    assert {method for method, _ in local_hub.requests} == {"GET", "HEAD"}, "the tag is not posted again"


def test_the_default_of_the_owner_decides_who_sees_a_new_repository(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    local_hub.storage.private_by_default.add("team")
    for name, private in (("default", None), ("public", False), ("private", True)):
        settings = with_changes(target, repo_id=f"team/{name}", private=private)
        plan = plan_push(folder, settings, connect(settings, local_hub.endpoint))
        assert ("(a new repository)" if private is None else f"(a new {name} repository)") in render_plan(plan)
        push(plan, connect(settings, local_hub.endpoint))
    found = {repository.id: repository.private for repository in local_hub.storage.repositories.values()}
    assert found == {"team/default": True, "team/public": False, "team/private": True}


def test_resource_group_and_commit_message(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    settings = with_changes(target, repo_id="team/demo", resource_group_id="a1", commit_message="Second training")
    push_folder(folder, settings, local_hub.endpoint, HASTY)
    repository = local_hub.storage.repositories["team/demo"]
    assert repository.resource_group == "a1"
    assert repository.history()[0].title == "Second training"


def test_what_is_created_without_a_commit_is_told(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    first = push_folder(folder, target, local_hub.endpoint, HASTY)
    branch = push_folder(folder, with_changes(target, revision="draft"), local_hub.endpoint, HASTY)
    assert render_publication(branch).startswith(f"Created branch draft: {local_hub.endpoint}/me/demo/tree/draft\n")
    tag = push_folder(folder, with_changes(target, tag="v1"), local_hub.endpoint, HASTY)
    assert render_publication(tag).startswith("Created tag v1: ")
    assert (branch.changed, branch.committed, branch.revision) == (True, False, first.revision)
    assert json.loads(json.dumps(tag.to_dict()))["created"] == ["tag v1"]


def test_a_pull_request_is_opened_once_and_leaves_the_branch(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    push_folder(folder, target, local_hub.endpoint, HASTY)
    (folder / "vocab.txt").write_text("да\n", encoding="utf-8")
    settings = with_changes(target, create_pr=True)
    first = push_folder(folder, settings, local_hub.endpoint, HASTY)
    repository = local_hub.storage.repositories["me/demo"]
    assert (first.changed, first.pull_request) == (True, 1)
    assert first.url == f"{local_hub.endpoint}/me/demo/discussions/1"
    assert first.revision == repository.branches["refs/pr/1"] != repository.branches["main"]
    assert "vocab.txt" not in repository.tree("main")
    second = push_folder(folder, settings, local_hub.endpoint, HASTY)
    assert (second.changed, second.pull_request, second.revision) == (False, 1, first.revision)
    assert len(repository.pull_requests) == 1
    (folder / "vocab.txt").write_text("нет\n", encoding="utf-8")
    third = push_folder(folder, with_changes(target, revision="refs/pr/1"), local_hub.endpoint, HASTY)
    assert repository.branches["refs/pr/1"] == third.revision != first.revision


def test_ones_own_pull_request_is_told_from_a_newer_one(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    push_folder(folder, target, local_hub.endpoint, HASTY)
    repository = local_hub.storage.repositories["me/demo"]
    (folder / "vocab.txt").write_text("да\n", encoding="utf-8")
    open_one = repository.open_pull_request

    def open_two(parent: str, *arguments: Any) -> tuple[int, Commit]:
        ours = open_one(parent, *arguments)
        open_one(parent, {}, "theirs", "colleague")
        return ours

    repository.open_pull_request = open_two  # type: ignore[method-assign]
    found = push_folder(folder, with_changes(target, create_pr=True), local_hub.endpoint, HASTY)
    assert (found.pull_request, found.revision) == (1, repository.branches["refs/pr/1"])


def test_another_publisher_in_between_is_not_overwritten(
    local_hub: LocalHub, target: PublishSettings, folder: Path
) -> None:
    push_folder(folder, target, local_hub.endpoint, HASTY)
    (folder / "README.md").write_text("mine", encoding="utf-8")
    plan = plan_push(folder, target, connect(target, local_hub.endpoint))
    (folder / "README.md").write_text("theirs", encoding="utf-8")
    theirs = push_folder(folder, target, local_hub.endpoint, HASTY)
    (folder / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"someone else published to main meanwhile.*publish again"):
        push(plan, connect(target, local_hub.endpoint))
    repository = local_hub.storage.repositories["me/demo"]
    assert repository.branches["main"] == theirs.revision
    assert push_folder(folder, target, local_hub.endpoint, HASTY).changed
    assert repository.tree()["README.md"].content == b"mine"


def test_a_stranger_finds_the_model_by_its_name(
    local_hub: LocalHub, target: PublishSettings, folder: Path, tmp_path: Path
) -> None:
    published = push_folder(folder, target, local_hub.endpoint, HASTY)
    program = (
        "import sys, torch, transformers\n"
        "name, revision = sys.argv[1:]\n"
        "model = transformers.AutoModel.from_pretrained(name, revision=revision)\n"
        "tokenizer = transformers.AutoTokenizer.from_pretrained(name, revision=revision)\n"
        "print(model(**tokenizer('Привет! Как дела?', return_tensors='pt')).last_hidden_state.shape)\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": local_hub.endpoint, "HF_HOME": str(tmp_path / "empty")}
    found = subprocess.run(
        [sys.executable, "-c", program, "me/demo", published.revision],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "torch.Size([1, 7, 16])" in found.stdout
