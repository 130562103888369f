"""The child that compiles, as its parent sees it.

Light to import, so that a command can start the child first and import the rest while it works:
compiling takes longer than anything else at a start.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

_DEADLINE_S = 60.0
_MAX_MESSAGE = 1 << 20


class CompilerChild:
    """At work from its start on; gone after `result` or `close`, or at the end of the block."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self._channel, theirs = socket.socketpair()
        # In memory: where nothing can be written to, the compiler must still be able to complain.
        self._complaints = os.fdopen(os.memfd_create("eni53-compiler"), "w+b")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "eni53.kernel.compiler", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._complaints,
                stderr=self._complaints,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, whatever it does. Twice is fine."""
        self._process.kill()
        self._process.wait()
        self._channel.close()
        self._complaints.close()

    def result(self) -> tuple[dict[str, Any], list[int], str, int]:
        """Wait for it: what it reports (empty: nothing), descriptors, complaints, exit status."""
        try:
            head, fds = self._receive()
            self._process.kill()
            status = self._process.wait()
            self._complaints.seek(0)
            return head, fds, self._complaints.read().decode(errors="replace"), status
        finally:
            self.close()

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        """One JSON line and the descriptors that came with it; an empty dict when none came."""
        data = b""
        fds: list[int] = []
        deadline_s = self.started_s + _DEADLINE_S
        while not data.endswith(b"\n") and len(data) < _MAX_MESSAGE:
            left_s = max(0.0, deadline_s - time.monotonic())
            if not select.select([self._channel], [], [], left_s)[0]:
                return {"error": f"no answer within {_DEADLINE_S:.0f} s", "kind": "kernel"}, fds
            chunk, received, _, _ = socket.recv_fds(self._channel, 1 << 16, 64)
            fds += received
            for fd in received:
                os.set_inheritable(fd, False)  # recv_fds leaves them so; others' children need none
            if not chunk:
                break
            data += chunk
        return (json.loads(data) if data.endswith(b"\n") else {}), fds
