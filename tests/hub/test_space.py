"""The page of a model, published beside it."""

import json
from pathlib import Path

import pytest

from distilrubert.common.errors import UserError
from distilrubert.pipeline.cli import main
from distilrubert.pipeline.hub.connection import HubConnection, connect
from distilrubert.pipeline.hub.publish_settings import PublishSettings, require_target
from distilrubert.pipeline.hub.push import push_folder
from distilrubert.pipeline.hub.space import SpacePublisher

from .conftest import HASTY
from .faults import Fault
from .server import LocalHub
from .storage import NEW_SPACE, Commit, Entry, Repository
from .survival import ONCE, PATIENT, hurried
from .victim import Victim, publish_with_page

GRAPH = "onnx/masked_lm_quantized.onnx"
PAGE = {"README.md", "index.html", "page.js", "style.css", "tasks.js"}
COPIED = {f"model/{name}" for name in ("config.json", "tokenizer.json", "tokenizer_config.json", GRAPH)}
FAULTS = (
    Fault.DROPPED_BEFORE_BODY, Fault.DROPPED_AFTER_BODY, Fault.TRUNCATED, Fault.SERVER_ERROR, Fault.BAD_GATEWAY_DONE,
)  # fmt: skip


@pytest.fixture
def shown(folder: Path) -> Path:
    """A model folder with the file that the page runs."""
    (folder / "onnx").mkdir()
    (folder / GRAPH).write_bytes(b"a graph")
    return folder


@pytest.fixture
def space_target(target: PublishSettings) -> PublishSettings:
    return target.model_copy(update={"space": True})


def publisher(hub: LocalHub, folder: Path, settings: PublishSettings) -> SpacePublisher:
    return SpacePublisher(folder, settings, connection_to(hub, settings))


def connection_to(hub: LocalHub, settings: PublishSettings) -> HubConnection:
    return connect(settings, hub.endpoint, HASTY)


def publish_both(hub: LocalHub, folder: Path, settings: PublishSettings) -> Repository:
    """The Space, after both were published."""
    publish_with_page(folder, settings, hub.endpoint, HASTY)
    return hub.storage.repositories[f"spaces/{settings.repo_id}"]


def page_of(hub: LocalHub, space: Repository) -> dict[str, object]:
    html = content_of(hub, space, "index.html").decode()
    found: dict[str, object] = json.loads(html.partition('id="page">')[2].partition("</script>")[0])
    return found


def content_of(hub: LocalHub, space: Repository, path: str) -> bytes:
    content = hub.storage.content(space.tree()[path])
    return content if isinstance(content, bytes) else content.read_bytes()


def test_a_space_beside_the_model(local_hub: LocalHub, space_target: PublishSettings, shown: Path) -> None:
    space = publish_both(local_hub, shown, space_target)
    model = local_hub.storage.repositories["me/demo"]
    assert space.tree().keys() == PAGE | {".gitattributes"}
    assert len(space.history()) == 2, "the Hub's commit and ours"
    assert page_of(local_hub, space)["model"] == {
        **page_of(local_hub, space)["model"],  # type: ignore[dict-item]
        "id": "me/demo", "local": False, "revision": model.branches["main"], "endpoint": local_hub.endpoint,
    }  # fmt: skip
    assert b"models:\n- me/demo\n" in content_of(local_hub, space, "README.md")

    local_hub.requests.clear()
    again, read = publisher(local_hub, shown, space_target).publish(model.branches["main"])
    assert not again.changed
    assert again.url == f"{local_hub.endpoint}/spaces/me/demo"
    assert (read.files, read.loads) == (len(PAGE), None)
    assert {method for method, _ in local_hub.requests} == {"GET", "HEAD"}

    (shown / "vocab.txt").write_text("да\n", encoding="utf-8")
    publish_both(local_hub, shown, space_target)
    assert len(space.history()) == 3
    assert page_of(local_hub, space)["model"]["revision"] == model.branches["main"]  # type: ignore[index]


