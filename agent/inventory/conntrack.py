"""How full the kernel's table of connections is, and what it refused, in the agent's namespace.

Whatever is NATed on this node has a place in it: a full table drops packets without a word to whom
sent them, DNS first of all, for each query is a new connection.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..model import Conntrack

_MAX_BYTES = 256 * 1024  # a line of 160 bytes for each possible processor


class ConntrackWatch:
    """Reads it; what is refused counts from here on.

    Args:
        proc: Where procfs is mounted.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._count = str(proc / "sys/net/netfilter/nf_conntrack_count")
        self._max = str(proc / "sys/net/netfilter/nf_conntrack_max")
        self._stat = str(proc / "net/stat/nf_conntrack")
        self._before = _refused(self._stat)
        self._since: tuple[int, int] | None = None if self._before is None else (0, 0)

    def read(self) -> Conntrack | None:
        """How it stands; None where there is none, or it cannot be read."""
        entries, limit = _number(self._count), _number(self._max)
        if entries is None or limit is None:
            return None
        now = _refused(self._stat)
        if now is not None:
            # The module may have been loaded, or loaded anew, meanwhile: then it began at zero.
            before, since = self._before or (0, 0), self._since or (0, 0)
            failed, dropped = (
                total + (new - old if new >= old else new)
                for total, old, new in zip(since, before, now, strict=True)
            )
            self._before, self._since = now, (failed, dropped)
        known = self._since if now is not None and self._since is not None else (None, None)
        return Conntrack(entries, limit or None, *known)


def parse_stat(text: str) -> tuple[int, int] | None:
    """(insert_failed, drop) of ``/proc/net/stat/nf_conntrack``, all processors together.

    Columns came and went from kernel to kernel; the first line names them. None when it does not.
    """
    head, *lines = text.splitlines() or [""]
    columns = head.split()
    try:
        wanted = columns.index("insert_failed"), columns.index("drop")
        rows = [line.split() for line in lines if line]
        failed, dropped = (sum(int(row[at], 16) for row in rows) for at in wanted)
    except (ValueError, IndexError):
        return None
    return failed, dropped


def _refused(path: str) -> tuple[int, int] | None:
    text = _text(path)
    return None if text is None else parse_stat(text)


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.strip().isdecimal() else None


def _text(path: str) -> str | None:
    """All of it; None when it is not there, or too long: half a number is another one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = b""
        while len(data) < _MAX_BYTES and (part := os.read(fd, 16 * 1024)):
            data += part
        return data.decode("ascii", "replace") if len(data) < _MAX_BYTES else None
    except OSError:
        return None
    finally:
        os.close(fd)
