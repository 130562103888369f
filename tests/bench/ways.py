"""The ways of a DNS query and its answer through the programs, each query with an id of its own."""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from eni53.kernel import bpf, layout
from eni53.kernel.loader import Loaded
from eni53.kernel.maps import Maps

from tests.kernel import frames

from . import slices, wrapper
from .page import table
from .slices import Cost, Slice, Times

RUNS = 20_000  # below the room of the query table, so that nearly all find it empty
VETH, TAG, VLAN = 4242, 7, 100
RESOLVER, CLIENT, REMOTE = "10.53.0.2", "10.53.2.9", "10.53.5.7"
RESOLVERS = (RESOLVER, "169.254.169.253", "fd00:ec2::253")
NAME = "checkout-db-primary.prod.svc.example.com"  # 40 octets
ASKED_NAME = "checkout-db-standby.prod.svc.example.com"
_ID_AT = 14 + 20 + 8  # the DNS id's offset in an IPv4 frame without options
_NAME_AT = _ID_AT + 12 + 1
_ZERO = bytes(4)
_NOBODY_ASKED, _OTHER_ASKED, _THIS_ASKED = range(3)


def _query(name: str, destination: str = RESOLVER, source: str = CLIENT) -> bytes:
    payload = frames.udp(payload=frames.dns_query(name))
    return frames.ipv4(payload, frames.UDP, destination, source)


def _answer(name: str) -> bytes:
    return frames.ipv4(frames.udp(40000, 53, frames.dns_answer(name)), frames.UDP, CLIENT, RESOLVER)


@dataclass(frozen=True, slots=True)
class Way:
    """One way of a query out of the node, and of its answer back.

    Attributes:
        what: Its row.
        programs: On the way out, and in.
        forwarded: By a veth, with its tag; else from this host.
        vlan: Tag in the metadata, as a branch ENI's packets have it on their trunk.
        asked: Whether a client on another node has lately asked for this name, another, or none.
        named: Names are counted.
    """

    what: str
    programs: tuple[str, str] = ("eni_egress", "eni_ingress")
    forwarded: bool = True
    vlan: int = 0
    asked: int = _NOBODY_ASKED
    named: bool = True


CONTAINER = Way("a container's")
NAMELESS = Way("a container's, names not counted", named=False)
WAYS = (
    CONTAINER,
    NAMELESS,
    Way("a process's on the host", forwarded=False),
    Way("a branch ENI's on its trunk (VLAN tag in the metadata)", vlan=VLAN),
    Way("in the namespace of an awsvpc task", ("task_egress", "task_ingress"), forwarded=False),
    Way("a container's, while other nodes ask a cache here for other names", asked=_OTHER_ASKED),
    Way("the cache's, for a name that another node has asked it for", asked=_THIS_ASKED),
)
NEW_ASK = "`eni_ingress`: another node asks a cache here, for a name not asked for lately"
SAME_ASK = "`eni_ingress`: the same while the first still waits"


