"""The bpf system call, as far as we need it: maps, tcx links, test runs.

No BPF library is used here: the ones with a Python binding bring LLVM or a compiler along, and the
resident agent has descriptors already. Every function raises `OSError` with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Iterator, Sequence

_SYSCALL_NUMBER = {"x86_64": 321, "aarch64": 280}

_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_PROG_TEST_RUN = 10
_MAP_LOOKUP_BATCH = 24
_MAP_DELETE_BATCH = 27
_LINK_CREATE = 28

TCX_INGRESS = 46
TCX_EGRESS = 47
_LINK_BEFORE_ALL = 8  # BPF_F_BEFORE with nothing to be before: the head of the chain

_CHUNK = 64 * 1024  # of keys and values at a time: more would drive all else out of the caches

_libc = ctypes.CDLL(None, use_errno=True)


class _Element(ctypes.Structure):
    _fields_ = [
        ("map_fd", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _Link(ctypes.Structure):
    _fields_ = [
        ("prog_fd", ctypes.c_uint32),
        ("target_ifindex", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("relative_fd", ctypes.c_uint32),
        ("pad", ctypes.c_uint32),
        ("expected_revision", ctypes.c_uint64),
    ]


class _TestRun(ctypes.Structure):
    _fields_ = [
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
    ]


def call(command: int, attributes: ctypes.Structure) -> int:
    """One bpf system call; its result, a descriptor or a count."""
    number = _SYSCALL_NUMBER.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no bpf system call known for {platform.machine()}")
    result: int = _libc.syscall(
        number, command, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """The value under *key*, or None when the map has none."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    value = ctypes.create_string_buffer(value_size)
    try:
        call(_MAP_LOOKUP_ELEM, _Element(fd, 0, _address(key_buffer), _address(value), 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def map_update(fd: int, key: bytes | None, value: bytes) -> None:
    """Set *key* to *value*; a queue has no keys (None) and gets *value* appended."""
    key_buffer = ctypes.create_string_buffer(key, len(key)) if key is not None else None
    value_buffer = ctypes.create_string_buffer(value, len(value))
    key_address = _address(key_buffer) if key_buffer is not None else 0
    call(_MAP_UPDATE_ELEM, _Element(fd, 0, key_address, _address(value_buffer), 0))


def map_delete(fd: int, key: bytes) -> bool:
    """Remove *key*; False when it was not there."""
    key_buffer = ctypes.create_string_buffer(key, len(key))
    try:
        call(_MAP_DELETE_ELEM, _Element(fd, 0, _address(key_buffer), 0, 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def map_delete_all(fd: int, keys: Sequence[bytes]) -> None:
    """Remove all *keys* of a hash map, in one call; one that is not there is passed over."""
    at = 0
    while at < len(keys):
        rest = b"".join(keys[at:])
        buffer = ctypes.create_string_buffer(rest, len(rest))
        batch = _Batch(keys=_address(buffer), count=len(keys) - at, map_fd=fd)
        try:
            call(_MAP_DELETE_BATCH, batch)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            at += batch.count + 1  # so many were removed, and the next was not there
        else:
            return


def map_items(
    fd: int, key_size: int, value_size: int, max_entries: int
) -> Iterator[tuple[memoryview, memoryview]]:
    """Chunks of (packed keys, packed values) of a hash map, many at a time.

    A key that is there throughout is seen once; one added or removed meanwhile may be missed.
    Batch reads of hash maps are in every kernel from 5.6 on.
    """
    chunk = max(1, min(max_entries, _CHUNK // (key_size + value_size)))
    keys = ctypes.create_string_buffer(chunk * key_size)
    values = ctypes.create_string_buffer(chunk * value_size)
    position = ctypes.create_string_buffer(max(key_size, 8))
    first = True
    while True:
        batch = _Batch(
            in_batch=0 if first else _address(position),
            out_batch=_address(position),
            keys=_address(keys),
            values=_address(values),
            count=chunk,
            map_fd=fd,
        )
        last = False
        try:
            call(_MAP_LOOKUP_BATCH, batch)
        except OSError as error:
            if error.errno == errno.ENOENT:
                last = True
            elif error.errno == errno.ENOSPC and chunk < max_entries:
                # One bucket holds more than a chunk: nothing was read, so ask again for more.
                chunk = min(chunk * 2, max_entries)
                keys = ctypes.create_string_buffer(chunk * key_size)
                values = ctypes.create_string_buffer(chunk * value_size)
                continue
            else:
                raise
        count = batch.count
        yield memoryview(keys)[: count * key_size], memoryview(values)[: count * value_size]
        if last:
            return
        first = False


def link_create(prog_fd: int, ifindex: int, attach_type: int) -> int:
    """Attach at the head of a tcx chain; the link lasts as long as the returned descriptor."""
    return call(_LINK_CREATE, _Link(prog_fd, ifindex, attach_type, _LINK_BEFORE_ALL))


def tcx_supported(prog_fd: int) -> bool:
    """Whether this kernel has tcx: asked with a device that cannot exist, so nothing attaches."""
    try:
        os.close(call(_LINK_CREATE, _Link(prog_fd, 0, TCX_INGRESS, _LINK_BEFORE_ALL)))
    except OSError as error:
        return error.errno == errno.ENODEV
    return True


def test_run(prog_fd: int, frame: bytes, repeat: int = 1, context: bytes = b"") -> tuple[int, int]:
    """Run a program on *frame* without sending it: (return value, mean nanoseconds per run)."""
    data = ctypes.create_string_buffer(frame, len(frame))
    ctx = ctypes.create_string_buffer(context, len(context)) if context else None
    run = _TestRun(
        prog_fd=prog_fd,
        data_size_in=len(frame),
        data_in=_address(data),
        repeat=repeat,
        ctx_size_in=len(context),
        ctx_in=_address(ctx) if ctx is not None else 0,
    )
    call(_PROG_TEST_RUN, run)
    return ctypes.c_int32(run.retval).value, run.duration