@pytest.mark.parametrize("is_default", [True, False])
def test_a_private_model_has_a_private_space_that_needs_nothing_else(
    local_hub: LocalHub, space_target: PublishSettings, shown: Path, is_default: bool
) -> None:
    if is_default:
        local_hub.storage.private_by_default.add("me")
    settings = space_target.model_copy(update={"private": None if is_default else True})
    space = publish_both(local_hub, shown, settings)
    assert local_hub.storage.repositories["me/demo"].private
    assert space.private
    assert space.tree().keys() == PAGE | COPIED | {".gitattributes"}
    assert content_of(local_hub, space, f"model/{GRAPH}") == b"a graph"
    assert page_of(local_hub, space)["model"]["local"] is True  # type: ignore[index]


def test_the_copy_of_a_model_goes_when_it_becomes_public(
    local_hub: LocalHub, space_target: PublishSettings, shown: Path
) -> None:
    space = publish_both(local_hub, shown, space_target.model_copy(update={"private": True}))
    space.commit("main", {**space.tree(), "notes.txt": Entry(b"theirs")}, space.branches["main"], "notes", "me")
    for name in ("me/demo", "spaces/me/demo"):
        local_hub.storage.repositories[name].private = False
    assert publish_both(local_hub, shown, space_target).tree().keys() == PAGE | {".gitattributes", "notes.txt"}
    assert page_of(local_hub, space)["model"]["local"] is False  # type: ignore[index]


@pytest.mark.parametrize(
    ("title", "files"),
    [
        ("Super-squash branch 'main' using huggingface_hub", NEW_SPACE),
        ("initial commit", {**NEW_SPACE, "app.py": b"theirs"}),
    ],
)
def test_a_squashed_space_is_not_a_new_one(
    local_hub: LocalHub, space_target: PublishSettings, shown: Path, title: str, files: dict[str, bytes]
) -> None:
    space = local_hub.storage.create("spaces/me/demo", "me")
    squashed = Commit({path: Entry(content) for path, content in files.items()}, None, title, "me")
    space.commits[squashed.oid] = squashed
    space.branches["main"] = squashed.oid
    with pytest.raises(UserError, match="Space me/demo exists and is not a page of this model"):
        publish_both(local_hub, shown, space_target)
    assert space.branches["main"] == squashed.oid


def test_a_space_that_waits_for_its_page_gets_it(
    local_hub: LocalHub, space_target: PublishSettings, shown: Path
) -> None:
    local_hub.storage.create("spaces/me/demo", "me")
    space = publish_both(local_hub, shown, space_target)
    assert space.tree().keys() == PAGE | {".gitattributes"}
    assert content_of(local_hub, space, "index.html") != NEW_SPACE["index.html"]


@pytest.mark.parametrize(
    "readme",
    [
        None,
        b"no front matter",
        b"---\nsdk: gradio\n---\n",
        b"---\n[\n---\n",
        b"---\ntags: [distilrubert]\nmodels: [me/another]\n---\n",
        b"---\nmodels: [me/demo]\n---\n",
    ],
)
def test_a_space_that_is_something_else_stays(
    local_hub: LocalHub, space_target: PublishSettings, shown: Path, readme: bytes | None
) -> None:
    space = local_hub.storage.create("spaces/me/demo", "me")
    tree = {"app.py": Entry(b"theirs")} | ({} if readme is None else {"README.md": Entry(readme)})
    theirs = space.commit("main", tree, space.branches["main"], "theirs", "me")
    words = "publish.space: Space me/demo exists and is not a page of this model that distilrubert has made; rename it"
    for attempt in (
        lambda: publisher(local_hub, shown, space_target).check(),
        lambda: publish_both(local_hub, shown, space_target),
    ):
        with pytest.raises(UserError, match=words):
            attempt()
    assert space.branches["main"] == theirs.oid
    assert "me/demo" not in local_hub.storage.repositories


def test_a_space_of_another_visibility_is_refused(
    local_hub: LocalHub, space_target: PublishSettings, shown: Path
) -> None:
    local_hub.storage.create("spaces/me/demo", "me")
    settings = space_target.model_copy(update={"private": True})
    with pytest.raises(UserError, match=r"publish.private: Space me/demo exists and is public; make it private in its"):
        publish_both(local_hub, shown, settings)
    assert "me/demo" not in local_hub.storage.repositories


