"""A Hub on 127.0.0.1 that the unmodified clients talk to, and that fails on demand.

with LocalHub(folder) as hub:
    HfApi(endpoint=hub.endpoint, token=hub.tokens["me"]).create_repo("me/demo")
"""

import http.server
import socket
import socketserver
import threading
import time
from pathlib import Path
from typing import Any, Self

from . import routes_lfs, routes_read, routes_write, routes_xet  # noqa: F401 - they register their routes
from .faults import Fault, FaultPlan
from .routing import dispatch
from .storage import Account, Refusal, Storage
from .wire import Body, Request, Response

ACCOUNTS = {
    "me": Account("me", organizations={"team": "write", "library": "read"}),
    "colleague": Account("colleague", organizations={"team": "contributor", "me": "admin"}),
    "stranger": Account("stranger"),
    "reader": Account("me", role="read", organizations={"team": "write"}),
    "fine": Account("me", "fineGrained", {"team": "write"}, {"me": ("repo.content.read", "repo.write")}),
    "narrow": Account("me", "fineGrained", {"team": "write"}, {"me/demo": ("repo.content.read", "repo.write")}),
    "proposer": Account("me", "fineGrained", scopes={"": ("discussion.write",), "me": ("repo.content.read",)}),
    "expired": Account("me", expired=True),
}


