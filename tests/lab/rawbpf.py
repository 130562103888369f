"""Loads programs of a few instructions by the bare system call: a stranger's, or an empty one."""

from __future__ import annotations

import ctypes
import struct

from eni53.kernel import bpf

_PROG_LOAD = 5
_SCHED_CLS = 3


class _Load(ctypes.Structure):
    _fields_ = [
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
    ]


def op(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One instruction."""
    return struct.pack("=BBhi", code, source << 4 | target, offset, value)


def load(code: bytes, name: str = "") -> int:
    """Load a classifier of these instructions; its descriptor."""
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(b"GPL")
    return bpf.call(
        _PROG_LOAD,
        _Load(
            prog_type=_SCHED_CLS,
            insn_cnt=len(code) // 8,
            insns=ctypes.addressof(instructions),
            license=ctypes.addressof(license_text),
            prog_name=name.encode(),
        ),
    )


def returning(verdict: int, name: str = "") -> int:
    """A program of two instructions that returns *verdict*; its descriptor."""
    return load(op(0xB7, value=verdict) + op(0x95), name)
