"""A Hub on 127.0.0.1 with one data set of one JSON lines file, for the unmodified `datasets` client."""

import hashlib
import http.server
import json
import threading
from typing import Any, Self
from urllib.parse import urlsplit

COMMIT = "a" * 40
FILE = "data/train.jsonl"
# Without it the client tries seventy patterns of file names.
README = f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {FILE}\n---\n".encode()


class DatasetHub:
    """Serves `me/talk`: its split train has the given rows.

    Attributes:
        requests: method and path of each request so far.
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.files = {"README.md": README, FILE: lines.encode()}
        self.requests: list[tuple[str, str]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, Any]:
        """Status and JSON (or bytes) for a path."""
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in self.files.items()
        ]
        kind, _, rest = path.removeprefix("/api").removeprefix("/datasets/me/talk").lstrip("/").partition("/")
        if not path.removeprefix("/api").startswith("/datasets/me/talk"):
            return 404, {"error": "no such data set"}
        if kind in ("paths-info", "tree"):
            folder = rest.removeprefix(COMMIT).strip("/")
            return 200, [entry for entry in entries if entry["path"].startswith(folder)]
        if kind in ("", "revision"):
            siblings = [{"rfilename": name} for name in self.files]
            return 200, {"id": "me/talk", "sha": COMMIT, "private": False, "gated": False, "siblings": siblings}
        name = rest.partition("/")[2]
        return (200, self.files[name]) if name in self.files else (404, {"error": "no such file"})

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = urlsplit(self.path).path
                hub.requests.append((self.command, self.path))
                status, value = hub.answer(path)
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                if status == 404:
                    kind = "RepoNotFound" if "/me/talk" not in path else "EntryNotFound"
                    self.send_header("X-Error-Code", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = _answer

            def log_message(self, *_: object) -> None:
                pass

        return Handler
