"""gRPC over a unix socket: one call, one connection, in the thread that calls.

A gRPC library would cost the agent more memory than all it has; h2 does for two methods.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Generator

import h2.exceptions

from ..errors import SourceError
from ..exchange import failure
from ..text import clean
from .grpc_call import NOT_FOUND, UNIMPLEMENTED, GrpcCall, GrpcError, Metadata

__all__ = ["NOT_FOUND", "UNIMPLEMENTED", "GrpcClient", "GrpcError"]


class GrpcClient:
    """A gRPC server on a unix socket. Threads may call at once.

    Args:
        path: Its socket. Nothing is connected to yet.
        timeout_s: Seconds for each whole answer, and for a stream's start. After that a stream may
            stay silent for ever.
        who: Names the server in every error's line.
    """

    def __init__(self, path: str, timeout_s: float, who: str) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._who = who
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    def unary(self, method: str, request: bytes, metadata: Metadata = ()) -> bytes:
        """The answer to one request.

        Args:
            method: ``/package.Service/Method``.
            request: The encoded message.
            metadata: Headers besides gRPC's own, in lower case.

        Raises:
            GrpcError: The server says no.
            SourceError: It does not answer in time, or not as gRPC does, or this client is closed.
        """
        answers = list(self._call(method, request, metadata, streams=False))
        if len(answers) != 1:
            why = "this client is closed" if self._closed else "no answer, but no error either"
            raise SourceError(f"{self._who}: {why}")
        return answers[0]

    def stream(
        self, method: str, request: bytes, metadata: Metadata = ()
    ) -> Generator[bytes, None, None]:
        """The messages that answer one request, until `close`.

        When this returns, the server has read the request: a list asked for after that and these
        messages leave no gap, but for the moment in which the server acts upon what it has read.

        Raises:
            SourceError: As for `unary`, here or while messages are read; also when the server ends
                the stream.
        """
        messages = self._call(method, request, metadata, streams=True)
        next(messages, b"")  # not a message: up to here the request was sent
        return messages

    def close(self) -> None:
        """End every call, now and from now on; safe from any thread, and twice.

        Streams just end. A unary call fails.
        """
        with self._lock:
            self._closed = True
            for sock in self._open:
                # Not close(): another thread sleeps in recv, and only this wakes it.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _call(
        self, method: str, request: bytes, metadata: Metadata, *, streams: bool
    ) -> Generator[bytes, None, None]:
        """Every message; before those of a stream an empty one, once the request was read."""
        deadline_s = time.monotonic() + self._timeout_s
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self._timeout_s)
            sock.connect(self._path)
            with self._lock:
                self._open.add(sock)
                if self._closed:
                    return
            call = GrpcCall(sock, deadline_s)
            if not streams:
                call.send(method, request, metadata, self._timeout_s)
                yield from call.messages(deadline_s, 1)
                return
            call.send(method, request, metadata)
            call.wait_read()
            yield b""
            yield from call.messages()
            raise SourceError("the stream ended")
        except GrpcError as error:
            if not self._closed:
                raise GrpcError(f"{self._who}: {error}", error.status) from None
        except h2.exceptions.H2Error as error:
            if not self._closed:
                why = clean(str(error), 80) or type(error).__name__
                raise SourceError(f"{self._who}: what answers is not HTTP/2: {why}") from None
        except (OSError, ValueError, SourceError) as error:
            if not self._closed:
                raise failure(self._who, error, self._timeout_s) from error
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()
