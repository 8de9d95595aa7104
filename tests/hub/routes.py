"""The part of the Hub's HTTP interface that publishing and loading a model need.

Answers and error codes are those of the real Hub as the client libraries read them: see `huggingface_hub` `hf_api.py`,
`_commit_api.py`, `lfs.py`, `file_download.py` and `utils/_http.py` (0.36 and 1.x).
"""

import base64
import json
import re
import secrets
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

from .storage import LARGEST_REGULAR_FILE, LFS_SUFFIXES, Account, Commit, Entry, Refusal, Repository
from .wire import Request, Response

if TYPE_CHECKING:
    from .server import LocalHub

Handler = Callable[..., Response]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []
REPO = r"(?P<repo>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"


def route(method: str, pattern: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return register


def dispatch(hub: "LocalHub", request: Request) -> Response:
    """Answer a request; Refusal where the Hub answers with an error."""
    method = "GET" if request.method == "HEAD" else request.method
    for allowed, pattern, handler in ROUTES:
        if allowed == method and (match := pattern.fullmatch(request.path)):
            segments = {
                key: urllib.parse.unquote(value) for key, value in match.groupdict().items() if value is not None
            }
            return handler(hub, request, **segments)
    raise Refusal(404, "Sorry, we can't find the page you are looking for.")


def account_of(hub: "LocalHub", request: Request) -> Account | None:
    if request.token is None:
        return None
    account = hub.storage.accounts.get(request.token)
    if account is None:
        raise Refusal(401, hub.invalid_token_message.replace("TOKEN", request.token))
    if account.expired:
        raise Refusal(401, 'User Access Token "publisher" is expired')
    return account


def find(hub: "LocalHub", request: Request, repo: str) -> tuple[Repository, Account | None]:
    account = account_of(hub, request)
    return hub.storage.find(repo, account), account


def find_writable(
    hub: "LocalHub", request: Request, repo: str, *, pull_request: bool = False
) -> tuple[Repository, Account]:
    repository, account = find(hub, request, repo)
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    if pull_request and account.role == "write":
        return repository, account
    if not account.may_write(repository.namespace):
        hint = " pass `create_pr=1` as a query parameter to create a Pull Request" if account.role == "write" else ""
        raise Refusal(403, f"Forbidden:{hint}" if hint else "Authorization error.")
    return repository, account


@route("GET", "/api/whoami-v2")
def whoami(hub: "LocalHub", request: Request) -> Response:
    account = account_of(hub, request)
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    return Response.json(
        {
            "type": "user",
            "name": account.name,
            "orgs": [{"type": "org", "name": name} for name in account.organizations],
            "auth": {"type": "access_token", "accessToken": {"displayName": "publisher", "role": account.role}},
        }
    )


@route("POST", "/api/repos/create")
def create_repository(hub: "LocalHub", request: Request) -> Response:
    account, wanted = account_of(hub, request), request.json()
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    namespace = wanted.get("organization") or account.name
    if not account.may_write(namespace):
        raise Refusal(403, f'You don\'t have the rights to create a model under the namespace "{namespace}"')
    name = f"{namespace}/{wanted['name']}"
    private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
    try:
        hub.storage.create(name, account.name, private)
    except Refusal as refusal:
        return Response.json({"error": refusal.message, "url": f"{hub.endpoint}/{name}"}, refusal.status)
    return Response.json({"url": f"{hub.endpoint}/{name}", "name": name, "private": private})


@route("GET", f"/api/models/{REPO}")
@route("GET", f"/api/models/{REPO}/revision/{REVISION}")
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


@route("GET", f"/api/models/{REPO}/tree/{REVISION}")
@route("GET", f"/api/models/{REPO}/tree/{REVISION}/(?P<folder>.+)")
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


@route("POST", f"/api/models/{REPO}/paths-info/{REVISION}")
def paths_info(hub: "LocalHub", request: Request, repo: str, revision: str) -> Response:
    repository, _ = find(hub, request, repo)
    paths, tree = request.form()["paths"], repository.tree(revision)
    return Response.json([describe(path, tree[path]) for path in paths if path in tree])


@route("GET", f"/api/models/{REPO}/refs")
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


@route("POST", f"/api/models/{REPO}/branch/(?P<branch>[^/]+)")
def create_branch(hub: "LocalHub", request: Request, repo: str, branch: str) -> Response:
    repository, _ = find_writable(hub, request, repo)
    start = request.json().get("startingPoint", "main")
    with repository.lock:
        if branch in repository.branches:
            raise Refusal(409, f"Reference already exists: {branch}")
        repository.branches[branch] = repository.resolve(start)
    return Response.json({})


@route("POST", f"/api/models/{REPO}/tag/{REVISION}")
def create_tag(hub: "LocalHub", request: Request, repo: str, revision: str) -> Response:
    repository, _ = find_writable(hub, request, repo)
    tag = request.json()["tag"]
    with repository.lock:
        if tag in repository.tags:
            raise Refusal(409, f"Tag reference exists already: {tag}")
        repository.tags[tag] = repository.resolve(revision)
    return Response.json({})


@route("GET", f"/api/models/{REPO}/commits/{REVISION}")
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


@route("GET", f"/api/models/{REPO}/discussions")
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


@route("POST", f"/api/models/{REPO}/preupload/{REVISION}")
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


@route("POST", rf"/{REPO}\.git/info/lfs/objects/batch")
def lfs_batch(hub: "LocalHub", request: Request, repo: str) -> Response:
    repository, _ = find_writable(hub, request, repo, pull_request=True)
    wanted = request.json()
    hub.offered_transfers.append(wanted["transfers"])
    missing = [item for item in wanted["objects"] if not hub.storage.large_files.holds(item["oid"])]
    repository.large_files.update(item["oid"] for item in wanted["objects"])
    if repository.quota is not None and sum(item["size"] for item in missing) > repository.quota:
        raise Refusal(
            403,
            "Private repository storage limit reached, please upgrade your plan to increase your private storage limit",
        )
    if hub.has_xet and "xet" in wanted["transfers"]:
        return Response.json({"transfer": "xet", "objects": wanted["objects"]})
    return Response.json(
        {
            "transfer": "multipart" if any(item["size"] > hub.multipart_threshold for item in missing) else "basic",
            "objects": [
                {
                    "oid": item["oid"],
                    "size": item["size"],
                    **({"actions": upload_actions(hub, repo, item)} if item in missing else {}),
                }
                for item in wanted["objects"]
            ],
        },
        headers={"Content-Type": "application/vnd.git-lfs+json"},
    )


def upload_actions(hub: "LocalHub", repo: str, item: dict[str, Any]) -> dict[str, Any]:
    signature = secrets.token_hex(8)
    hub.signatures.add(signature)
    base = f"{hub.storage_endpoint}/lfs-storage/{item['oid']}"
    verify = {"href": f"{hub.endpoint}/api/models/{repo}/lfs/verify"}
    if item["size"] <= hub.multipart_threshold:
        return {"upload": {"href": f"{base}?signature={signature}"}, "verify": verify}
    count = -(-item["size"] // hub.part_size)
    header = {str(part): f"{base}/{part}?signature={signature}" for part in range(1, count + 1)}
    header["chunk_size"] = str(hub.part_size)
    return {"upload": {"href": f"{base}/complete?signature={signature}", "header": header}, "verify": verify}


def check_signature(hub: "LocalHub", request: Request) -> None:
    if request.token is not None:
        raise Refusal(400, "Only one auth mechanism allowed: the token has no business here")
    if request.query.get("signature") not in hub.signatures:
        raise Refusal(403, "Request has expired")


@route("PUT", "/lfs-storage/(?P<oid>[0-9a-f]{64})")
@route("PUT", "/lfs-storage/(?P<oid>[0-9a-f]{64})/(?P<part>[0-9]+)")
def upload(hub: "LocalHub", request: Request, oid: str, part: str | None = None) -> Response:
    check_signature(hub, request)
    incoming = hub.storage.large_files.scratch()
    with incoming.open("wb") as file:
        for block in request.body:
            file.write(block)
    if part is None:
        hub.storage.large_files.keep(incoming, oid)
    else:
        incoming.replace(hub.storage.large_files.part_path(oid, int(part)))
    hub.uploads.append(oid if part is None else f"{oid}/{part}")
    return Response(200, headers={"ETag": f'"{secrets.token_hex(8)}"'})


@route("POST", "/lfs-storage/(?P<oid>[0-9a-f]{64})/complete")
def complete_upload(hub: "LocalHub", request: Request, oid: str) -> Response:
    check_signature(hub, request)
    parts = request.json()["parts"]
    if not hub.storage.large_files.holds(oid):
        hub.storage.large_files.join_parts(oid, len(parts))
    return Response.json({})


@route("POST", f"/api/models/{REPO}/lfs/verify")
def verify_upload(hub: "LocalHub", request: Request, repo: str) -> Response:
    find(hub, request, repo)
    item = request.json()
    path = hub.storage.large_files.path(item["oid"])
    if not path.exists() or path.stat().st_size != item["size"]:
        raise Refusal(404, "Object does not exist or has another size")
    return Response.json({})


@route("POST", f"/api/models/{REPO}/commit/{REVISION}")
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


@route("GET", f"/{REPO}/resolve/{REVISION}/(?P<path>.+)")
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
