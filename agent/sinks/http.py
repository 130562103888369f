"""The agent's HTTP door: metrics, health, and the latest snapshot. Reads nothing else.

The standard library's server in threads of its own: a slow or hostile client holds up a thread,
of which there are few, and never the counting.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CONTENT_TYPE_LATEST

from ..errors import NeedError
from ..model import Snapshot
from ..snapshot_json import dumps, finding_to_json
from ..top_names import MOST_NAMES, with_names
from .metrics import render

_CLIENT_TIMEOUT_S = 10.0
_MAX_CLIENTS = 32
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


class View:
    """What the door may look at.

    Args:
        latest: The newest snapshot; None before the first.
        healthy: Whether ticks still come.
    """

    def __init__(self, latest: Callable[[], Snapshot | None], healthy: Callable[[], bool]) -> None:
        self.latest = latest
        self.healthy = healthy


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a scrape is no event."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        self._room = threading.BoundedSemaphore(_MAX_CLIENTS)
        super().__init__(*args, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)  # too many at once: the next scrape will do
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had: its room is free again
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A client that went away is nobody's news."""

    def server_bind(self) -> None:
        # WSGIServer looks its own name up here, in the very resolver we watch.
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()


class HttpDoor:
    """Serves a `View` until closed.

    Args:
        host: Address to listen on.
        port: 0 for any free one.

    Raises:
        NeedError: The address cannot be listened on.
    """

    def __init__(self, host: str, port: int, view: View) -> None:
        self._view = view
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = type("_FamilyServer", (_Server,), {"address_family": family})
        try:
            self._server: WSGIServer = make_server(host, port, self._answer, server, _Handler)
        except OSError as error:
            raise NeedError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another with --listen"
            ) from error
        self.port: int = self._server.server_port
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401
        status, kind, body = self._route(
            environ.get("REQUEST_METHOD"), environ.get("PATH_INFO"), environ.get("QUERY_STRING")
        )
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        if status.startswith("405"):
            headers.append(("Allow", "GET, HEAD"))
        start_response(status, headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    def _route(
        self, method: str | None, path: str | None, query: str | None
    ) -> tuple[str, str, bytes]:
        if method not in {"GET", "HEAD"}:
            return "405 Method Not Allowed", _TEXT, b"only GET\n"
        snapshot = self._view.latest()
        if path == "/metrics":
            return "200 OK", CONTENT_TYPE_LATEST, render(lambda: snapshot)
        if path == "/healthz":
            if self._view.healthy():
                return "200 OK", _TEXT, b"ok\n"
            return "503 Service Unavailable", _TEXT, b"no tick for too long\n"
        if path not in {"/readyz", "/api/v1/snapshot", "/api/v1/findings", "/"}:
            return "404 Not Found", _TEXT, b"not here; see /\n"
        if path == "/":
            there = "/metrics /healthz /readyz /api/v1/snapshot /api/v1/findings\n"
            return "200 OK", _TEXT, there.encode()
        if snapshot is None:
            return "503 Service Unavailable", _TEXT, b"no snapshot yet\n"
        if path == "/readyz":
            return "200 OK", _TEXT, b"ready\n"
        if path == "/api/v1/snapshot":
            return _snapshot(snapshot, query or "")
        findings = [finding_to_json(finding) for finding in snapshot.findings]
        return "200 OK", _JSON, json.dumps({"version": 1, "findings": findings}).encode()


def _snapshot(snapshot: Snapshot, query: str) -> tuple[str, str, bytes]:
    """The snapshot, with as many names of each ENI as ``names=`` asks for."""
    wanted = re.search(r"(?:^|&)names=([^&]*)", query)
    if wanted is None:
        return "200 OK", _JSON, dumps(snapshot).encode()
    if not re.fullmatch(r"[0-9]{1,3}", wanted[1]) or int(wanted[1]) > MOST_NAMES:
        return "400 Bad Request", _TEXT, f"names: a number from 0 to {MOST_NAMES}\n".encode()
    return "200 OK", _JSON, dumps(with_names(snapshot, int(wanted[1]))).encode()
