"""What the local Hub tells about accounts and repositories, and the files it gives out."""

import re
import urllib.parse
from typing import TYPE_CHECKING, Any

from .routing import API, PAGE, REVISION, account_of, find, route
from .storage import Account, Entry, Refusal
from .wire import Request, Response

if TYPE_CHECKING:
    from .server import LocalHub


@route("GET", "/api/whoami-v2")
def whoami(hub: "LocalHub", request: Request) -> Response:
    account = account_of(hub, request)
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    return Response.json(
        {
            "type": "user", "id": "0" * 24, "name": account.name, "fullname": account.name, "isPro": False,
            "orgs": [
                {"type": "org", "id": "0" * 24, "name": name, "fullname": name, "roleInOrg": role}
                for name, role in account.organizations.items()
            ],
            "auth": {"type": "access_token", "accessToken": describe_token(account)},
        }
    )  # fmt: skip


def describe_token(account: Account) -> dict[str, Any]:
    found = {"displayName": "publisher", "role": account.role, "createdAt": "2026-01-01T00:00:00.000Z"}
    if account.role != "fineGrained":
        return found
    kinds = {account.name: "user"} | dict.fromkeys(account.organizations, "org")
    scoped = [
        {"entity": {"_id": "0" * 24, "type": kinds.get(name, "model"), "name": name}, "permissions": list(permissions)}
        for name, permissions in account.scopes.items()
        if name
    ]
    everywhere = list(account.scopes.get("", ()))
    return found | {"fineGrained": {"canReadGatedRepos": False, "global": everywhere, "scoped": scoped}}


@route("GET", f"{API}")
@route("GET", f"{API}/revision/{REVISION}")
def repository_info(hub: "LocalHub", request: Request, repo: str, revision: str = "main") -> Response:
    repository, _ = find(hub, request, repo)
    oid = repository.resolve(revision)
    return Response.json(
        {
            "_id": "0", "id": repository.id, "modelId": repository.id, "author": repository.namespace, "sha": oid,
            "lastModified": repository.commits[oid].date, "createdAt": repository.history()[-1].date,
            "private": repository.private, "gated": "auto" if repository.gated_except is not None else False,
            "disabled": False, "downloads": 0, "likes": 0, "tags": [],
            "siblings": [{"rfilename": path} for path in sorted(repository.tree(oid))],
        }
    )  # fmt: skip


def describe(path: str, entry: Entry) -> dict[str, Any]:
    found = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.sha256:
        found["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": len(entry.pointer)}
    return found


@route("GET", f"{API}/tree/{REVISION}")
@route("GET", f"{API}/tree/{REVISION}/(?P<folder>.+)")
def list_tree(hub: "LocalHub", request: Request, repo: str, revision: str, folder: str = "") -> Response:
    repository, _ = find(hub, request, repo)
    prefix = f"{folder}/" if folder else ""
    files = {path: entry for path, entry in repository.tree(revision).items() if path.startswith(prefix)}
    if folder and not files:
        raise Refusal(404, f"{folder} does not exist on {revision!r}", "EntryNotFound")
    recursive = request.query.get("recursive", "").lower() in ("true", "1")
    listing: dict[str, dict[str, Any]] = {}
    for path, entry in sorted(files.items()):
        below = path[len(prefix) :].split("/")
        for depth in range(1, len(below) if recursive else min(len(below), 2)):
            directory = prefix + "/".join(below[:depth])
            listing.setdefault(directory, {"type": "directory", "oid": "0" * 40, "size": 0, "path": directory})
        if recursive or len(below) == 1:
            listing[path] = describe(path, entry)
    return paginated(hub, request, list(listing.values()))


def paginated(hub: "LocalHub", request: Request, items: list[Any]) -> Response:
    start = int(request.query.get("cursor", 0))
    end = start + hub.page_size
    headers = {}
    if end < len(items):
        following = urllib.parse.urlencode({**request.query, "cursor": end})
        headers["Link"] = f'<{hub.endpoint}{request.path}?{following}>; rel="next"'
    return Response.json(items[start:end], headers=headers)