class LocalHub:
    """The server: start it, look into its storage, plan its faults.

    Attributes:
        tokens: a token for each of :data:`ACCOUNTS`, by name.
        storage: repositories and large files as they are now.
        requests: method and path of each request so far, in order of arrival.
        uploads: large files, or parts of them, received so far.
        faults: what befalls which request; set through :meth:`fail`.
        page_size: entries on a page of a listing.
        multipart_threshold: size in bytes above which a large file is sent in parts.
        part_size: size of a part in bytes.
        has_xet: whether large files may come the way of Xet.
        invalid_token_message: what an unknown token is answered with; TOKEN stands for the token.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.storage = Storage(folder)
        # Made here, so that no text of the project holds anything that looks like a token.
        self.tokens = {name: f"hf_{name}".ljust(37, "X") for name in ACCOUNTS}
        self.storage.accounts = {self.tokens[name]: account for name, account in ACCOUNTS.items()}
        self.requests: list[tuple[str, str]] = []
        self.uploads: list[str] = []
        self.offered_transfers: list[list[str]] = []
        self.signatures: set[str] = set()
        self.faults: FaultPlan | None = None
        self.page_size = 1000
        self.multipart_threshold = 2**26
        self.part_size = 2**24
        self.has_xet = False
        self.invalid_token_message = "Invalid credentials in Authorization header"
        self._index = 0
        self._up = threading.Event()
        self._up.set()
        self._lock = threading.Lock()
        self._commit_barrier: threading.Barrier | None = None
        self._server = _Server(("127.0.0.1", port), self)
        self.port = self._server.server_address[1]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def storage_endpoint(self) -> str:
        """Large files are on another host, as with the real Hub: clients must not send the token there."""
        return f"http://localhost:{self.port}"

    def __enter__(self) -> Self:
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def fail(self, fault: Fault, index: int = 0, **details: Any) -> FaultPlan:
        """Let the request `index`, counted from now, fail in that way; see FaultPlan for the details."""
        with self._lock:
            self._index = 0
            self.faults = FaultPlan(fault, index, **details)
        if fault is Fault.REFUSED and index == 0:
            self.be_down(self.faults.outage_s)
            self.faults.fired += 1
        return self.faults

    def heal(self) -> None:
        with self._lock:
            self._index = 0
            self.faults = None

    def wait_for_publishers(self, count: int) -> None:
        """Hold back the next commits until `count` of them have arrived."""
        self._commit_barrier = threading.Barrier(count, action=lambda: setattr(self, "_commit_barrier", None))

    def at_commit(self) -> None:
        if (barrier := self._commit_barrier) is not None:
            barrier.wait(timeout=300)

    def be_down(self, duration_s: float) -> None:
        """Refuse connections for that long; those that are open and idle are closed."""
        self._up.clear()
        self._stop()
        threading.Timer(duration_s, self._come_back).start()

    def wait_until_up(self) -> None:
        """Wait for the end of an outage."""
        assert self._up.wait(timeout=300)

    def arrival(self, request: Request) -> tuple[Fault | None, bool]:
        """Count a request: what befalls it, and whether the Hub goes down right after it."""
        with self._lock:
            self.requests.append((request.method, request.path))
            index, plan = self._index, self.faults
            if plan is None or plan.path not in request.path:
                return None, False
            self._index += 1
            if plan.fault is Fault.REFUSED:
                return None, plan.at(index + 1) is not None
            return plan.at(index), False

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True).start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.close_idle()

    def _come_back(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), self)
        self._serve()
        self._up.set()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], hub: LocalHub) -> None:
        self.hub = hub
        self._idle: set[socket.socket] = set()
        super().__init__(address, _Connection)

    def close_idle(self) -> None:
        for connection in list(self._idle):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what the fault tests are about; anything else is a bug of ours and is shown."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def handle_one_request(self) -> None:
        self.server._idle.add(self.connection)
        try:
            self.raw_requestline = self.rfile.readline(65537)
        finally:
            self.server._idle.discard(self.connection)
        if not self.raw_requestline:
            self.close_connection = True
            return
        if not self.parse_request():
            return
        self._answer()
        self.wfile.flush()

    def _answer(self) -> None:
        hub = self.server.hub
        request = Request(self.command, self.path, self.headers, Body(self.rfile, self.headers))
        fault, goes_down = hub.arrival(request)
        plan = hub.faults
        if fault is Fault.DROPPED_BEFORE_BODY:
            self._drop()
            return
        if fault is Fault.SLOW and plan is not None:
            time.sleep(plan.slowness_s)
        if fault is Fault.KILLED_BEFORE and plan is not None:
            plan.kill()
            self._drop()
            return
        response = self._carry_out(request) if fault is None or fault is Fault.SLOW or fault.is_done else None
        for _ in request.body:  # what a refusal left unread would be taken for the next request
            pass
        if goes_down:
            assert plan is not None
            hub.be_down(plan.outage_s)
            self.close_connection = True
        if fault is Fault.KILLED_AFTER and plan is not None:
            plan.kill()
        if fault is Fault.DROPPED_AFTER_BODY or (fault is not None and fault.kills):
            self._drop()
        elif fault is not None and fault.status is not None:
            assert plan is not None
            headers = plan.headers if fault is Fault.RATE_LIMITED else {}
            self._send(Response.json({"error": fault.value}, fault.status, headers))
        else:
            assert response is not None
            self._send(response, cut_short=fault is Fault.TRUNCATED)

    def _carry_out(self, request: Request) -> Response:
        try:
            return dispatch(self.server.hub, request)
        except Refusal as refusal:
            # A header holds one line of Latin-1; the body holds it all.
            headers = {"X-Error-Message": refusal.message.splitlines()[0], **refusal.headers}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            return Response.json({"error": refusal.message}, refusal.status, headers)

    def _send(self, response: Response, *, cut_short: bool = False) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(response.length))
        if self.close_connection:
            self.send_header("Connection", "close")
        if cut_short and (self.command == "HEAD" or not response.length):
            self._headers_buffer = [b"".join(self._headers_buffer)[:20]]  # type: ignore[attr-defined]
            self.flush_headers()
            self._drop()
            return
        self.end_headers()
        if self.command == "HEAD":
            return
        for block in response.blocks():
            self.wfile.write(block[: len(block) // 2] if cut_short else block)
            if cut_short:
                self._drop()
                return

    def _drop(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def log_message(
        self,
        format: str,  # noqa: A002
        *args: object,
    ) -> None:
        """Silence: the tests read `LocalHub.requests`."""
