"""Nanoseconds a packet, above an empty program in the same run."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from eni53.kernel import bpf
from eni53.kernel.loader import load
from eni53.kernel.maps import Maps

from tests.kernel import frames

from . import wrapper
from .page import Aim, Section, table

ROUNDS, SLICES = 11, 10
RUNS = 30_000
PATH_RUNS = 20_000  # below the room of the query table, so that nearly all find it empty
DEV, VETH, TAG, VLAN = 1, 4242, 7, 100
RESOLVER, RESOLVER6 = "10.53.0.2", "fd00:ec2::253"
CLIENT, CLIENT6 = "10.53.2.9", "fd53:2::9"
PROGRAMS = ("workload_ingress", "eni_egress", "eni_ingress")
NAME = "checkout-db-primary.prod.svc.example.com"  # 40 octets
_DNS_ID = 14 + 20 + 8  # its offset in an IPv4 frame without options

PACKETS = {
    "DNS query v4": frames.ipv4(
        frames.udp(payload=frames.dns_query(NAME)), frames.UDP, RESOLVER, CLIENT
    ),
    "DNS query v6": frames.ipv6(
        frames.udp(payload=frames.dns_query(NAME)), frames.UDP, RESOLVER6, CLIENT6
    ),
    "DNS answer v4": frames.ipv4(
        frames.udp(40000, 53, frames.dns_answer(NAME)), frames.UDP, CLIENT, RESOLVER
    ),
    "TCP SYN to 53": frames.ipv4(frames.tcp(), frames.TCP, RESOLVER, CLIENT),
    "TCP 443, 1400 B": frames.ipv4(
        frames.tcp(443, payload=bytes(1346)), frames.TCP, "93.184.216.34", CLIENT
    ),
    "UDP 443, 1200 B": frames.ipv4(
        frames.udp(443, payload=bytes(1158)), frames.UDP, "93.184.216.34", CLIENT
    ),
    "ARP": frames.ethernet(bytes(46), 0x0806),
    "DNS query, VLAN tag in the frame": frames.ipv4(
        frames.udp(payload=frames.dns_query(NAME)),
        frames.UDP,
        RESOLVER,
        CLIENT,
        tags=[(frames.VLAN, VLAN)],
    ),
}
BORING = ("TCP 443, 1400 B", "UDP 443, 1200 B", "ARP")

# Best slices above empty / medians, measured elsewhere: kernel 6.18, 2 cores, otherwise idle;
# peers' programs built from their public sources with documented defaults, without user-space.
_PEERS_HEADER = ("program", "DNS query", "DNS answer", "TCP 443", "query + answer")
PEERS = (
    ("NetObserv flows, DNS tracking", "357 / 419", "321 / 402", "177 / 214", "509 / 601"),
    ("Retina packetparser", "503 / 586", "447 / 560", "505 / 621", "475 / 568"),
    ("Retina dns (socket filter)", "657 / 799", "643 / 806", "93 / 112", "-"),
    ("Inspektor Gadget trace_dns (socket filter)", "608 / 721", "620 / 788", "48 / 62", "-"),
    ("Datadog dns filter (selects only)", "42 / 54", "43 / 54", "48 / 54", "-"),
    ("OBI network flows (no DNS)", "275 / 340", "272 / 346", "298 / 359", "290 / 348"),
    ("a minimal counter of port 53", "36 / 46", "2 / 4", "3 / 4", "26 / 29"),
    ("the same with a latency map", "139 / 171", "62 / 81", "0 / 2", "191 / 222"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds above the empty program: of the best slices, and in the median of rounds."""

    best: float
    median: float

    def __str__(self) -> str:
        return f"{self.best:.0f} / {self.median:.0f}"

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.best + other.best, self.median + other.median)


class Times:
    """Slices by what ran, and by round."""

    def __init__(self) -> None:
        self._rounds: defaultdict[str, list[list[float]]] = defaultdict(list)

    def begin_round(self, names: list[str]) -> None:
        """What follows belongs to a new round."""
        for name in names:
            self._rounds[name].append([])

    def add(self, name: str, ns: float) -> None:
        """One slice of *name*."""
        self._rounds[name][-1].append(ns)

    def forget(self) -> None:
        """Nothing so far counts."""
        self._rounds.clear()

    def cost(self, name: str, empty: str) -> Cost:
        """*name* above *empty*."""
        ours, floor = self._rounds[name], self._rounds[empty]
        pairs = zip(ours, floor, strict=True)
        differences = [statistics.fmean(a) - statistics.fmean(b) for a, b in pairs]
        best = min(itertools.chain(*ours)) - min(itertools.chain(*floor))
        return Cost(best, statistics.median(differences))

    def best(self, name: str) -> float:
        """The fastest slice itself."""
        return min(itertools.chain(*self._rounds[name]))


def _context(mark: int = 0, ingress: int = 0) -> bytes:
    words = [0] * 48
    words[2], words[9], words[10] = mark, ingress, DEV
    return struct.pack("=48I", *words)


Slice = Callable[[Times], None]


def _plain(name: str, program: int, frame: bytes, ingress: int) -> Slice:
    context = _context(ingress=ingress)

    def run(times: Times) -> None:
        times.add(name, bpf.test_run(program, frame, RUNS, context)[1])

    return run


