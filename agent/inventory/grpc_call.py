"""One gRPC call as HTTP/2 frames on a connected socket, bounded in time and in size.

What a message says is for the caller; which server was asked, and what a failure is called, is for
`grpc_unix`. Everything here raises SourceError, OSError or h2's own errors.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Iterator
from typing import TypeAlias
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from ..errors import SourceError
from ..text import clean

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
NOT_FOUND, UNIMPLEMENTED = 5, 12
"""Two of gRPC's status codes."""

Metadata: TypeAlias = Iterable[tuple[str, str]]

_WINDOW = 1024 * 1024  # what a peer may have on its way to us; a list of 750 containers is half
_RECV_BYTES = 256 * 1024
_PREFIX = 5  # one byte "is it compressed", four of length
_FRAME_HEAD, _FRAME_TYPE, _SETTINGS = 9, 3, 4
_OK = "0"
_TOO_LONG = f"an answer of more than {MAX_MESSAGE_BYTES} bytes"


class GrpcError(SourceError):
    """The peer has refused a call.

    Attributes:
        status: Its gRPC status code, such as 5 for NOT_FOUND; never 0.
    """

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


class GrpcCall:
    """One request and its answers on a connection of its own.

    Args:
        sock: Connected.
        deadline_s: On the monotonic clock: until then the peer must have read the request.
    """

    def __init__(self, sock: socket.socket, deadline_s: float) -> None:
        self._sock = sock
        self._deadline_s: float | None = deadline_s
        self._write_s = sock.gettimeout()
        self._h2 = _connection()
        self._id = self._h2.get_next_available_stream_id()
        self._body = bytearray()
        self._head = b""
        self._accepted = False
        self._read = False
        self._ended = False
        self._failure: Exception | None = None

    def send(
        self, method: str, request: bytes, metadata: Metadata, timeout_s: float | None = None
    ) -> None:
        """Send the request, as fast as the peer lets us; *timeout_s* is what the peer is told."""
        self._h2.initiate_connection()
        self._h2.send_headers(self._id, _headers(method, metadata, timeout_s))
        # Without this a connection holds 64 KiB on its way, whatever its one stream may.
        self._h2.increment_flow_control_window(_WINDOW)
        body = memoryview(b"\0" + len(request).to_bytes(4, "big") + request)
        while body and not self._ended:  # a refusal need not wait for what it refuses
            room = self._h2.local_flow_control_window(self._id)
            room = min(room, self._h2.max_outbound_frame_size, len(body))
            if room > 0:
                self._h2.send_data(self._id, bytes(body[:room]), end_stream=room == len(body))
                body = body[room:]
            else:
                self._receive()
        if not self._ended:
            self._flush()

    def wait_read(self) -> None:
        """Wait until the peer has read the request.

        A server sends a stream's headers with its first message, which may come next year. But it
        reads in order, so the answer to a ping says that it has read what came before.
        """
        self._h2.ping(b"eni53 \0\0")
        while not self._read and not self._ended:
            self._receive()
        if not self._body:
            self._fail()

    def messages(self, deadline_s: float | None = None, most: int = 0) -> Iterator[bytes]:
        """Every message, to the end of the call.

        Args:
            deadline_s: On the monotonic clock; None waits for ever.
            most: More messages than this are an error; 0 is any number.

        Raises:
            GrpcError: The call ended, but not well.
        """
        self._deadline_s = deadline_s
        count = 0
        while True:
            while (one := self._take()) is not None:
                count += 1
                if most and count > most:
                    raise SourceError("more than one answer")
                yield one
            if self._ended:
                self._fail()
                if self._body:
                    raise SourceError("the answer was cut short")
                return
            self._receive()

    def _take(self) -> bytes | None:
        """The next whole message; None while it is not there."""
        if len(self._body) < _PREFIX:
            return None
        size = int.from_bytes(self._body[1:_PREFIX], "big")
        if self._body[0]:  # we never said that we could read it
            raise SourceError("what answers is not gRPC: a compressed message")
        if size > MAX_MESSAGE_BYTES:
            raise SourceError(_TOO_LONG)
        if len(self._body) < _PREFIX + size:
            return None
        found = bytes(memoryview(self._body)[_PREFIX : _PREFIX + size])
        del self._body[: _PREFIX + size]
        return found

    def _receive(self) -> None:
        """Wait for bytes from the peer and take in what they say."""
        self._flush()
        self._sock.settimeout(self._left())
        data = b""
        with contextlib.suppress(ConnectionResetError):  # it hung up on something of ours
            data = self._sock.recv(_RECV_BYTES)
        try:
            if not data:
                cut = self._accepted or self._body
                raise SourceError("the answer was cut short" if cut else self._hung_up())
            self._check_head(data)
            for event in self._h2.receive_data(data):
                if not self._ended:  # what a peer says after its last word does not matter
                    self._take_in(event)
        except SourceError as error:
            # Later: an event that came with it would be lost, and it may be a container's only one.
            self._failure, self._ended = error.with_traceback(None), True

    def _fail(self) -> None:
        """Raise what has gone wrong, if something has. Not kept: it would hold us, and we it."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _check_head(self, data: bytes) -> None:
        """A server's first frame is SETTINGS: h2 would wait for the 4 MiB that "HTT" announce."""
        if len(self._head) < _FRAME_HEAD:
            self._head += data[: _FRAME_HEAD - len(self._head)]
            if len(self._head) > _FRAME_TYPE and self._head[_FRAME_TYPE] != _SETTINGS:
                raise SourceError("what answers is not HTTP/2")

    def _hung_up(self) -> str:
        return f"closed the connection without {'a full' if self._head else 'an'} answer"

    def _take_in(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived():
                self._take_head(_texts(event.headers))
            case h2.events.DataReceived():
                self._body += event.data or b""
                if len(self._body) > MAX_MESSAGE_BYTES + _RECV_BYTES:  # nobody takes any yet
                    raise SourceError(_TOO_LONG)
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, self._id)
            case h2.events.TrailersReceived():
                self._take_status(_texts(event.headers))
            case h2.events.StreamEnded():
                if not self._ended:
                    raise SourceError("what answers is not gRPC: an answer without a status")
            case h2.events.StreamReset():
                raise SourceError(f"broke off the call: {_code(event.error_code)}")
            case h2.events.ConnectionTerminated():
                raise SourceError(f"ended the connection: {_code(event.error_code)}")
            case h2.events.PingAckReceived():
                self._read = True

    def _take_head(self, headers: dict[str, str]) -> None:
        status, kind = headers.get(":status", ""), headers.get("content-type", "")
        if status != "200":
            raise SourceError(f"status {clean(status, 8)}")
        if not kind.startswith("application/grpc"):
            raise SourceError(f"what answers is not gRPC: {clean(kind, 40) or 'no content type'}")
        self._accepted = True
        if "grpc-status" in headers:  # a refusal has no other part
            self._take_status(headers)

    def _take_status(self, headers: dict[str, str]) -> None:
        status = headers.get("grpc-status", "")
        self._ended = True
        if status == _OK:
            return
        if not (status.isascii() and status.isdigit() and len(status) < 4 and int(status)):
            raise SourceError(f"what answers is not gRPC: status {clean(status, 8)!r}")
        why = clean(unquote(headers.get("grpc-message", "")[:4096]), 200) or "no reason given"
        raise GrpcError(f"{why} (gRPC status {int(status)})", int(status))

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data:
            # Also on a stream that may be silent: a peer that does not read has to end it.
            self._sock.settimeout(self._write_s if self._deadline_s is None else self._left())
            # It has hung up; what it said before is still there, and is the better reason.
            with contextlib.suppress(BrokenPipeError):
                self._sock.sendall(data)

    def _left(self) -> float | None:
        if self._deadline_s is None:
            return None
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s


def _connection() -> h2.connection.H2Connection:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    codes = h2.settings.SettingCodes
    connection.local_settings = h2.settings.Settings(
        client=True,
        initial_values={
            codes.ENABLE_PUSH: 0,  # what nobody asked for is then an error
            codes.INITIAL_WINDOW_SIZE: _WINDOW,
            codes.MAX_HEADER_LIST_SIZE: connection.DEFAULT_MAX_HEADER_LIST_SIZE,
        },
    )
    return connection


def _headers(method: str, metadata: Metadata, timeout_s: float | None) -> list[tuple[str, str]]:
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "eni53"),
    ]
    if timeout_s is not None:  # the server stops working for us when we stop waiting
        headers.append(("grpc-timeout", f"{max(1, round(timeout_s * 1000))}m"))
    return [*headers, *metadata]


def _texts(headers: Iterable[tuple[bytes, bytes]] | None) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers or ()}


def _code(code: h2.errors.ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, h2.errors.ErrorCodes) else f"HTTP/2 error {code}"
