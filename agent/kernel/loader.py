"""Starts the compiler child, takes its descriptors, and says in one line what went wrong."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ..errors import NeedError
from . import layout

_DEADLINE_S = 60.0
_MAX_MESSAGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """Descriptors of the loaded programs and maps; closing them unloads what is not attached.

    Attributes:
        programs: Descriptor of each program, by its name in bpf/eni53.c.
        maps: Descriptor of each map, by its name in bpf/maps.h.
        max_entries: Room of each map.
        load_s: Seconds that compiling and loading took.
    """

    programs: Mapping[str, int]
    maps: Mapping[str, int]
    max_entries: Mapping[str, int]
    load_s: float

    def close(self) -> None:
        """Close every descriptor."""
        for fd in (*self.programs.values(), *self.maps.values()):
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def load() -> Loaded:
    """Compile and load the programs in a child process; it is gone when this returns.

    Raises:
        NeedError: BCC is missing, a capability is, or the kernel refused a program.
    """
    started = time.monotonic()
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", "eni53.kernel.compiler", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=complaints,
            stderr=complaints,
        )
        theirs.close()
        try:
            head, fds = _receive(ours, started + _DEADLINE_S)
        finally:
            child.kill()
            child.wait()
        complaints.seek(0)
        said = complaints.read().decode(errors="replace")
    if "error" in head or not head:
        raise _explain(head, said, child.returncode)
    names = list(head["programs"])
    described = list(head["maps"])
    loaded = Loaded(
        programs=dict(zip(names, fds, strict=False)),
        maps={d["name"]: fd for d, fd in zip(described, fds[len(names) :], strict=True)},
        max_entries={d["name"]: d["max_entries"] for d in described},
        load_s=time.monotonic() - started,
    )
    try:
        layout.verify(described)
    except NeedError:
        loaded.close()
        raise
    return loaded


def _receive(channel: socket.socket, deadline: float) -> tuple[dict[str, Any], list[int]]:
    """One JSON line and the descriptors that came with it; an empty dict when none came."""
    data = b""
    fds: list[int] = []
    while not data.endswith(b"\n") and len(data) < _MAX_MESSAGE:
        if not select.select([channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return {"error": f"no answer within {_DEADLINE_S:.0f} s", "kind": "kernel"}, fds
        chunk, received, _, _ = socket.recv_fds(channel, 1 << 16, 64)
        fds += received
        for fd in received:
            os.set_inheritable(fd, False)  # recv_fds leaves them so; others' children need none
        if not chunk:
            break
        data += chunk
    return (json.loads(data) if data.endswith(b"\n") else {}), fds


def _explain(head: dict[str, Any], said: str, code: int) -> NeedError:
    error = str(head.get("error", f"the compiler process ended with status {code}"))
    if head.get("kind") == "bcc":
        return NeedError(
            f"BCC cannot be imported ({error}): install the distribution's python3-bpfcc"
            " (PyPI's `bcc` is another project)"
        )
    # EPERM without CAP_BPF; EACCES when the verifier may not follow offsets, without CAP_PERFMON.
    if any(word in error + said for word in ("Operation not permitted", "Permission denied")):
        return NeedError(
            "the kernel does not let this process load BPF programs: run as root, or with"
            " CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (before Linux 5.8: CAP_SYS_ADMIN)"
        )
    details = [line.strip() for line in said.splitlines() if "error" in line or "invalid" in line]
    hint = f": {details[0]}" if details else ""
    return NeedError(f"the BPF programs could not be loaded: {error}{hint}")
