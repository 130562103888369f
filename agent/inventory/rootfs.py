"""Reads one small file as a process of a container sees it, who may have laid traps there.

In the place of the file may be a link to one of ours, a pipe, a device whose opening does
something, or what never ends. So it is opened without being used first (``O_PATH``), links are
followed within the container's root alone, and only a regular file is read. A file system that
hangs, hangs the calling thread: it must be one that nobody waits for.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator

_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _How(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


class Unsupported(OSError):
    """This kernel has no openat2 (Linux 5.6), or a filter hides it."""


@contextlib.contextmanager
def process(pid: int, container_id: str) -> Iterator[int]:
    """A descriptor of ``/proc/PID`` that never means another process.

    Raises:
        OSError: It is gone, or it is not in the cgroup of *container_id*: its number was given to
            somebody else.
    """
    fd = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if container_id.encode() not in read_below(fd, "cgroup", 64 * 1024):
            raise OSError(errno.ESRCH, "another process has its number")
        yield fd
    finally:
        os.close(fd)


def read_below(directory: int, path: str, limit: int) -> bytes:
    """At most *limit* bytes of a file of procfs, which may be believed.

    Raises:
        OSError: It cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return _read(fd, limit)
    finally:
        os.close(fd)


def read_in_root(process_fd: int, path: str, limit: int) -> bytes:
    """At most *limit* bytes of *path* as the process sees it.

    Args:
        process_fd: From `process`.
        path: Relative to its root.
        limit: Bytes; a file may be longer, or without an end.

    Raises:
        Unsupported: This kernel cannot.
        OSError: It is not there, not a regular file, or not readable.
    """
    root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process_fd)
    try:
        found = _open_in_root(root, path)
    finally:
        os.close(root)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        # The file that was looked at, not whatever has its name by now.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(f"/proc/self/fd/{found}", flags)
    finally:
        os.close(found)
    try:
        return _read(fd, limit)
    finally:
        os.close(fd)


def _read(fd: int, limit: int) -> bytes:
    parts, left = [], limit
    while left and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _open_in_root(root: int, path: str) -> int:
    fd, code = _openat2(root, path)
    if fd >= 0:
        return fd
    if code in {errno.ENOSYS, errno.EPERM}:
        # The container's file system may say so to be left alone, or a filter of system calls: ask
        # for what cannot be refused.
        probe, refused = _openat2(root, "/")
        if probe < 0 and refused == code:
            raise Unsupported(code, os.strerror(code))
        if probe >= 0:
            os.close(probe)
    raise OSError(code, os.strerror(code))


def _openat2(root: int, path: str) -> tuple[int, int]:
    """(descriptor, 0), or (-1, why not)."""
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    fd = _libc.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(root),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return (int(fd), 0) if fd >= 0 else (-1, ctypes.get_errno())
