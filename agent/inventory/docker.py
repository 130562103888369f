"""Docker's Engine API over its unix socket: which containers run, and what happens to them.

Every call blocks and belongs in a thread. What a container's name and labels mean is for `names`.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import quote

from ..errors import SourceError
from ..exchange import exchange, failure
from ..text import clean
from .docker_shapes import (
    ACTIONS,
    DockerContainer,
    DockerEvent,
    member,
    shaped,
    to_container,
    to_event,
)

__all__ = ["DEFAULT_SOCKET", "DockerClient", "DockerContainer", "DockerEvent"]

DEFAULT_SOCKET = "/var/run/docker.sock"
MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
_FILTERS = quote(json.dumps({"type": ["container"], "event": list(ACTIONS)}))
_T = TypeVar("_T")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(
        self, path: str, timeout_s: float, opened: Callable[[socket.socket], None]
    ) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._opened = opened
        self.opened: socket.socket | None = None  # `sock` is forgotten when an answer says "close"

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
        self.opened = self.sock
        self._opened(self.sock)


class DockerClient:
    """One Docker daemon. Each call has a connection of its own, so threads may call at once."""

    def __init__(self, path: str = "", timeout_s: float = 5.0) -> None:
        """Connect to nothing yet.

        Args:
            path: Its socket; empty means the usual place.
            timeout_s: Seconds for each whole answer. The event stream may stay silent for ever.
        """
        self._path = path or DEFAULT_SOCKET
        self._timeout_s = timeout_s
        self._who = f"Docker at {clean(self._path)}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    def version(self) -> str:
        """The daemon's version, such as ``20.10.24``.

        Raises:
            SourceError: It does not answer, or not as Docker does. So for every call here.
        """
        body = self._get("/version") or b""
        return clean(self._read(lambda: member(json.loads(body), "Version", str)))

    def containers(self) -> tuple[DockerContainer, ...]:
        """Every running container; one that ends meanwhile is left out."""
        body = self._get("/containers/json") or b""
        ids = self._read(lambda: [member(i, "Id", str) for i in shaped(json.loads(body), list)])
        found = [self.inspect(container_id) for container_id in ids]
        return tuple(container for container in found if container is not None)

    def inspect(self, container_id: str) -> DockerContainer | None:
        """One container, running or not; None when there is none of that id."""
        if not _ID.fullmatch(container_id):  # it becomes part of a path
            raise SourceError(f"{self._who}: not a container id: {clean(container_id, 80)!r}")
        body = self._get(f"/containers/{container_id}/json", absent_ok=True)
        return None if body is None else self._read(lambda: to_container(json.loads(body)))

    def events(self, since_s: float | None = None) -> Iterator[DockerEvent]:
        """Starts, deaths and removals as they happen, until `close`.

        A line longer than 1 MiB is skipped, so a list now and then is still needed. Nothing is
        sent before the first item is asked for.

        Args:
            since_s: Also what has happened since then, in seconds since the epoch.

        Raises:
            SourceError: Also when the daemon ends the stream: list again, then ask again.
        """
        connection = _UnixConnection(self._path, self._timeout_s, self._opened)
        try:
            connection.connect()
            if not self._closed:
                yield from self._stream(connection, connection.sock, since_s)
        except (OSError, http.client.HTTPException) as error:
            if not self._closed:
                raise failure(self._who, error, self._timeout_s) from error
        finally:
            self._let_go(connection)

    def close(self) -> None:
        """End every call, now and from now on; safe from any thread, and twice.

        Event streams just end. Any other call fails.
        """
        with self._lock:
            self._closed = True
            for sock in self._open:
                _wake(sock)

    def _opened(self, sock: socket.socket) -> None:
        with self._lock:
            self._open.add(sock)
            if self._closed:
                _wake(sock)

    def _let_go(self, connection: _UnixConnection) -> None:
        connection.close()
        if connection.opened is not None:
            with self._lock:
                self._open.discard(connection.opened)
            connection.opened.close()

    def _stream(
        self,
        connection: http.client.HTTPConnection,
        stream: socket.socket,
        since_s: float | None,
    ) -> Iterator[DockerEvent]:
        since = "" if since_s is None else f"&since={since_s:.9f}"
        connection.request("GET", f"/events?filters={_FILTERS}{since}")
        with connection.getresponse() as response:
            if response.status != http.client.OK:
                raise SourceError(f"{self._who}: status {response.status} for its events")
            stream.settimeout(None)
            while line := self._line(response):
                event = self._read(functools.partial(_event, line))
                if event is not None:
                    yield event
        if not self._closed:
            raise SourceError(f"{self._who}: the event stream ended")

    def _line(self, response: http.client.HTTPResponse) -> bytes:
        """The next line that is not too long; empty at the end of the stream."""
        skipped = 0
        while True:
            line = response.readline(MAX_LINE_BYTES)
            if not line or (line.endswith(b"\n") and not skipped):
                return line
            skipped = 0 if line.endswith(b"\n") else skipped + len(line)
            if skipped > MAX_BODY_BYTES:
                raise SourceError(f"{self._who}: an event without an end")

    def _get(self, path: str, *, absent_ok: bool = False) -> bytes | None:
        """The body at *path*; None when there is nothing (404) and *absent_ok*."""
        connection = _UnixConnection(self._path, self._timeout_s, self._opened)
        try:
            status, body = exchange(
                connection, "GET", path, {}, who=self._who, max_bytes=MAX_BODY_BYTES
            )
        finally:
            self._let_go(connection)
        if status == http.client.NOT_FOUND and absent_ok:
            return None
        if status != http.client.OK:
            raise SourceError(f"{self._who}: status {status} for {path}")
        return body

    def _read(self, reading: Callable[[], _T]) -> _T:
        try:
            return reading()
        except (ValueError, RecursionError) as error:
            why = clean(str(error), 100)
            raise SourceError(f"{self._who}: what answers is not Docker: {why}") from None


def _wake(sock: socket.socket) -> None:
    # Not close(): another thread sleeps in recv, and only this wakes it.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _event(line: bytes) -> DockerEvent | None:
    return to_event(json.loads(line))
