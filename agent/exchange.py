"""One HTTP request, bounded in time and in size.

http.client alone bounds neither: a byte a second keeps it reading for hours, and a body without
an end fills the memory of an agent that other people's traffic depends on.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Mapping

from .errors import SourceError
from .text import clean

_STEP = 64 * 1024


class _Timed(io.RawIOBase):
    """Reads a socket until its time-out has passed since the request, however slowly bytes come."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline_s = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class TimedResponse(http.client.HTTPResponse):
    """An answer whose reading, head and body together, ends with the connection's time-out."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None,
        url: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock))


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: Mapping[str, str],
    *,
    who: str,
    max_bytes: int,
) -> tuple[int, bytes]:
    """Send one request and read its whole answer, on the open connection if it still is.

    Args:
        connection: Its ``timeout`` (seconds) bounds connecting, and again the whole answer.
        method: GET, PUT, …
        path: Sent as it is: the caller answers for what is in it.
        headers: Sent as they are, likewise.
        who: Names the service in the error's line.
        max_bytes: The longest body that is read.

    Returns:
        Status and body.

    Raises:
        SourceError: One line; its ``__cause__`` is a TimeoutError when time ran out.
    """
    try:
        while True:
            reused = connection.sock is not None
            try:
                return _exchange(connection, method, path, headers, max_bytes)
            except ConnectionError:  # a kept connection may have been closed from the other side
                connection.close()
                if not reused:
                    raise
    except (OSError, http.client.HTTPException, SourceError) as error:
        connection.close()  # what is left of this answer must not be read as the next one
        # Without its frames: they hold whatever was read.
        raise failure(who, error, connection.timeout) from error.with_traceback(None)


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    headers: Mapping[str, str],
    max_bytes: int,
) -> tuple[int, bytes]:
    connection.response_class = TimedResponse
    if connection.sock is not None:
        connection.sock.settimeout(connection.timeout)
    connection.request(method, path, headers=dict(headers))
    # Closed here and not by the connection, which forgets an answer that has no length; the
    # socket would stay open, and its sender would wait, for as long as anybody holds the error.
    with connection.getresponse() as response:
        body = bytearray()
        while piece := response.read(min(_STEP, max_bytes + 1 - len(body))):
            body += piece
            if len(body) > max_bytes:
                raise SourceError(f"an answer of more than {max_bytes} bytes")
        if response.length:  # a cut answer may still parse: 10.0.0.0/1 instead of /16
            raise http.client.IncompleteRead(b"", response.length)
        return response.status, bytes(body)


def failure(who: str, error: Exception, timeout_s: float | None) -> SourceError:
    """The one line for whatever went wrong while talking to *who*."""
    if isinstance(error, TimeoutError):
        return SourceError(f"{who}: no full answer within {timeout_s:g} s")
    if isinstance(error, http.client.RemoteDisconnected):
        return SourceError(f"{who}: closed the connection without an answer")
    if isinstance(error, http.client.IncompleteRead):
        return SourceError(f"{who}: the answer was cut short")
    if isinstance(error, http.client.HTTPException):
        return SourceError(f"{who}: what answers is not HTTP: {clean(str(error), 80)}")
    if isinstance(error, OSError):
        return SourceError(f"{who}: {error.strerror or error}")
    return SourceError(f"{who}: {error}")
