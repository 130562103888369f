"""A network namespace held open, and a way into it for one thread."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Netns:
    """One network namespace by a descriptor: it cannot become another while this is open.

    Its numbers (inode, the nsid others know it by) are given to the next one as soon as nobody
    holds it. So hold it while you ask for them, and not longer: an ENI in a namespace that is kept
    alive does not come back to the host.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.inode = os.fstat(fd).st_ino

    @classmethod
    def of_process(cls, pid: int) -> Self | None:
        """The one a process is in; None when the process is gone or not ours to look at."""
        try:
            return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    @classmethod
    def own(cls) -> Self:
        """The one this thread is in."""
        return cls(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in it meanwhile; sockets made inside stay in it.

        Raises:
            OSError: Not permitted: it takes CAP_SYS_ADMIN.
        """
        with contextlib.closing(Netns.own()) as before:
            _setns(self.fd)
            try:
                yield
            finally:
                _setns(before.fd)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def _setns(fd: int) -> None:
    # os.setns came with Python 3.12.
    if _libc.setns(fd, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def netns_inode(pid: int, proc: str = "/proc") -> int | None:
    """Identity of a process's network namespace; None when the process is gone."""
    try:
        return Path(proc, str(pid), "ns/net").stat().st_ino
    except OSError:
        return None
