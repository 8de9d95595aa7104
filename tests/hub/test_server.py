"""The local Hub as the unmodified client sees it."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants, errors

from .server import LocalHub


@pytest.fixture
def api(local_hub: LocalHub) -> HfApi:
    return HfApi(endpoint=local_hub.endpoint, token=local_hub.tokens["me"])


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def commit(api: HfApi, operations: list[Any], repo: str = "me/demo", **options: Any) -> CommitInfo:
    # As HF_ENDPOINT does: with any other endpoint the client 0.36 cannot read the URL of the commit it has made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", api.endpoint)
        return api.create_commit(repo, operations, commit_message=options.pop("title", "a commit"), **options)


def test_commit_and_download(local_hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    assert api.whoami()["name"] == "me"
    assert api.create_repo("me/demo", private=True) == f"{local_hub.endpoint}/me/demo"
    weights = bytes(range(256)) * 100
    made = commit(api, [add("a/b.txt", b"text"), add("model.bin", weights)], title="first")
    info = api.model_info("me/demo")
    assert (info.sha, info.private) == (made.oid, True)
    assert {sibling.rfilename for sibling in info.siblings} == {".gitattributes", "a/b.txt", "model.bin"}
    files = {entry.path: entry for entry in api.list_repo_tree("me/demo", recursive=True)}
    assert files["a/b.txt"].blob_id == hashlib.sha1(b"blob 4\0text").hexdigest()
    assert files["model.bin"].lfs.sha256 == hashlib.sha256(weights).hexdigest()
    assert "a" in files
    for path, content in (("a/b.txt", b"text"), ("model.bin", weights)):
        found = api.hf_hub_download("me/demo", path, cache_dir=tmp_path / "cache")
        assert Path(found).read_bytes() == content


def test_large_files_are_sent_in_parts_and_only_once(local_hub: LocalHub, api: HfApi) -> None:
    local_hub.multipart_threshold, local_hub.part_size = 100, 64
    weights = bytes(range(250))
    oid = hashlib.sha256(weights).hexdigest()
    api.create_repo("me/demo")
    commit(api, [add("model.bin", weights)], title="first")
    assert local_hub.uploads == [f"{oid}/{part}" for part in (1, 2, 3, 4)]
    assert local_hub.storage.large_files.path(oid).read_bytes() == weights
    commit(api, [add("copy.bin", weights)], title="second")
    assert len(local_hub.uploads) == 4


def test_a_stale_parent_is_refused(local_hub: LocalHub, api: HfApi) -> None:
    api.create_repo("me/demo")
    first = commit(api, [add("a.txt", b"1")], title="1")
    second = commit(api, [add("a.txt", b"2")], title="2", parent_commit=first.oid)
    with pytest.raises(errors.HfHubHTTPError) as caught:
        commit(api, [add("a.txt", b"3")], title="3", parent_commit=first.oid)
    assert caught.value.response.status_code == 412
    assert api.model_info("me/demo").sha == second.oid


def test_a_commit_with_an_impossible_operation_changes_nothing(local_hub: LocalHub, api: HfApi) -> None:
    api.create_repo("me/demo")
    before = api.model_info("me/demo").sha
    with pytest.raises(errors.EntryNotFoundError):
        commit(api, [add("a.txt", b"1"), CommitOperationDelete("missing.txt")], title="1")
    assert api.model_info("me/demo").sha == before
    assert set(local_hub.storage.repositories["me/demo"].tree()) == {".gitattributes"}


def test_branches_tags_and_pull_requests(local_hub: LocalHub, api: HfApi) -> None:
    api.create_repo("me/demo")
    main = api.model_info("me/demo").sha
    api.create_branch("me/demo", branch="next/big")
    on_branch = commit(api, [add("a.txt", b"1")], title="1", revision="next/big")
    api.create_tag("me/demo", tag="v1", revision=on_branch.oid)
    with pytest.raises(errors.HfHubHTTPError):
        api.create_tag("me/demo", tag="v1")
    pull = commit(api, [add("b.txt", b"2")], title="proposal", create_pr=True)
    refs = api.list_repo_refs("me/demo", include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": main, "next/big": on_branch.oid}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", on_branch.oid)]
    assert [(ref.ref, ref.target_commit) for ref in refs.pull_requests] == [("refs/pr/1", pull.oid)]
    assert [item.title for item in api.get_repo_discussions("me/demo", discussion_status="open")] == ["proposal"]
    assert api.model_info("me/demo", revision="refs/pr/1").sha == pull.oid
    assert [commit.title for commit in api.list_repo_commits("me/demo", revision="v1")] == ["1", "initial commit"]


def test_listings_come_in_pages(local_hub: LocalHub, api: HfApi) -> None:
    local_hub.page_size = 2
    api.create_repo("me/demo")
    commit(api, [add(f"{name}.txt", b"x") for name in "abcde"], title="1")
    assert len(list(api.list_repo_tree("me/demo"))) == 6
    assert [item.path for item in api.get_paths_info("me/demo", ["b.txt", "none"])] == ["b.txt"]


@pytest.mark.parametrize(
    ("who", "repo", "status"),
    [
        ("reader", "me/demo", 403),
        ("stranger", "me/demo", 403),
        ("expired", "me/demo", 401),
        ("stranger", "me/secret", 404),
    ],
)
def test_who_may_not_write(local_hub: LocalHub, api: HfApi, who: str, repo: str, status: int) -> None:
    api.create_repo("me/demo")
    api.create_repo("me/secret", private=True)
    other = HfApi(endpoint=local_hub.endpoint, token=local_hub.tokens[who])
    with pytest.raises(errors.HfHubHTTPError) as caught:
        commit(other, [add("a.txt", b"1")], repo)
    assert caught.value.response.status_code == status


def test_a_gated_repository_keeps_its_files(local_hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("me/demo")
    local_hub.storage.repositories["me/demo"].gated_except = ("me",)
    other = HfApi(endpoint=local_hub.endpoint, token=local_hub.tokens["stranger"])
    with pytest.raises(errors.GatedRepoError):
        other.hf_hub_download("me/demo", ".gitattributes", cache_dir=tmp_path)
    api.hf_hub_download("me/demo", ".gitattributes", cache_dir=tmp_path)


def test_organizations(local_hub: LocalHub, api: HfApi) -> None:
    api.create_repo("team/demo")
    assert local_hub.storage.repositories["team/demo"].namespace == "team"
    with pytest.raises(errors.HfHubHTTPError):
        api.create_repo("others/demo")
