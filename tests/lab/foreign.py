"""Puts somebody else's filter on an interface: a BPF program with a final verdict.

Stands for a network policy agent. Run inside the namespace: ``foreign.py IFACE DIRECTION PRIO
HANDLE [VERDICT]``; verdict 0 is TC_ACT_OK, which ends the chain and wipes ``tc_index``.
"""

from __future__ import annotations

import ctypes
import struct
import sys

from eni53.kernel import bpf
from pyroute2 import IPRoute

NAME = "policy"
_PROG_LOAD = 5
_SCHED_CLS = 3
_PARENTS = {"ingress": "ffff:fff2", "egress": "ffff:fff3"}


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


def load(verdict: int) -> int:
    """A program of two instructions: return *verdict*. Its descriptor."""
    code = struct.pack("=BBhi", 0xB7, 0, 0, verdict) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(b"GPL")
    attributes = _Load(
        prog_type=_SCHED_CLS,
        insn_cnt=2,
        insns=ctypes.addressof(instructions),
        license=ctypes.addressof(license_text),
        prog_name=NAME.encode(),
    )
    return bpf._bpf(_PROG_LOAD, attributes)


def main(interface: str, direction: str, prio: str, handle: str, verdict: str = "0") -> None:
    """Attach it; the filter holds the program once this process has ended."""
    with IPRoute() as ipr:
        index = ipr.link_lookup(ifname=interface)[0]
        qdiscs = [q.get_attr("TCA_KIND") for q in ipr.get_qdiscs(index=index)]
        if "clsact" not in qdiscs:
            ipr.tc("add", "clsact", index)
        ipr.tc(
            "add-filter",
            "bpf",
            index,
            handle=int(handle, 0),
            fd=load(int(verdict)),
            name=NAME,
            parent=_PARENTS[direction],
            prio=int(prio),
            protocol=3,
            direct_action=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
