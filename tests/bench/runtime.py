"""A stand-in for dockerd's API, so that two hundred ECS tasks cost no two hundred containers."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import socketserver
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab.containers import ecs_labels

from .crowd import Member

Facts = Mapping[str, Any]


def describe(member: Member, number: int) -> Facts:
    """What ``docker inspect`` would say of *member*: an ECS task with one container."""
    labels = ecs_labels(
        member.id[:32], cluster="prod", family=f"service-{number}", revision=42, container="app"
    )
    return {
        "Id": member.id,
        "Name": f"/ecs-service-{number}-42-app-{member.id[:20]}",
        "State": {"Pid": member.pid, "Running": True},
        "Config": {"Labels": labels},
        "HostConfig": {"NetworkMode": "default", "CgroupParent": f"/ecs/{member.id[:32]}"},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": member.address}}},
    }


class Runtime:
    """Serves on a unix socket while the ``with`` block lasts.

    Attributes:
        containers: By id.
    """

    def __init__(self, socket_path: Path) -> None:
        self.containers: dict[str, Facts] = {}
        self._streams: list[queue.SimpleQueue[bytes]] = []
        runtime = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/events":
                    runtime._stream(self)
                    return
                body = runtime._answer(path)
                self.send_response(200 if body else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self) -> str:
                return "unix"

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = socketserver.ThreadingUnixStreamServer(str(socket_path), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def start(self, members: Sequence[Member]) -> None:
        """They run from now on; whoever listens to events is told."""
        for number, member in enumerate(members):
            self.containers[member.id] = describe(member, number)
            event = {"Type": "container", "Action": "start", "Actor": {"ID": member.id}}
            for stream in self._streams:
                stream.put(json.dumps(event).encode() + b"\n")

    def _answer(self, path: str) -> bytes:
        if path == "/containers/json":
            return json.dumps([{"Id": each} for each in self.containers]).encode()
        found = self.containers.get(path.removeprefix("/containers/").removesuffix("/json"))
        return json.dumps(found).encode() if found else b""

    def _stream(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        events: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._streams.append(events)
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(events.get())