class Ways:
    """Every way, ready to be measured; the programs are held open until `close`.

    Args:
        loaded: The programs.
        maps: Their maps, which this prepares.
        empty: Descriptor of the empty program.
    """

    def __init__(self, loaded: Loaded, maps: Maps, empty: int) -> None:
        self._maps = maps
        self._last_ask = loaded.maps["last_ask"]
        self._programs = {**loaded.programs, "empty": empty}
        self._wrapped: dict[tuple[str, int, int, int], int] = {}
        self._opened: list[int] = []
        self._marks = itertools.count(0, RUNS)
        maps.add_veth(VETH)
        maps.add_eni(slices.DEV, trunk=True)
        maps.add_eni(layout.TASK_DEV)
        maps.free_remotes(layout.REMOTE_BIT | number for number in range(1, 100))

    def close(self) -> None:
        """Let go of the wrappers."""
        for fd in self._opened:
            os.close(fd)

    @property
    def slices(self) -> Iterator[Slice]:
        """One of each way, and one of each kind of asking."""
        for way in WAYS:
            yield self._round_trip(way)
        frame = _query(NAME, CLIENT, REMOTE)
        yield self._asking(NEW_ASK, frame, _NAME_AT)
        yield self._asking(SAME_ASK, frame, _ID_AT)

    def nobody_asks(self) -> None:
        """As on a node without a cache that other nodes use."""
        bpf.map_update(self._last_ask, _ZERO, struct.pack("=Q", 0))

    def _one_asks(self) -> None:
        slices.run(self._programs["eni_ingress"], _query(ASKED_NAME, CLIENT, REMOTE), 1)
        # One whose name is waited for already leaves the clock alone.
        bpf.map_update(self._last_ask, _ZERO, struct.pack("=Q", time.monotonic_ns()))

    def check(self) -> None:
        """What was run has left the traces that it would leave: else the figures are of nothing."""
        sample = self._maps.read()
        senders, remotes = sample.senders, {remote.address for remote in sample.remotes.values()}
        assert REMOTE in remotes, remotes
        for what, there in {
            "asker": any(key.asker for key in senders),
            "branch": any(key.vlan == VLAN and key.origin == TAG for key in senders),
            "task": any(key.dev == layout.TASK_DEV for key in senders),
            "task's answers": any(sample.enis[layout.TASK_DEV, 0].response_buckets),
            "answers": any(sample.enis[slices.DEV, 0].response_buckets),
        }.items():
            assert there, f"no trace of the {what}"

    def _round_trip(self, way: Way) -> Slice:
        name = ASKED_NAME if way.asked == _THIS_ASKED else NAME
        tag, ingress = (TAG, VETH) if way.forwarded else (0, 0)
        legs = (
            ("query", way.programs[0], _query(name), tag, way.vlan, ingress),
            ("answer", way.programs[1], _answer(name), 0, way.vlan, 0),
        )

        def once(times: Times) -> None:
            mark = next(self._marks) & 0x7FFFFFFF
            self.nobody_asks()
            self._maps.set_resolvers(RESOLVERS, names=way.named)
            if way.asked != _NOBODY_ASKED:
                self._one_asks()
            for which, program, frame, tag, vlan, ingress in legs:
                for suffix, target in (("", program), (" empty", "empty")):
                    fd = self._vary(target, _ID_AT, tag, vlan)
                    ns = slices.run(fd, frame, RUNS, mark, ingress)
                    times.add(f"{way.what}, {which}{suffix}", ns)
            self._maps.set_resolvers(RESOLVERS)

        return once

    def _asking(self, what: str, frame: bytes, at: int) -> Slice:
        def once(times: Times) -> None:
            mark = next(self._marks) & 0x7FFFFFFF
            for suffix, target in (("", "eni_ingress"), (" empty", "empty")):
                fd = self._vary(target, at, 0, 0)
                times.add(what + suffix, slices.run(fd, frame, RUNS, mark))

        return once

    def _vary(self, target: str, at: int, tag: int, vlan: int) -> int:
        key = target, at, tag, vlan
        if key not in self._wrapped:
            fds = wrapper.vary(self._programs[target], at, tag=tag, vlan=vlan)
            self._wrapped[key] = fds[0]
            self._opened += fds
        return self._wrapped[key]


def cost(times: Times, way: Way, leg: str) -> Cost:
    """Of the "query" or the "answer"."""
    name = f"{way.what}, {leg}"
    return times.cost(name, f"{name} empty")


def tables(times: Times, sent: Cost) -> Mapping[str, str]:
    """Two tables: the ways, and what a container's query and answer cost altogether.

    Args:
        times: What was measured.
        sent: `workload_ingress` on such a query.
    """
    rows = [
        [way.what, str(cost(times, way, "query")), str(cost(times, way, "answer"))] for way in WAYS
    ]
    asks = [[what, str(times.cost(what, f"{what} empty")), "-"] for what in (NEW_ASK, SAME_ASK)]
    query, answer = cost(times, CONTAINER, "query"), cost(times, CONTAINER, "answer")
    steps = [
        ["`workload_ingress`: tag it, count what was sent", str(sent)],
        ["`eni_egress`: forwarded, tagged, an id not seen before", str(query)],
        ["`eni_ingress`: its answer, matched, rcode and latency", str(answer)],
        ["**query of a container, both programs**", str(sent + query)],
        ["**query and answer, all three**", str(sent + query + answer)],
    ]
    return {
        "ways": table(["a query and its answer at the ENI", "query", "answer"], [*rows, *asks]),
        "steps": table(["step", "ns"], steps),
    }
