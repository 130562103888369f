"""Queries that leave by an ENI and answers that come back, and the table in which they wait."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from eni53.kernel import bpf, layout, maps
from eni53.model import EniCounters

from . import frames as f
from .kernel import Kernel

RESOLVER4, RESOLVER6 = "10.0.0.2", "fd00:ec2::253"
CLIENT4, CLIENT6 = "10.77.0.1", "2001:db8:77::1"
FINAL_S = (layout.SPANS - 1) * layout.SPAN_NS / 1e9
"""After this long every query is answered or not."""

_identities = itertools.count(100)
_QUERY = struct.Struct("=QQQII")  # fingerprint, sent_ns, span, dev, vlan


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


def _waiting(kernel: Kernel) -> Iterator[tuple[bytes, list[int]]]:
    table, room = kernel.loaded.maps["queries"], layout.SETTINGS["QUERY_SLOTS"]
    for keys, values in bpf.map_items(table, 4, _QUERY.size, room):
        for (place,), words in zip(
            struct.iter_unpack("=I", keys), _QUERY.iter_unpack(values), strict=True
        ):
            if words[0]:
                yield struct.pack("=I", place), list(words)


def grow_older(kernel: Kernel, seconds: float) -> None:
    """All queries that wait were sent that much earlier."""
    for key, (fingerprint, sent_ns, *rest) in _waiting(kernel):
        value = _QUERY.pack(fingerprint, sent_ns - int(seconds * 1e9), *rest)
        bpf.map_update(kernel.loaded.maps["queries"], key, value)


def disguise(kernel: Kernel) -> None:
    """All queries that wait are now others in the same place: to ask again pushes them out."""
    for key, (fingerprint, *rest) in _waiting(kernel):
        # The place is in the upper half.
        bpf.map_update(kernel.loaded.maps["queries"], key, _QUERY.pack(fingerprint ^ 1, *rest))


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
