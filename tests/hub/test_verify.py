"""Reading back what was published."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from distilrubert.common.errors import UserError
from distilrubert.pipeline.hub.connection import RetryPolicy, connect
from distilrubert.pipeline.hub.files import local_files
from distilrubert.pipeline.hub.plan import plan_push
from distilrubert.pipeline.hub.publish_settings import PublishSettings
from distilrubert.pipeline.hub.push import push, push_folder
from distilrubert.pipeline.hub.verify import render_verification, verify_folder, verify_push

from .conftest import HASTY
from .faults import Fault
from .server import LocalHub
from .storage import Entry
from .survival import hurried, push_once


@pytest.mark.parametrize("request_number", range(1, 7))
def test_an_outage_while_the_model_is_downloaded(
    folder: Path, target: PublishSettings, local_hub: LocalHub, request_number: int
) -> None:
    push_once(folder, target, local_hub.endpoint, HASTY)
    patient = RetryPolicy(attempts=60, first_wait_s=0.05, longest_wait_s=0.05)
    plan = local_hub.fail(Fault.REFUSED, request_number, path="/resolve/", outage_s=0.5)
    with hurried():
        assert verify_folder(folder, target, local_hub.endpoint, patient).loads
    assert plan.fired == 1


def test_what_was_published_is_verified(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    revision = push_once(folder, target, local_hub.endpoint, HASTY).revision
    local_hub.requests.clear()
    found = verify_folder(folder, target, local_hub.endpoint, HASTY)
    assert {method for method, _ in local_hub.requests} <= {"GET", "HEAD"}
    assert (found.revision, found.loads, found.others) == (revision, True, ())
    assert found.files == sum(path.is_file() for path in folder.rglob("*"))
    text = render_verification(found)
    assert f"all {found.files} files of me/demo" in text
    assert "loads from an empty cache" in text
    assert f"at {revision[:8]}" in text
    assert json.loads(json.dumps(found.to_dict()))["url"] == f"{local_hub.endpoint}/me/demo/tree/{revision}"


def test_what_differs_is_named(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    push_once(folder, target, local_hub.endpoint, HASTY)
    repository = local_hub.storage.repositories["me/demo"]
    tree = dict(repository.tree())
    tree |= {"README.md": Entry(b"tampered"), "other.txt": Entry(b"other")}
    del tree["config.json"]
    repository.commit("main", tree, repository.branches["main"], "tampering", "colleague")
    with pytest.raises(UserError, match=r"2 of \d+ files differ from the folder \(README\.md, config\.json\)"):
        verify_folder(folder, target, local_hub.endpoint, HASTY)
    for name in ("README.md", "config.json"):
        (folder / name).unlink()
    found = verify_folder(folder, target, local_hub.endpoint, HASTY)
    assert (found.others, found.loads) == (("README.md", "other.txt"), None)
    assert "It also holds: README.md, other.txt." in render_verification(found)


def test_verification_without_a_download(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    push_folder(folder, target, local_hub.endpoint, HASTY, download=False)
    assert not any("/resolve/" in path or method == "HEAD" for method, path in local_hub.requests)
    found = verify_folder(folder, target, local_hub.endpoint, HASTY, download=False)
    assert (found.files, found.loads) == (len(local_files(folder)), None)
    assert "loads" not in render_verification(found)
    (folder / "README.md").write_text("other")
    with pytest.raises(UserError, match=r"1 of \d+ files differ from the folder \(README\.md\)"):
        verify_folder(folder, target, local_hub.endpoint, HASTY, download=False)


def test_any_revision_can_be_verified(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    first = push_once(folder, target.model_copy(update={"tag": "v1"}), local_hub.endpoint, HASTY)
    connection = connect(target, local_hub.endpoint, HASTY)
    digests = plan_push(folder, target, connection).digests
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    push_once(folder, target, local_hub.endpoint, HASTY)
    for revision in ("v1", first.revision):
        assert verify_push(digests, connection, revision).revision == first.revision
    with pytest.raises(UserError, match="has no revision v2; it has v1, main"):
        verify_push(digests, connection, "v2")
    with pytest.raises(UserError, match="me/none: not found"):
        verify_folder(folder, target.model_copy(update={"repo_id": "me/none"}), local_hub.endpoint, HASTY)


def test_what_the_settings_lead_to_is_verified(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    first = push_once(folder, target.model_copy(update={"tag": "v1"}), local_hub.endpoint, HASTY).revision
    assert verify_folder(folder, target.model_copy(update={"tag": "v1"}), local_hub.endpoint, HASTY).revision == first
    with pytest.raises(UserError, match="has no revision v2; it has v1, main"):
        verify_folder(folder, target.model_copy(update={"tag": "v2"}), local_hub.endpoint, HASTY)
    proposed = target.model_copy(update={"create_pr": True})
    # There is nothing to propose: the branch holds it.
    assert verify_folder(folder, proposed, local_hub.endpoint, HASTY).revision == first
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    with pytest.raises(UserError, match="me/demo: no open pull request proposes what"):
        verify_folder(folder, proposed, local_hub.endpoint, HASTY)
    proposal = push_once(folder, proposed, local_hub.endpoint, HASTY).revision
    assert verify_folder(folder, proposed, local_hub.endpoint, HASTY).revision == proposal
    with pytest.raises(UserError, match=r"1 of \d+ files differ from the folder"):
        verify_folder(folder, target, local_hub.endpoint, HASTY)


def test_a_file_that_changes_while_it_is_published(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    connection = connect(target, local_hub.endpoint, HASTY)
    plan = plan_push(folder, target, connection)
    (folder / "README.md").write_text("---\nlicense: mit\n---\nchanged too late")
    revision = push(plan, connection).revision
    with pytest.raises(UserError, match=r"\(README\.md\); publish the folder as it is now"):
        verify_push(plan.digests, connection, revision)


def test_a_model_that_does_not_load(local_hub: LocalHub, target: PublishSettings, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("distilbert.transformer.layer.0.ffn.lin1.bias")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    push_once(folder, target, local_hub.endpoint, HASTY)
    with pytest.raises(UserError, match=r"the model does not load: .*lin1\.bias: missing from the weights"):
        verify_folder(folder, target, local_hub.endpoint, HASTY)
