"""Clients on other nodes, a cache on this one, and the cache's own queries, as frames."""

from __future__ import annotations

import itertools
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from eni53.kernel import bpf, layout
from eni53.kernel.layout import REMOTE_BIT

from . import frames as f
from .kernel import NEXT, Kernel, context

CACHE4, CACHE6 = "10.0.1.9", "2001:db8::9"
RESOLVER4, RESOLVER6 = "10.0.0.2", "fd00:ec2::253"
IDS = layout.SETTINGS["REMOTE_IDS"]

_ASK = struct.Struct("=QQ16sIHH")  # when first and last, address asked, asker, served, chased
_ZERO = bytes(4)


def client(number: int) -> str:
    """Address of one of many clients."""
    return f"198.18.{number >> 8}.{number & 255}"


def to(
    destination: str, source: str, payload: bytes, port: int = 40000, to_port: int = 53
) -> bytes:
    """A UDP packet of either family."""
    make = f.ipv6 if ":" in destination else f.ipv4
    return make(f.udp(to_port, port, payload), f.UDP, destination, source)


@dataclass
class Asking:
    """A kernel whose ENI a cache sits behind."""

    kernel: Kernel
    _ports: itertools.cycle[int] = field(
        default_factory=lambda: itertools.cycle(range(2000, 60000))
    )

    def forget(self) -> None:
        """Nobody has asked, every id is free, nothing is counted."""
        self.kernel.forget()
        self.forget_asks()
        for number, remote in self.kernel.maps.read().remotes.items():
            self.kernel.maps.forget_remote(remote.address)
            self.kernel.maps.free_remotes([number])

    def free_all(self) -> None:
        """What the agent does at its start."""
        self.kernel.maps.free_remotes(REMOTE_BIT | n for n in range(1, IDS + 1))

    def forget_asks(self) -> None:
        """No question is waited for."""
        table = self.kernel.loaded.maps["asks"]
        for keys, _ in bpf.map_items(table, 8, _ASK.size, layout.SETTINGS["MAX_ASKS"]):
            for at in range(0, len(keys), 8):
                bpf.map_delete(table, bytes(keys[at : at + 8]))

    def grow_older(self, seconds: float, *, last: bool = True) -> None:
        """Every question was asked that much earlier; *last*: and nobody has asked since."""
        past_ns = int(seconds * 1e9)
        table = self.kernel.loaded.maps["asks"]
        room = layout.SETTINGS["MAX_ASKS"]
        for keys, values in bpf.map_items(table, 8, _ASK.size, room):
            for number, (at_ns, last_ns, *rest) in enumerate(_ASK.iter_unpack(values)):
                key = bytes(keys[number * 8 : number * 8 + 8])
                bpf.map_update(table, key, _ASK.pack(at_ns - past_ns, last_ns - past_ns, *rest))
        if last:
            clock = self.kernel.loaded.maps["last_ask"]
            value = bpf.map_lookup(clock, _ZERO, 8) or bytes(8)
            at_ns = int.from_bytes(value, sys.byteorder) - past_ns
            bpf.map_update(clock, _ZERO, at_ns.to_bytes(8, sys.byteorder))

    def ask(self, payload: bytes, remote: str = client(1), cache: str = CACHE4) -> None:
        """A client asks the cache."""
        assert NEXT == self.kernel.run("eni_ingress", to(cache, remote, payload, next(self._ports)))

    def forward(self, payload: bytes, cache: str = CACHE4, resolver: str = "") -> None:
        """The cache asks the resolver."""
        resolver = resolver or (RESOLVER6 if ":" in cache else RESOLVER4)
        assert NEXT == self.kernel.run(
            "eni_egress", to(resolver, cache, payload, next(self._ports))
        )

    def charged(self) -> dict[str, int]:
        """Packets by the client they were sent for; the cache's own stand under the empty name."""
        sample = self.kernel.maps.read()
        found = Counter[str]()
        for key, packets in sample.senders.items():
            found[sample.remotes[key.asker].address if key.asker else ""] += packets
        return dict(found)

    def same(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """For each (asked, forwarded): whether the forwarded one was charged to its own client."""
        result: list[bool] = []
        for start in range(0, len(pairs), IDS):
            batch = pairs[start : start + IDS]
            self.forget()
            programs, place = self.kernel.loaded.programs, context(ifindex=self.kernel.dev)
            for number, (asked, forwarded) in enumerate(batch):
                self.forget_asks()
                frame = to(CACHE4, client(number), asked)
                bpf.test_run(programs["eni_ingress"], frame, context=place)
                frame = to(RESOLVER4, CACHE4, forwarded)
                bpf.test_run(programs["eni_egress"], frame, context=place)
            found = self.charged()
            own = found.pop("", 0)
            flags = [found.pop(client(number), 0) for number in range(len(batch))]
            assert set(flags) <= {0, 1}
            assert ({}, len(batch)) == (found, own + sum(flags)), "charged to somebody else"
            result += map(bool, flags)
        return result
