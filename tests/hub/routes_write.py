"""How repositories of the local Hub are made and changed."""

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from .routing import API, REVISION, account_of, find_writable, route
from .storage import LARGEST_REGULAR_FILE, LFS_SUFFIXES, Commit, Entry, Refusal
from .wire import Request, Response

if TYPE_CHECKING:
    from .server import LocalHub


@route("POST", "/api/repos/create")
def create_repository(hub: "LocalHub", request: Request) -> Response:
    account, wanted = account_of(hub, request), request.json()
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    namespace = wanted.get("organization") or account.name
    name = f"{namespace}/{wanted['name']}"
    kind = wanted.get("type") or "model"
    if not account.may_write(name) or (kind == "space" and namespace in hub.storage.without_spaces):
        raise Refusal(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    if kind == "space":
        if wanted.get("sdk") != "static":
            raise Refusal(400, "Invalid sdk")
        name = f"spaces/{name}"
    private = {"private": True, "public": False}.get(wanted.get("visibility"), wanted.get("private"))
    if private is None:
        private = namespace in hub.storage.private_by_default
    try:
        hub.storage.create(name, account.name, private).resource_group = wanted.get("resourceGroupId")
    except Refusal as refusal:
        return Response.json({"error": refusal.message, "url": f"{hub.endpoint}/{name}"}, refusal.status)
    return Response.json({"url": f"{hub.endpoint}/{name}", "name": name, "private": private})


@route("POST", f"{API}/branch/(?P<branch>[^/]+)")
def create_branch(hub: "LocalHub", request: Request, repo: str, branch: str) -> Response:
    repository, _ = find_writable(hub, request, repo)
    start = request.json().get("startingPoint", "main")
    with repository.lock:
        if branch in repository.branches:
            raise Refusal(409, f"Reference already exists: {branch}")
        repository.branches[branch] = repository.resolve(start)
    return Response.json({})


@route("POST", f"{API}/tag/{REVISION}")
def create_tag(hub: "LocalHub", request: Request, repo: str, revision: str) -> Response:
    repository, _ = find_writable(hub, request, repo)
    tag = request.json()["tag"]
    with repository.lock:
        if tag in repository.tags:
            raise Refusal(409, f"Tag reference exists already: {tag}")
        repository.tags[tag] = repository.resolve(revision)
    return Response.json({})


@route("POST", "/api/validate-yaml")
def validate_card(hub: "LocalHub", request: Request) -> Response:
    content = request.json()["content"]
    match = re.match(r"\A---\n(.*?)\n---\n", content, re.DOTALL)
    if match is None:
        return Response.json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return Response.json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("license", ""), str):
        return Response.json({"errors": [{"message": '"license" must be a string'}], "warnings": []}, 400)
    return Response.json({"errors": [], "warnings": []})


@route("POST", f"{API}/preupload/{REVISION}")
def preupload(hub: "LocalHub", request: Request, repo: str, revision: str) -> Response:
    repository, _ = find_writable(hub, request, repo, pull_request="create_pr" in request.query)
    tree = repository.tree(revision)
    return Response.json(
        {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large(file["path"], file["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": tree[file["path"]].etag if file["path"] in tree else None,
                }
                for file in request.json()["files"]
            ],
            "commitOid": repository.resolve(revision),
        }
    )


def is_large(path: str, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > LARGEST_REGULAR_FILE


@route("POST", f"{API}/commit/{REVISION}")
def make_commit(hub: "LocalHub", request: Request, repo: str, revision: str) -> Response:
    create_pr = "create_pr" in request.query
    repository, account = find_writable(hub, request, repo, pull_request=create_pr)
    lines = [json.loads(line) for line in request.body.read_all().splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    hub.at_commit()
    with repository.lock:
        if revision not in repository.branches:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        head = repository.branches[revision]
        if header.get("parentCommit") not in (None, head):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        tree = changed_tree(hub, repository.tree(head), lines)
        if create_pr:
            number, made = repository.open_pull_request(head, tree, header["summary"], account.name)
            url = f"{hub.endpoint}/{repo}/discussions/{number}"
            return Response.json(describe_commit(hub, repo, made) | {"pullRequestUrl": url})
        made = repository.commit(revision, tree, head, header["summary"], account.name, header.get("description", ""))
    return Response.json(describe_commit(hub, repo, made))


def describe_commit(hub: "LocalHub", repo: str, made: Commit) -> dict[str, Any]:
    return {"success": True, "commitOid": made.oid, "commitUrl": f"{hub.endpoint}/{repo}/commit/{made.oid}"}


def changed_tree(hub: "LocalHub", tree: dict[str, Entry], lines: list[dict[str, Any]]) -> dict[str, Entry]:
    """The tree after all the operations of a commit; Refusal, and nothing changed, where one of them is impossible."""
    changed = dict(tree)
    for line in lines:
        value = line["value"]
        match line["key"]:
            case "file":
                changed[value["path"]] = Entry(base64.b64decode(value["content"]))
            case "lfsFile":
                if not hub.storage.large_files.holds(value["oid"]):
                    raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                size = hub.storage.large_files.path(value["oid"]).stat().st_size
                changed[value["path"]] = Entry(sha256=value["oid"], lfs_size=size)
            case "deletedFile":
                if changed.pop(value["path"], None) is None:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            case "deletedFolder":
                changed = {
                    path: entry
                    for path, entry in changed.items()
                    if not path.startswith(value["path"].rstrip("/") + "/")
                }
    return changed
