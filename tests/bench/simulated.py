"""Nodes that are not there: the /metrics of N agents, by the agent's own renderer.

``python -m tests.bench.simulated WORKLOADS ENIS`` serves them on port 9153 of every loopback
address; the address asked names the node (`address`). Run it in a network namespace of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from eni53.model import (
    BASIS_CLASSES,
    CLASSES,
    UNATTRIBUTED,
    Conntrack,
    Count,
    Eni,
    EniUsage,
    Health,
    Snapshot,
    Workload,
    WorkloadUsage,
)
from eni53.sample import RESPONSE_BOUNDS_S, EniCounters
from eni53.sinks.metrics import render

PORT = 9153
LIMIT_PPS = 1024
HOT_EVERY = 50
"""One node of so many has a workload that brings its ENI over the limit; node 0 is the first."""
LIFETIME_S = 3600.0
"""How long a workload lives before another one takes its place."""
LINGER_S = 300.0
"""How long the agent keeps the series of one that has ended."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a node has."""

    workloads: int = 30
    enis: int = 2


USUAL, FULL = Shape(), Shape(200, 15)


def address(node: int) -> str:
    """Where node number *node* is scraped."""
    return f"127.1.{node // 250}.{1 + node % 250}:{PORT}"


def node_of(host: str) -> int:
    """The number of the node at *host*."""
    _, _, high, low = (int(part) for part in host.split("."))
    return high * 250 + low - 1


