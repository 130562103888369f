"""Who counts: the node's BPF programs, or a sidecar without any."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..config import Config
from ..model import Snapshot
from .metadata import VARIABLE

if TYPE_CHECKING:
    from ..kernel.child import CompilerChild

_NET_ADMIN, _NET_RAW, _SYS_ADMIN, _PERFMON, _BPF = 12, 13, 21, 38, 39


class Counting(Protocol):
    """What a node and a sidecar have in common.

    Attributes:
        mode: How packets are counted.
        on_crossing: Called when a window has reached a level.
    """

    mode: str
    on_crossing: Callable[[], None]

    async def start(self) -> None:
        """Begin; on failure nothing is left behind."""
        ...

    async def stop(self) -> None:
        """End, and leave everything as it was."""
        ...

    def tick(self, *, since_start: bool = False, last: bool = False) -> Snapshot:
        """What there is to say now."""
        ...

    def failed(self, stage: str, reason: str) -> None:
        """Count a failure outside that cost something."""
        ...


def make_node(
    config: Config, *, keep_memory: bool = True, child: CompilerChild | None = None
) -> Counting:
    """The one that counts here, not yet started.

    Args:
        config: What the user wants.
        keep_memory: See `node.Node`.
        child: Compiles the programs already; None where none is needed, or not yet.
    """
    # Each is imported where it is used: netlink alone is a third of the other's memory.
    if wants_sidecar(config, os.environ):
        from .node import Sidecar  # noqa: PLC0415

        return Sidecar(config, os.environ.get(VARIABLE, ""))
    from ..node import Node  # noqa: PLC0415

    return Node(config, keep_memory=keep_memory, child=child)


def wants_sidecar(
    config: Config, environ: Mapping[str, str], status: Path = Path("/proc/self/status")
) -> bool:
    """Whether to count without BPF: when told to, or in a task that has not the capabilities."""
    if config.attach != "auto":
        return config.attach in {"packet", "udp"}
    return bool(environ.get(VARIABLE)) and not may_load(capabilities(status))


def capabilities(status: Path = Path("/proc/self/status")) -> int:
    """The effective ones, a bit each."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def may_load(held: int) -> bool:
    """Whether they suffice to load and attach our programs."""
    modern = held >> _BPF & 1 and held >> _PERFMON & 1
    return bool(held >> _NET_ADMIN & 1 and (modern or held >> _SYS_ADMIN & 1))


def may_hear(held: int) -> bool:
    """Whether they suffice for a packet socket."""
    return bool(held >> _NET_RAW & 1)