@route("POST", f"{API}/paths-info/{REVISION}")
def paths_info(hub: "LocalHub", request: Request, repo: str, revision: str) -> Response:
    repository, _ = find(hub, request, repo)
    paths, tree = request.form()["paths"], repository.tree(revision)
    return Response.json([describe(path, tree[path]) for path in paths if path in tree])


@route("GET", f"{API}/refs")
def list_refs(hub: "LocalHub", request: Request, repo: str) -> Response:
    repository, _ = find(hub, request, repo)

    def refs(names: dict[str, str], kind: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in names.items()]

    branches = {name: oid for name, oid in repository.branches.items() if not name.startswith("refs/pr/")}
    found = {"branches": refs(branches, "heads"), "tags": refs(repository.tags, "tags"), "converts": []}
    if request.query.get("include_prs"):
        found["pullRequests"] = [
            {"name": ref.rpartition("/")[2], "ref": ref, "targetCommit": repository.branches[ref]}
            for ref in repository.pull_requests
        ]
    return Response.json(found)


@route("GET", f"{API}/commits/{REVISION}")
def list_commits(hub: "LocalHub", request: Request, repo: str, revision: str) -> Response:
    repository, _ = find(hub, request, repo)
    return paginated(
        hub,
        request,
        [
            {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date,
             "authors": [{"user": commit.author}]}
            for commit in repository.history(revision)
        ],
    )  # fmt: skip


@route("GET", f"{API}/discussions")
def list_discussions(hub: "LocalHub", request: Request, repo: str) -> Response:
    repository, _ = find(hub, request, repo)
    wanted = request.query.get("status", "all")
    found = [
        {"num": pull.number, "title": pull.title, "author": {"name": pull.author}, "createdAt": pull.date,
         "status": pull.status, "isPullRequest": True, "repo": {"name": repo, "type": "model"}}
        for pull in reversed(repository.pull_requests.values())
        if wanted in ("all", pull.status)
    ]  # fmt: skip
    return Response.json({"discussions": found, "count": len(found), "start": 0})


@route("GET", f"{PAGE}/resolve/{REVISION}/(?P<path>.+)")
def resolve(hub: "LocalHub", request: Request, repo: str, revision: str, path: str) -> Response:
    repository, account = find(hub, request, repo)
    allowed = repository.gated_except
    if allowed is not None and (account is None or account.name not in allowed):
        message = f"Access to model {repo} is restricted and you are not in the authorized list."
        raise Refusal(403 if account else 401, message, "GatedRepo")
    commit = repository.resolve(revision)
    headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    entry = repository.tree(commit).get(path)
    if entry is None:
        raise Refusal(404, "Entry not found", "EntryNotFound", headers)
    if entry.sha256:
        location = f"{hub.storage_endpoint}/lfs-storage/{entry.sha256}"
        linked = {"X-Linked-Size": str(entry.size), "X-Linked-ETag": f'"{entry.sha256}"', "Location": location}
        return Response(302, b"Found", headers | linked)
    return ranged(request, Response(200, entry.content, headers | {"ETag": f'"{entry.oid}"'}))


@route("GET", "/lfs-storage/(?P<oid>[0-9a-f]{64})")
def download(hub: "LocalHub", request: Request, oid: str) -> Response:
    if request.token is not None:
        raise Refusal(400, "Only one auth mechanism allowed: the token has no business here")
    path = hub.storage.large_files.path(oid)
    if not path.exists():
        raise Refusal(404, "NoSuchKey")
    return ranged(request, Response(200, path, {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}))


def ranged(request: Request, response: Response) -> Response:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if match is None:
        return response
    whole = response.length
    start, end = int(match[1]), min(int(match[2] or whole - 1) + 1, whole)
    if start >= whole:
        raise Refusal(416, "Requested range not satisfiable", headers={"Content-Range": f"bytes */{whole}"})
    content_range = {"Content-Range": f"bytes {start}-{end - 1}/{whole}"}
    return Response(206, response.body, response.headers | content_range, (start, end))
