"""Somebody else's program on interfaces of the node, which counts by the tag it finds on a packet.

Stands for a network policy agent (a final verdict, priority 1, handle 1), for Cilium (marks of its
own in ``tc_index``, and a redirection past routing and netfilter), and for a witness of our tags.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from eni53.kernel import bpf
from pyroute2 import IPRoute

from .lab import Lab
from .rawbpf import load, op

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
OK, NEXT = 0, -1
_MAP_CREATE, _ARRAY = 0, 2
_TAGS = 1 << 16
_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_ALL = 3
# Offsets in struct __sk_buff, and a protocol as it is there.
_PROTOCOL, _TC_INDEX, _IPV4 = 16, 44, struct.unpack("=H", b"\x08\x00")[0]
_LOOKUP, _REDIRECT_NEIGH = 1, 152


class _Map(ctypes.Structure):
    _fields_ = [
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    ]


class Stranger:
    """A program that can be put on several interfaces; those keep it when this is closed.

    Args:
        lab: Whose node.
        verdict: What it returns; OK ends the chain and wipes the tag, NEXT does neither.
        tc_index: What it writes there first; None leaves it alone.
        redirect: An interface that IPv4 packets leave by at once; None: they take their way.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        verdict: int = OK,
        tc_index: int | None = None,
        redirect: str | None = None,
        name: str = "policy",
    ) -> None:
        self._netns = lab.node_ns
        self._name = name
        self._counts = bpf.call(_MAP_CREATE, _Map(_ARRAY, 4, 8, _TAGS))
        to = None
        if redirect is not None:
            to = self._on_node(lambda ipr: _index(ipr, redirect))
        self._program = load(_code(self._counts, verdict, tc_index, to), name)

    def __enter__(self) -> Self:
        """Keep it for a while."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of it; filters stay."""
        os.close(self._program)
        os.close(self._counts)

    def attach(
        self, interface: str, direction: str = "ingress", *, prio: int = 1, handle: int = 1
    ) -> None:
        """Put it on *interface*, with the qdisc it needs; one of that handle is replaced."""

        def work(ipr: Any) -> None:
            index = _index(ipr, interface)
            if "clsact" not in [q.get_attr("TCA_KIND") for q in ipr.get_qdiscs(index=index)]:
                ipr.tc("add", "clsact", index)
            ipr.tc(
                "replace-filter",
                "bpf",
                index,
                handle=handle,
                fd=self._program,
                name=self._name,
                parent=_PARENTS[direction],
                prio=prio,
                protocol=_ALL,
                direct_action=True,
            )

        self._on_node(work)

    def detach(
        self, interface: str, direction: str = "ingress", *, prio: int = 1, handle: int = 1
    ) -> None:
        """Take the filter of that handle off."""
        self._on_node(
            lambda ipr: ipr.tc(
                "del-filter",
                "bpf",
                _index(ipr, interface),
                handle=handle,
                parent=_PARENTS[direction],
                prio=prio,
                protocol=_ALL,
            )
        )

    def seen(self) -> dict[int, int]:
        """IPv4 packets that it has run for, by the ``tc_index`` they came with."""
        found = {}
        for keys, values in bpf.map_items(self._counts, 4, 8, _TAGS):
            numbers, counts = keys.cast("B").cast("I"), values.cast("B").cast("Q")
            found |= {n: c for n, c in zip(numbers, counts, strict=True) if c}
        return found

    def _on_node(self, work: Callable[[Any], _T]) -> _T:
        """Do *work* with netlink of the node, in a thread that has gone there."""

        def there() -> _T:
            node = os.open(f"/run/netns/{self._netns}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(node, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns to {self._netns}")
            finally:
                os.close(node)
            with IPRoute() as ipr:
                return work(ipr)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(there).result()


def _index(ipr: Any, interface: str) -> int:
    return int(ipr.link_lookup(ifname=interface)[0])


def _code(counts: int, verdict: int, tc_index: int | None, redirect: int | None) -> bytes:
    """counts[skb->tc_index] += 1, then the rest as it is asked for; of IPv4 packets alone."""
    body = [
        op(0xBF, target=6, source=1),  # r6 = skb
        op(0x61, target=1, source=6, offset=_TC_INDEX),
        op(0x63, target=10, source=1, offset=-4),
        op(0xBF, target=2, source=10),
        op(0x07, target=2, value=-4),
        op(0x18, target=1, source=1, value=counts),  # r1 = the map, in two
        op(0),
        op(0x85, value=_LOOKUP),
        op(0x15, target=0, offset=2, value=0),  # if r0 == 0, over the next two
        op(0xB7, target=1, value=1),
        op(0xDB, target=0, source=1),  # *r0 += r1, at once
    ]
    if tc_index is not None:
        body.append(op(0xB7, target=1, value=tc_index))
        body.append(op(0x63, target=6, source=1, offset=_TC_INDEX))
    if redirect is not None:
        body.append(op(0xB7, target=1, value=redirect))
        body += [op(0xB7, target=register) for register in (2, 3, 4)]
        body.append(op(0x85, value=_REDIRECT_NEIGH))
        body.append(op(0x95))
    begin = [
        op(0x61, target=2, source=1, offset=_PROTOCOL),
        op(0x55, target=2, offset=len(body), value=_IPV4),  # if it is not IPv4, to the end
    ]
    return b"".join([*begin, *body, op(0xB7, value=verdict), op(0x95)])
