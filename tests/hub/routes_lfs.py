"""How large files come to the local Hub by git LFS, whole or in parts."""

import secrets
from typing import TYPE_CHECKING, Any

from .routing import API, PAGE, find, find_writable, route
from .storage import Refusal
from .wire import Request, Response

if TYPE_CHECKING:
    from .server import LocalHub


@route("POST", rf"{PAGE}\.git/info/lfs/objects/batch")
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
    verify = {"href": f"{hub.endpoint}/api/{repo if repo.startswith('spaces/') else f'models/{repo}'}/lfs/verify"}
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


@route("POST", f"{API}/lfs/verify")
def verify_upload(hub: "LocalHub", request: Request, repo: str) -> Response:
    find(hub, request, repo)
    item = request.json()
    path = hub.storage.large_files.path(item["oid"])
    if not path.exists() or path.stat().st_size != item["size"]:
        raise Refusal(404, "Object does not exist or has another size")
    return Response.json({})
