"""Small programs that the bench loads by itself: the empty one, and one that varies the packet.

A test run hands a program the same packet again and again. To eni53 the same query again is a
retransmission, the cheap path, and a test run cannot set the tag that a veth's program leaves. So
this wrapper gives every run a new DNS id (or name) and a tag, and then goes on by tail call.
Measured against the same wrapper before the empty program, only the program remains.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from eni53.kernel import bpf

from tests.lab.rawbpf import load, op, returning

_MAP_CREATE = 0
_PROG_ARRAY = 3
_MARK, _TC_INDEX, _DATA, _DATA_END = 8, 44, 76, 80  # offsets in struct __sk_buff
_TAIL_CALL, _VLAN_PUSH, _VLAN_POP = 12, 18, 19
_NEXT = -1


class _MapCreate(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("type", "key", "value", "entries", "flags")]


def empty() -> int:
    """Two instructions: return TC_ACT_UNSPEC. Its descriptor."""
    return returning(_NEXT)


def vary(program: int, at: int, *, tag: int = 0, vlan: int = 0) -> tuple[int, int]:
    """A program that puts the low half of ``skb->mark`` into the frame, sets the tag, goes on.

    The mark rises by one with every run and starts at what the caller's context says. Returned are
    its descriptor and that of its jump table, which is emptied when nobody holds it open.

    Args:
        program: Descriptor of the program to go on to.
        at: Offset of the two bytes in the frame.
        tag: For ``skb->tc_index``.
        vlan: Put this tag into the metadata, as a trunk's branch packets have it; 0 for none.
    """
    table = bpf.call(_MAP_CREATE, _MapCreate(_PROG_ARRAY, 4, 4, 1, 0))
    bpf.map_update(table, struct.pack("=I", 0), struct.pack("=I", program))
    leave = op(0xB7, 0, value=_NEXT) + op(0x95)
    code = (
        op(0xBF, 6, 1)  # r6 = skb
        + (_tagged(vlan) if vlan else b"")
        + op(0x61, 7, 6, _MARK)  # r7 = mark
        + op(0xBF, 2, 7)
        + op(0x07, 2, value=1)
        + op(0x63, 6, 2, _MARK)  # mark = r7 + 1
        + op(0xB7, 2, value=tag)
        + op(0x63, 6, 2, _TC_INDEX)
        + op(0x61, 2, 6, _DATA)
        + op(0x61, 3, 6, _DATA_END)
        + op(0xBF, 4, 2)
        + op(0x07, 4, value=at + 2)
        + op(0x2D, 4, 3, 6)  # beyond the frame: leave
        + op(0x6B, 2, 7, at)
        + op(0xBF, 1, 6)
        + op(0x18, 2, 1, value=table)  # two instructions long
        + op(0)
        + op(0xB7, 3)
        + op(0x85, value=_TAIL_CALL)
        + leave
    )
    return load(code), table


def _tagged(vlan: int) -> bytes:
    """Take the last run's tag off and put a new one on: a second one would go into the frame."""
    return (
        op(0xBF, 1, 6)
        + op(0x85, value=_VLAN_POP)
        + op(0xBF, 1, 6)
        + op(0xB7, 2, value=socket.htons(0x8100))
        + op(0xB7, 3, value=vlan)
        + op(0x85, value=_VLAN_PUSH)
    )
