"""What the ECS agent (port 51678) and the VPC CNI (port 61679) tell about themselves on a node.

Run as a script inside the node namespace: ``introspection.py STATE.json``. It listens on 127.0.0.1
only. STATE.json is read at each request: {"ecs": {"mode", "metadata", "tasks"}, "cni": {"mode",
"enis"}}. A mode other than "ok" is a fault, for every path of that server:

    hang       takes the request and never answers
    503        an empty one
    garbage    status 200 and bytes that are neither JSON nor text
    truncated  Content-Length promises twice what comes
    huge       a body without an end
"""

from __future__ import annotations

import http.server
import json
import select
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

PORTS = {"ecs": 51678, "cni": 61679}
SHORT_ID = 12
GARBAGE = b"\xff\xfe\x00\x1b[2J<html>\x80not json\r\n" * 20
NO_TASK = {"Arn": "", "KnownStatus": "", "Family": "", "Version": "", "Containers": None}


def ecs_answer(state: Mapping[str, Any], path: str, query: Mapping[str, str]) -> tuple[int, Any]:
    """Status and body as the ECS agent gives them; what it does not know is the list of paths."""
    if path == "/v1/metadata":
        return 200, state["metadata"]
    if path != "/v1/tasks":
        return 200, {"AvailableCommands": ["/v1/metadata", "/v1/tasks", "/license"]}
    docker_id, arn = query.get("dockerid"), query.get("taskarn")
    if docker_id and arn:
        return 400, NO_TASK
    if docker_id:
        found = [task for task in state["tasks"] if _holds(task, docker_id)]
    elif arn:
        found = [task for task in state["tasks"] if task["Arn"] == arn]
    else:
        return 200, {"Tasks": state["tasks"]}
    return (200, found[0]) if len(found) == 1 else (404, NO_TASK)


def _holds(task: Mapping[str, Any], docker_id: str) -> bool:
    ids = [container["DockerId"] for container in task["Containers"]]
    if len(docker_id) > SHORT_ID:
        return docker_id in ids
    return any(known.startswith(docker_id) for known in ids)


def cni_answer(state: Mapping[str, Any], path: str) -> tuple[int, Any]:
    """Status and body as the CNI's daemon gives them."""
    if path == "/v1/enis":
        return 200, state["enis"]
    return 200, {"AvailableCommands": ["/v1/enis"]}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer, or fail as the mode says."""
        state = self.server.state()
        url = urlsplit(self.path)
        if self.server.name == "ecs":
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            status, answer = ecs_answer(state, url.path, query)
        else:
            status, answer = cni_answer(state, url.path)
        body = json.dumps(answer).encode()
        match state["mode"]:
            case "hang":
                self._hang()
            case "503":
                self._send(503, b"")
            case "garbage":
                self._send(200, GARBAGE)
            case "truncated":
                self._send(status, body[: len(body) // 2], promised=len(body))
            case "huge":
                self._send_forever(body)
            case _:
                self._send(status, body)

    def _hang(self) -> None:
        """Until the peer has had enough, or the mode has ended; then without an answer still."""
        self.close_connection = True
        while self.server.state()["mode"] == "hang":
            if select.select([self.connection], [], [], 0.05)[0]:
                return

    def _send(self, status: int, body: bytes, *, promised: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if promised is None else promised))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection |= promised is not None

    def _send_forever(self, body: bytes) -> None:
        """The true answer, then blanks: valid JSON that never ends."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            self.wfile.write(body)
            while self.server.state()["mode"] == "huge":
                self.wfile.write(b" " * 65536)
        except OSError:
            return  # The peer has had enough.

    def log_message(self, format: str, *args: object) -> None:
        """One line per request, on stdout and at once."""
        print(self.server.name, format % args, flush=True)


class Server(http.server.ThreadingHTTPServer):
    """One of the two."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        super().__init__(("127.0.0.1", PORTS[name]), Handler)

    def server_bind(self) -> None:
        """Bind without HTTPServer's reverse look-up of the address, which would need DNS."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "127.0.0.1", PORTS[self.name]

    def state(self) -> dict[str, Any]:
        """Its part of the state file, as it is now."""
        part: dict[str, Any] = json.loads(self._path.read_text())[self.name]
        return part


def main(argv: list[str]) -> None:
    """Serve both until the process is ended."""
    servers = [Server(name, Path(argv[1])) for name in PORTS]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main(sys.argv)
