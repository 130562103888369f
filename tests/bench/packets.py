"""Nanoseconds a packet, above an empty program in the same run."""

from __future__ import annotations

import os

from eni53.kernel.loader import load
from eni53.kernel.maps import Maps

from tests.kernel import frames

from . import slices, wrapper
from .page import Aim, Section, table
from .slices import Cost, Slice, Times
from .ways import CLIENT, CONTAINER, NAMELESS, RESOLVER, RESOLVERS, VLAN, Ways, cost, tables

RUNS = 30_000
RESOLVER6, CLIENT6 = "fd00:ec2::253", "fd53:2::9"
NAME = "checkout-db-reports.prod.svc.example.com"  # 40 octets, and no way's
PROGRAMS = ("workload_ingress", "eni_egress", "eni_ingress", "task_egress", "task_ingress")

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


def _plain(name: str, program: int, frame: bytes, ways: Ways) -> Slice:
    """The same frame again and again."""

    def once(times: Times) -> None:
        ways.nobody_asks()
        times.add(name, slices.run(program, frame, RUNS))

    return once


def measure() -> Times:
    """Every program on every packet, and every way, in the state of a node at work."""
    with load() as loaded:
        maps = Maps(loaded)
        maps.set_resolvers(RESOLVERS)
        maps.free_tags(range(1, 1000))
        empty = wrapper.empty()
        programs = {**{name: loaded.programs[name] for name in PROGRAMS}, "empty": empty}
        ways = Ways(loaded, maps, empty)
        try:
            plain = [
                _plain(f"{name} {packet}", program, frame, ways)
                for name, program in programs.items()
                for packet, frame in PACKETS.items()
            ]
            times = slices.measure([*plain, *ways.slices])
            ways.check()
        finally:
            ways.close()
            os.close(empty)
    return times


def section() -> Section:
    """The section, measured now."""
    times = measure()
    costs = {
        (program, packet): times.cost(f"{program} {packet}", f"empty {packet}")
        for program in PROGRAMS
        for packet in PACKETS
    }
    sent = costs["workload_ingress", "DNS query v4"]
    query, answer = cost(times, CONTAINER, "query"), cost(times, CONTAINER, "answer")
    of_ways = tables(times, sent)
    worst = max(costs[p, b].best for p in PROGRAMS for b in BORING)
    return Section(
        title="In the kernel",
        text=(
            "Nanoseconds per packet above an empty program, best slice / median of rounds."
            f" {slices.ROUNDS} rounds of {slices.SLICES} slices of {RUNS:,} runs each, every slice"
            " of every program and packet shuffled within the round; `BPF_PROG_TEST_RUN`."
            f" The empty program itself reads {times.best('empty DNS query v4'):.0f} ns: that is"
            " the harness. Others on the machine move the medians most."
        ),
        header=["program", *PACKETS],
        rows=[[f"`{program}`", *(str(costs[program, p]) for p in PACKETS)] for program in PROGRAMS],
        notes=[
            "Here each run sees the same frame, as in peers' figures: on the way out all but the"
            " first query are retransmissions by a sender on the host, on the way in a client asks"
            " again for what its first query still waits for. What queries really cost are the next"
            " tables.",
            "A container's query and its answer, each query with an id of its own (a wrapper"
            " changes the frame; its cost is taken off by the same wrapper before the empty"
            f" program):\n\n{_indent(of_ways['steps'])}",
            "By the way it takes, measured likewise. While a client on another node has asked a"
            " cache here within the last 5 s, a query's name is looked up, and is the client's if"
            f" it asked for that name.\n\n{_indent(of_ways['ways'])}",
            "Beside peers. Theirs were measured **elsewhere** (kernel 6.18, 2 cores, idle, the same"
            " packets and method), without their user-space sides; compare the order of magnitude,"
            " not the digits:\n\n"
            f"{_indent(table(_PEERS_HEADER, _beside_peers(costs, sent, query, answer)))}",
        ],
        aims=[
            Aim("a packet that is not DNS, worst program and packet", worst, 5, "ns"),
            Aim("a DNS query at the ENI, new id, attributed, with its name", query.best, 150, "ns"),
            Aim(
                "the same with `[names] enabled = false`",
                cost(times, NAMELESS, "query").best,
                150,
                "ns",
            ),
            Aim("a container's DNS query, veth and ENI together", (sent + query).best, 150, "ns"),
        ],
    )


def _beside_peers(
    costs: dict[tuple[str, str], Cost], sent: Cost, query: Cost, answer: Cost
) -> list[list[str]]:
    at_veth, at_eni = (costs[p, "TCP 443, 1400 B"] for p in ("workload_ingress", "eni_egress"))
    return [
        ["**eni53 at the ENI** (this run)", str(query), str(answer), str(at_eni),
         str(query + answer)],
        ["**eni53, veth and ENI** (this run)", str(sent + query), str(answer),
         str(at_veth + at_eni), str(sent + query + answer)],
        *([*peer] for peer in PEERS),
    ]  # fmt: skip


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())
