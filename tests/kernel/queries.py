"""Queries that leave by an ENI and answers that come back, and the table in which they wait."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from eni53.kernel import bpf, layout, maps
from eni53.sample import EniCounters

from . import frames as f
from .kernel import Kernel

RESOLVER4, RESOLVER6 = "10.0.0.2", "fd00:ec2::253"
CLIENT4, CLIENT6 = "10.77.0.1", "2001:db8:77::1"
FINAL_S = (layout.SPANS - 1) * layout.SPAN_NS / 1e9
"""After this long every query is answered or not."""

_identities = itertools.cycle(range(100, 60000))
_QUERY = struct.Struct("=QQQIIQII")  # fingerprint, sent_ns, span, dev, vlan, cached, ...
_SETS, _WAYS = layout.SETTINGS["QUERY_SETS"], layout.SETTINGS["QUERY_WAYS"]
_Query = tuple[int, ...]


def fresh() -> int:
    """A DNS id that nobody has used."""
    return next(_identities)


def ask(
    kernel: Kernel,
    identity: int,
    *,
    resolver: str = RESOLVER4,
    vlan: int = 0,
    program: str = "eni_egress",
) -> None:
    """A query goes out."""
    carried = f.udp(53, 41000, f.dns_query(identity=identity))
    tags = [(f.VLAN, vlan)] if vlan else []
    if ":" in resolver:
        kernel.run(program, f.ipv6(carried, f.UDP, resolver, CLIENT6, tags=tags))
    else:
        kernel.run(program, f.ipv4(carried, f.UDP, resolver, CLIENT4, tags=tags))


def reply(
    kernel: Kernel,
    identity: int,
    *,
    resolver: str = RESOLVER4,
    vlan: int = 0,
    program: str = "eni_ingress",
) -> None:
    """Its answer comes back."""
    carried = f.udp(41000, 53, f.dns_answer(identity=identity))
    tags = [(f.VLAN, vlan)] if vlan else []
    if ":" in resolver:
        kernel.run(program, f.ipv6(carried, f.UDP, CLIENT6, resolver, tags=tags))
    else:
        kernel.run(program, f.ipv4(carried, f.UDP, CLIENT4, resolver, tags=tags))


def _change(kernel: Kernel, change: Callable[[list[_Query]], list[_Query]]) -> None:
    """Put in place of each set's queries, if there are any, what *change* makes of them."""
    table, size = kernel.loaded.maps["queries"], _QUERY.size * _WAYS
    free = (0,) * 8
    for keys, values in bpf.map_items(table, 4, size, _SETS):
        for number in range(len(keys) // 4):
            value = values[number * size : (number + 1) * size]
            waiting = [words for words in _QUERY.iter_unpack(value) if words[0]]
            if not waiting:
                continue
            changed = change(waiting)
            changed += [free] * (_WAYS - len(changed))
            packed = b"".join(_QUERY.pack(*words) for words in changed)
            bpf.map_update(table, bytes(keys[number * 4 : number * 4 + 4]), packed)


def grow_older(kernel: Kernel, seconds: float) -> None:
    """All queries that wait were sent that much earlier."""
    _change(kernel, lambda waiting: [
        (fingerprint, sent_ns - int(seconds * 1e9), *rest)
        for fingerprint, sent_ns, *rest in waiting
    ])  # fmt: skip


def clear(kernel: Kernel) -> None:
    """No query waits."""
    _change(kernel, lambda _: [])


def crowd(kernel: Kernel) -> None:
    """All sets with a query are full of younger ones: to ask for it again pushes it out, for it is
    another query now, of the same set.
    """

    def change(waiting: list[_Query]) -> list[_Query]:
        (fingerprint, sent_ns, *rest), *_ = waiting
        # The set is in the upper half.
        strangers = [(fingerprint ^ (2 + n), sent_ns + n, *(0,) * 6) for n in range(1, _WAYS)]
        return [(fingerprint ^ 1, sent_ns, *rest), *strangers]

    _change(kernel, change)


def counters(kernel: Kernel, vlan: int = 0, *, later_s: float = 0.0) -> EniCounters:
    """What the agent reads of an ENI, as if it looked that many seconds from now."""
    with pytest.MonkeyPatch.context() as patch:
        ahead_ns = int(later_s * 1e9)
        clock = SimpleNamespace(monotonic_ns=lambda: time.monotonic_ns() + ahead_ns)
        patch.setattr(maps, "time", clock)
        return kernel.maps.read().enis[kernel.dev, vlan]


def unanswered(kernel: Kernel, vlan: int = 0, *, later_s: float = FINAL_S) -> int:
    """Queries without an answer, as the agent will know once all of them have had their time."""
    return counters(kernel, vlan, later_s=later_s).unanswered