def _path(wrapped: dict[str, int]) -> Slice:
    """Queries with ids of their own, forwarded and tagged; then the answer to each of them."""
    ids = itertools.count(0, PATH_RUNS)
    legs = (("query", VETH, "DNS query v4"), ("answer", 0, "DNS answer v4"))

    def run(times: Times) -> None:
        mark = next(ids) & 0x7FFFFFFF
        for suffix in ("", " empty"):
            for leg, ingress, packet in legs:
                context = _context(mark, ingress)
                name = leg + suffix
                times.add(name, bpf.test_run(wrapped[name], PACKETS[packet], PATH_RUNS, context)[1])

    return run


@contextmanager
def _prepared() -> Iterator[tuple[dict[str, Slice], Slice]]:
    """Programs in the state of a node at work, and every slice that there is to run."""
    opened: list[int] = []
    with load() as loaded:
        maps = Maps(loaded)
        maps.set_resolvers([RESOLVER, "169.254.169.253", RESOLVER6])
        maps.free_tags(range(1, 1000))
        for vlan in (0, VLAN):
            maps.add_eni(DEV, vlan)
        maps.add_veth(VETH)
        programs = {**loaded.programs, "empty": wrapper.empty()}
        opened.append(programs["empty"])
        slices = {
            f"{program} {packet}": _plain(f"{program} {packet}", programs[program], frame, 0)
            for program in (*PROGRAMS, "empty")
            for packet, frame in PACKETS.items()
        }
        wrapped = {}
        for leg, program in (("query", "eni_egress"), ("answer", "eni_ingress")):
            for name, target in ((leg, program), (f"{leg} empty", "empty")):
                wrapped[name], jumps = wrapper.vary(programs[target], _DNS_ID, TAG)
                opened += [wrapped[name], jumps]
        try:
            yield slices, _path(wrapped)
        finally:
            for fd in opened:
                os.close(fd)


def measure() -> Times:
    """All slices of all rounds, shuffled, so that the machine's drift falls on all alike."""
    times = Times()
    with _prepared() as (slices, path):
        order = [*slices.values(), path] * SLICES
        names = [*slices, "query", "answer", "query empty", "answer empty"]
        times.begin_round(names)
        for run in (*slices.values(), path):
            run(times)  # warm: origins made, caches filled
        times.forget()
        for _ in range(ROUNDS):
            times.begin_round(names)
            random.shuffle(order)
            for run in order:
                run(times)
    return times


def section() -> Section:
    """The section, measured now."""
    times = measure()
    costs = {
        (program, packet): times.cost(f"{program} {packet}", f"empty {packet}")
        for program in PROGRAMS
        for packet in PACKETS
    }
    query, answer = times.cost("query", "query empty"), times.cost("answer", "answer empty")
    sent = costs["workload_ingress", "DNS query v4"]
    rows = [[f"`{program}`", *(str(costs[program, p]) for p in PACKETS)] for program in PROGRAMS]
    path = [
        ["`workload_ingress`: tag it, count what was sent", str(sent)],
        ["`eni_egress`: forwarded, tagged, an id not seen before", str(query)],
        ["`eni_ingress`: its answer, matched, rcode and latency", str(answer)],
        ["**query of a container, both programs**", str(sent + query)],
        ["**query and answer, all three**", str(sent + query + answer)],
    ]
    peers = [
        ["**eni53 at the ENI** (this run)", str(query), str(answer),
         str(costs["eni_egress", "TCP 443, 1400 B"]), str(query + answer)],
        ["**eni53, veth and ENI** (this run)", str(sent + query), str(answer),
         str(costs["workload_ingress", "TCP 443, 1400 B"] + costs["eni_egress", "TCP 443, 1400 B"]),
         str(sent + query + answer)],
        *([*peer] for peer in PEERS),
    ]  # fmt: skip
    worst = max(costs[p, b].best for p in PROGRAMS for b in BORING)
    return Section(
        title="In the kernel",
        text=(
            "Nanoseconds per packet above an empty program, best slice / median of rounds."
            f" {ROUNDS} rounds of {SLICES} slices of {RUNS:,} runs each, every slice of every"
            " program and packet shuffled within the round; `BPF_PROG_TEST_RUN`."
            f" The empty program itself reads {times.best('empty DNS query v4'):.0f} ns: that is"
            " the harness."
        ),
        header=["program", *PACKETS],
        rows=rows,
        notes=[
            "Here each run sees the same frame, as in peers' figures: to `eni_egress` all but the"
            " first query are retransmissions by a sender on the host. What a container's query"
            " really costs is the next table.",
            "A query with a VLAN tag in the frame is what a trunk's branch ENI sends; no peer"
            " looks into it.",
            "The kernel keeps no query names yet, which the aim of 150 ns includes.",
            "The way of one query of a container, each with an id of its own (a wrapper changes"
            f" the frame; its cost is taken off by the same wrapper before the empty program):\n\n"
            f"{_indent(table(['step', 'ns'], path))}",
            "Beside peers. Theirs were measured **elsewhere** (kernel 6.18, 2 cores, idle, the same"
            " packets and method), without their user-space sides; compare the order of magnitude,"
            " not the digits:\n\n"
            f"{_indent(table(_PEERS_HEADER, peers))}",
        ],
        aims=[
            Aim("a packet that is not DNS, worst program and packet", worst, 5, "ns"),
            Aim("a DNS query at the ENI, new id, attributed", query.best, 150, "ns"),
            Aim("a container's DNS query, veth and ENI together", (sent + query).best, 150, "ns"),
        ],
    )


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
