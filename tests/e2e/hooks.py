"""A receiver of POSTs and a sender of bursts in the lab's node, both with their moments.

Moments are seconds of the monotonic clock, which is the same in every process and namespace.
"""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from tests.lab.awsvpc import AwsvpcTask
from tests.lab.lab import Lab

HERE = "tests.e2e.hooks"


class Hooks:
    """A receiver in the node, from ``with`` to its end.

    Args:
        lab: Where it runs.
        mood: ``ok`` or ``silent`` (takes the connection and says nothing).
        port: Where it listens.
        task: In whose network namespace; None: in the node's.
    """

    def __init__(
        self, lab: Lab, mood: str = "ok", port: int = 9099, task: AwsvpcTask | None = None
    ) -> None:
        self._lab, self._mood, self._port = lab, mood, port
        self._enter = [] if task is None else ["nsenter", f"--net=/proc/{task.pid}/ns/net"]
        self._file = lab.directory / f"hooks-{time.monotonic_ns()}"
        self.url = f"http://127.0.0.1:{port}/hook"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start, and wait until it listens."""
        argv = [sys.executable, "-m", HERE, "receive", str(self._port), str(self._file), self._mood]
        self._process = self._lab.node_popen([*self._enter, *argv])
        wait_for(self._file.exists)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        assert self._process is not None
        self._process.terminate()
        self._process.communicate(timeout=10)

    def posts(self) -> list[tuple[float, dict[str, Any]]]:
        """(moment, body) of each, in order."""
        lines = self._file.read_text().splitlines()
        return [(line["at"], line["body"]) for line in map(json.loads, lines)]

    def said(self) -> list[tuple[str, str]]:
        """(transition, severity) of each."""
        return [(body["transition"], body["severity"]) for _, body in self.posts()]


def burst(lab: Lab, count: int, seconds: float) -> list[float]:
    """Queries from the node to its resolver, evenly over some time; the moment of each."""
    argv = [sys.executable, "-m", HERE, "burst", str(count), str(seconds)]
    moments: list[float] = json.loads(lab.node_exec(argv).stdout)
    return moments


def burst_in(task: AwsvpcTask, count: int, seconds: float) -> list[float]:
    """The same from a task's network namespace."""
    argv = [sys.executable, "-m", HERE, "burst", str(count), str(seconds)]
    moments: list[float] = json.loads(task.exec(argv).stdout)
    return moments


def wait_for(condition: Any, timeout: float = 20.0) -> None:
    """Until *condition* comes true; fail when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class _Handler(http.server.BaseHTTPRequestHandler):
    file = Path()
    mood = "ok"

    def do_POST(self) -> None:
        """Take it, and note when."""
        at = time.monotonic()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.file.open("a") as out:
            out.write(json.dumps({"at": at, "body": body}) + "\n")
        if self.mood == "silent":
            time.sleep(60)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _receive(port: str, file: str, mood: str) -> None:
    _Handler.file, _Handler.mood = Path(file), mood
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), _Handler)
    server.daemon_threads = True
    _Handler.file.touch()
    server.serve_forever()


def _burst(count: str, seconds: str) -> None:
    query = b"\0\7\1\0\0\1\0\0\0\0\0\0\2q1\3lab\4test\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("10.53.0.2", 53))
        begin, moments = time.monotonic(), []
        for number in range(int(count)):
            while (wait := begin + number * float(seconds) / int(count) - time.monotonic()) > 0:
                time.sleep(wait)
            moments.append(time.monotonic())
            sock.send(query)
        print(json.dumps(moments))
        time.sleep(0.3)  # an answer to a closed socket would be answered with one more packet


if __name__ == "__main__":
    {"receive": _receive, "burst": _burst}[sys.argv[1]](*sys.argv[2:])