def test_who_may_make_no_space_publishes_nothing(
    local_hub: LocalHub, space_target: PublishSettings, shown: Path
) -> None:
    local_hub.storage.without_spaces.add("me")
    with pytest.raises(UserError, match=r"not allowed to do that \(You don't have the rights to create a space"):
        publish_both(local_hub, shown, space_target)
    assert local_hub.storage.repositories == {}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("fill-mask", f"{GRAPH} is missing, which the page loads"),
        ("question-answering", "a page cannot show the task 'question-answering'"),
    ],
)
def test_a_page_that_cannot_be_made_publishes_nothing(
    local_hub: LocalHub, space_target: PublishSettings, folder: Path, task: str, said: str
) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: fill-mask\n" in card
    (folder / "README.md").write_text(card.replace("fill-mask\n", f"{task}\n"), encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        publish_both(local_hub, folder, space_target)
    assert "\n" not in str(caught.value)
    assert local_hub.storage.repositories == {}


@pytest.mark.parametrize(
    ("problem", "kind", "said"),
    [
        ("single_label_classification", "sentence-classification", None),
        ("multi_label_classification", "multi-label-classification", None),
        ("single_label_classification", "sentence-pair-classification", "a page has one text to classify, and this mo"),
        ("regression", "sentence-regression", "a page shows probabilities of classes, and this model gives scores"),
    ],
)
def test_a_model_of_a_task_has_a_page_if_that_can_show_it(
    local_hub: LocalHub, space_target: PublishSettings, folder: Path, problem: str, kind: str, said: str | None
) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(card.replace("fill-mask\n", "text-classification\n"), encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": problem}), encoding="utf-8")
    report = {"details": {"task": {"kind": kind}}}
    (folder / "reports" / "finetuning.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model_quantized.onnx").write_bytes(b"a graph")
    if said:
        with pytest.raises(UserError, match=said):
            publish_both(local_hub, folder, space_target)
        assert local_hub.storage.repositories == {}
        return
    space = publish_both(local_hub, folder, space_target)
    assert space.tree().keys() == PAGE | {".gitattributes"}
    assert page_of(local_hub, space)["task"] == "text-classification"
    model = page_of(local_hub, space)["model"]
    assert "onnx/model_quantized.onnx" in model["files"]  # type: ignore[index]
    revision = local_hub.storage.repositories["me/demo"].branches["main"]
    assert publisher(local_hub, folder, space_target).verify(revision).files == len(PAGE)


def test_a_secret_in_the_card_is_not_published_on_the_page(
    local_hub: LocalHub, space_target: PublishSettings, shown: Path
) -> None:
    card = (shown / "README.md").read_text(encoding="utf-8")
    token = "hf_" + 34 * "a"
    (shown / "README.md").write_text(card.replace("tiny model", f"tiny model {token}"), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"publish.space: the page cannot be published: README.md: contains a Hugging"
    ) as e:
        publish_both(local_hub, shown, space_target)
    assert token not in str(e.value)
    assert local_hub.storage.repositories == {}


def test_no_page_of_a_pull_request(space_target: PublishSettings) -> None:
    for change in ({"create_pr": True}, {"revision": "refs/pr/1"}):
        with pytest.raises(UserError, match=r"publish.space: visitors do not see what a pull request proposes"):
            require_target(space_target.model_copy(update=change))


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_a_fault_at_every_request(
    local_hub: LocalHub, target: PublishSettings, shown: Path, fault: Fault, private: bool
) -> None:
    """The matrix of test_faults.py in small: the Hub's page or all of ours, and one commit in the end."""
    outcomes = []
    with hurried():
        while True:
            settings = target.model_copy(
                update={"repo_id": f"me/case-{len(outcomes)}", "space": True, "private": private}
            )
            revision = push_folder(shown, settings, local_hub.endpoint, HASTY, download=False).revision
            plan = local_hub.fail(fault, len(outcomes))
            try:
                SpacePublisher(shown, settings, connect(settings, local_hub.endpoint, ONCE)).publish(revision)
            except UserError:
                is_told = True
            else:
                is_told = False
            if not plan.fired:
                break
            local_hub.heal()
            space = local_hub.storage.repositories.get(f"spaces/{settings.repo_id}")
            held = set() if space is None else space.tree().keys() - {".gitattributes"}
            assert held in (set(), set(NEW_SPACE), PAGE | (COPIED if private else set()))
            SpacePublisher(shown, settings, connect(settings, local_hub.endpoint, PATIENT)).publish(revision)
            space = local_hub.storage.repositories[f"spaces/{settings.repo_id}"]
            assert space.tree().keys() - {".gitattributes"} == PAGE | (COPIED if private else set())
            assert len(space.history()) == 2
            assert space.private == private
            outcomes.append(is_told)
    assert len(outcomes) >= 10
    assert any(outcomes)


@pytest.mark.slow
def test_a_client_that_is_killed_after_every_request_that_writes(
    local_hub: LocalHub, target: PublishSettings, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model and Space are as before or as they should be, and the same command ends it."""

    def prepare(case: str) -> PublishSettings:
        # A large file of its own, so that it is uploaded.
        (shown / GRAPH).write_bytes(case.encode())
        return target.model_copy(update={"repo_id": f"me/{case}", "space": True, "private": True})

    def held(case: str, kind: str = "") -> set[str]:
        found = local_hub.storage.repositories.get(f"{kind}me/{case}")
        return set() if found is None else found.tree().keys() - {".gitattributes"}

    own = {path.relative_to(shown).as_posix() for path in shown.rglob("*") if path.is_file()}
    settings = prepare("unharmed")
    local_hub.requests.clear()
    publish_both(local_hub, shown, settings)
    writing = [index for index, (method, _) in enumerate(local_hub.requests) if method not in ("GET", "HEAD")]
    seen = []
    # Who is killed leaves temporary files.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Victim() as victim:
        for index in writing:
            settings = prepare(case := f"case-{index}")
            plan = local_hub.fail(Fault.KILLED_AFTER, index)
            plan.victim = victim.prepare(shown, settings, local_hub.endpoint, local_hub.tokens["me"])
            assert victim.publish() == -9
            local_hub.heal()
            assert held(case) in (set(), own)
            seen.append(held(case, "spaces/"))
            space = publish_both(local_hub, shown, settings)
            assert (held(case), held(case, "spaces/")) == (own, PAGE | COPIED)
            model = local_hub.storage.repositories[f"me/{case}"]
            assert [len(repository.history()) for repository in (model, space)] == [2, 2]
    assert all(pages in (set(NEW_SPACE), PAGE | COPIED) for pages in seen)
    assert set(NEW_SPACE) in seen
    assert PAGE | COPIED in seen


@pytest.mark.export  # the checks before a push read the graph
def test_the_command_publishes_and_verifies_both(
    local_hub: LocalHub, shown: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import TensorProto, helper, save

    monkeypatch.setenv("HF_TOKEN", local_hub.tokens["me"])
    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.INT64, ["batch", "length"])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["input_ids", "attention_mask"], ["logits"])], "g", [ids, mask], [logits]
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), shown / GRAPH)
    command = ["push", str(shown), "--repo-id", "me/demo", "--endpoint", local_hub.endpoint, "--space"]
    assert main([*command, "--no-push"]) == 0
    planned = capsys.readouterr().out
    assert f"Space me/demo at {local_hub.endpoint}, main (a new repository): 5 to add" in planned
    assert not local_hub.storage.repositories
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"Demo page:\nPublished: {local_hub.endpoint}/spaces/me/demo\n" in said
    assert main([*command, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["space_plan"]["is_empty"]
    assert results["space_plan"]["repo_type"] == "space"
    assert not results["space_publication"]["changed"]
    assert main([*command, "--verify-only"]) == 0
    assert capsys.readouterr().out.count("Verified: all ") == 2
    space = local_hub.storage.repositories["spaces/me/demo"]
    space.commit("main", {**space.tree(), "page.js": Entry(b"theirs")}, space.branches["main"], "theirs", "me")
    assert main([*command, "--verify-only"]) == 2
    assert "Space me/demo: at" in (error := capsys.readouterr().err)
    assert "1 of 5 files differ from the folder (page.js)" in error