def draw(*what: object) -> float:
    """A number from 0 to 1, the same each time for the same *what*."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def workloads_of(node: int, shape: Shape, at_s: float) -> Iterator[tuple[int, Workload, float]]:
    """(place, who, for how many seconds) of all that live or have ended of late."""
    for place in range(shape.workloads):
        aged_s = at_s + draw("phase", node, place) * LIFETIME_S
        generation, lived_s = divmod(aged_s, LIFETIME_S)
        yield place, _workload(node, place, int(generation)), min(lived_s, at_s)
        if lived_s < LINGER_S and at_s > lived_s:
            before_s = min(LIFETIME_S, at_s - lived_s)
            yield place, _workload(node, place, int(generation) - 1), before_s


def _workload(node: int, place: int, generation: int) -> Workload:
    service = int(draw("service", node, place) * 60)
    name = hashlib.blake2b(f"{node} {place} {generation}".encode(), digest_size=16).hexdigest()
    if place % 10 == 9:
        return Workload("host", "", f"service-{place}.service")
    if node % 2:
        return Workload(
            "pod", f"team-{service % 7}", f"service-{service}-{name[:9]}-{name[9:14]}", "app"
        )
    return Workload("ecs_task", "prod", f"service-{service}:42/{name}", "app")


def rates(node: int, place: int) -> dict[str, float]:
    """Packets per second of a workload, by class: many send little, few send much."""
    if place == 0 and node % HOT_EVERY == 0:
        return {"resolver": 1100.0 + node / 1000}
    found = {"resolver": 0.2 + 40 * draw("rate", node, place) ** 8}
    if draw("imds", node, place) < 0.3:
        found["imds"] = 0.02
    if draw("other", node, place) < 0.1:
        found["dns_other"] = 1.0
    return found


def snapshot(node: int, shape: Shape, at_s: float) -> Snapshot:
    """What the agent of *node* would have after *at_s* seconds."""
    rows: list[list[WorkloadUsage]] = [[] for _ in range(shape.enis)]
    for place, workload, lived_s in workloads_of(node, shape, at_s):
        rows[place % shape.enis].append(_usage(workload, rates(node, place), lived_s))
    rows[0].append(_usage(UNATTRIBUTED, {"resolver": 0.05}, at_s))
    enis = tuple(_eni(node, number, tuple(each), at_s) for number, each in enumerate(rows))
    sent = {
        (row.workload, name): count.packets * 2
        for each in rows
        for row in each
        if row.workload.kind not in {"host", "unattributed"}
        for name, count in row.classes.items()
    }
    health = Health(
        errors={("docker", "timeout"): 1},
        sources_up={"containerd": True, "docker": True, "imds": True},
        stats=dict.fromkeys(("fragment", "malformed", "origin_full", "sender_full", "eni_full"), 0),
        map_entries={name: (len(sent), 8192) for name in ("origins", "senders", "sources", "enis")},
        mode="tcx",
    )
    table = Conntrack(9000, 262144, 0, 0)
    return Snapshot(
        f"node-{node}", time.time(), 1.0, enis, sent=sent, health=health, conntrack=table
    )


def _usage(workload: Workload, by_class: dict[str, float], lived_s: float) -> WorkloadUsage:
    counts = {name: Count(int(pps * lived_s), pps) for name, pps in by_class.items()}
    packets = sum(count.packets for count in counts.values())
    return WorkloadUsage(workload, "direct", packets, sum(by_class.values()), 0.0, counts)


def _eni(node: int, number: int, rows: tuple[WorkloadUsage, ...], at_s: float) -> EniUsage:
    classes = {
        name: Count(
            sum(row.classes[name].packets for row in rows if name in row.classes),
            sum(row.classes[name].pps for row in rows if name in row.classes),
        )
        for name in CLASSES
    }
    window = {
        basis: sum(classes[name].pps for name in members if name in classes)
        for basis, members in BASIS_CLASSES.items()
    }
    peak = {basis: pps * (1.1 + 0.3 * draw("peak", node, number)) for basis, pps in window.items()}
    asked = classes["resolver"].packets
    share = (0.3, 0.9, 0.97, 0.99, 1.0)
    steps = [int(asked * part) for part in share]
    buckets = [steps[0], *(b - a for a, b in itertools.pairwise(steps))]
    over = max(0.0, peak["linklocal"] / LIMIT_PPS - 1)
    return EniUsage(
        eni=Eni(
            f"eni-{node:08x}{number:09x}",
            f"02:53:{node >> 8 & 255:02x}:{node & 255:02x}:00:{number:02x}",
            f"ens{5 + number}",
            "host",
            2 + number,
        ),
        limit_pps=LIMIT_PPS,
        basis="linklocal",
        packets=sum(row.packets for row in rows),
        window_pps=window,
        peak_pps=peak,
        utilization=peak["linklocal"] / LIMIT_PPS,
        state="exceeded" if over else "ok",
        classes=classes,
        protocols={
            (name, protocol): int(count.packets * part)
            for name, count in classes.items()
            if count.packets
            for protocol, part in (("udp", 0.9), ("tcp", 0.1))
        },
        workloads=rows,
        over_threshold_s={0.7: at_s if over else 0.0, 0.9: at_s if over else 0.0,
                          1.0: at_s if over else 0.0},
        counters=EniCounters(
            slots=(),
            overflow={},
            responses={0: int(asked * 0.8), 3: int(asked * 0.2)},
            response_buckets=(*buckets, *[0] * (len(RESPONSE_BOUNDS_S) + 1 - len(buckets))),
            response_sum_s=asked * 0.0007,
            unanswered=int(asked * 0.01),
        ),
        cacheable={"resolver": asked * 0.6, "dns_other": 0.0},
        allowances={
            f"{name}_allowance_exceeded": int(over * at_s * 10) if name == "linklocal" else 0
            for name in ("linklocal", "pps", "bw_in", "bw_out", "conntrack")
        },
    )  # fmt: skip


def series(text: bytes) -> int:
    """How many series an exposition has."""
    return sum(bool(line) and not line.startswith(b"#") for line in text.splitlines())


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_INET
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.begun_s = time.monotonic()
        super().__init__(("", PORT), _Handler)

    def handle_error(self, *_: object) -> None:
        """Say nothing: a scraper that ends resets its connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        """The metrics of the node whose address was asked."""
        node = node_of(self.connection.getsockname()[0])
        # As if it had run for a while before.
        at_s = 1000.0 + time.monotonic() - self.server.begun_s
        body = render(lambda: snapshot(node, self.server.shape, at_s))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # a scrape that gave up
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    _Server(Shape(int(sys.argv[1]), int(sys.argv[2]))).serve_forever()
