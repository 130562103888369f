"""`make demo`: a noisy task takes its neighbours' names away, and eni53 says so beforehand.

A VPC of network namespaces with a real resolver that drops what exceeds 1024 packets a second, a
node with a real dockerd, three ECS tasks, the agent, and a load that climbs. Nothing leaves the
machine, and nothing is left on it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from eni53.snapshot_json import from_json
from eni53.top.once import print_once
from eni53.top.picture import save_svg
from eni53.top.view import ViewState

from .agent import ENI53, Agent
from .containers import Container, ExecProcess
from .lab import Lab
from .load import parse_sent
from .shell import LabError, in_netns
from .stopping import Terminated

RESOLVER = "10.53.0.2"
STEPS = ((200, 3), (500, 3), (700, 4), (890, 4), (1500, 6))
"""Packets a second of the noisy task, and for how long."""

NEIGHBOURS = {"checkout": 40, "search": 25}
"""Packets a second of the tasks that do no harm."""


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """What was seen at one moment of the load.

    Attributes:
        at_s: Seconds since the load began.
        peak_pps: The agent's highest window so far.
        state: The agent's word for it.
        dropped: Packets the resolver's limiter had dropped by then.
    """

    at_s: float
    peak_pps: float
    state: str
    dropped: int


class Watch:
    """Follows the agent and the limiter beside each other while the load runs."""

    def __init__(self, agent: Agent, *, aloud: bool) -> None:
        self._agent = agent
        self._aloud = aloud
        self._begun_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")
        self.moments: list[Moment] = []
        self.worst: dict[str, Any] = {}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def first(self, state: str) -> Moment | None:
        """When the agent first said *state* or worse; None if it never did."""
        order = ("ok", "warning", "critical", "exceeded")
        worse = order[order.index(state) :]
        return next((m for m in self.moments if m.state in worse), None)

    def first_drop(self) -> Moment | None:
        """When the limiter was first seen to have dropped a packet."""
        return next((m for m in self.moments if m.dropped), None)

    def _run(self) -> None:
        while not self._stop.wait(0.25):
            dropped = self._agent.lab.counters()["ens5_drops"]
            snapshot = self._agent.snapshot()
            eni = snapshot["enis"][0]
            moment = Moment(
                time.monotonic() - self._begun_s, eni["peak_pps"], eni["state"], dropped
            )
            before = self.moments[-1] if self.moments else None
            self.moments.append(moment)
            if eni["window_pps"] >= self.worst.get("enis", [{"window_pps": 0}])[0]["window_pps"]:
                self.worst = snapshot
            if self._aloud and (before is None or before.state != moment.state):
                say(
                    f"{moment.at_s:4.1f} s  {moment.state:<8}  peak {moment.peak_pps:4.0f} pps,"
                    f" dropped so far: {moment.dropped}"
                )


def say(line: str) -> None:
    """A line of progress, at once."""
    print(line, file=sys.stderr, flush=True)


def start_load(lab: Lab) -> tuple[list[Container], list[ExecProcess]]:
    """Three tasks; the last process is the noisy one's."""
    seconds = sum(seconds for _, seconds in STEPS)
    tasks = [lab.run_task(family) for family in (*NEIGHBOURS, "batch-import")]
    loads = [
        task.start_send("udp", "--to", RESOLVER, "--steps", f"{pps}:{seconds}")
        for task, pps in zip(tasks, NEIGHBOURS.values(), strict=False)
    ]
    steps = ",".join(f"{pps}:{seconds}" for pps, seconds in STEPS)
    # What a sender that stood still made up for at once would be over the limit before its time.
    words = ("udp", "--to", RESOLVER, "--no-catch-up", "--steps", steps)
    loads.append(tasks[-1].start_send(*words))
    return tasks, loads


def show_live(agent: Agent, noisy: ExecProcess) -> None:
    """The live top on this terminal until the load is over, or the person leaves it."""
    argv = [ENI53, "top", "--runtime-dir", str(agent.runtime_dir)]
    top = subprocess.Popen([*in_netns(agent.lab.node_ns), *argv])
    try:
        while top.poll() is None and noisy.poll() is None:
            time.sleep(0.2)
        time.sleep(1.5 if top.poll() is None else 0)
    finally:
        if top.poll() is None:
            top.terminate()
        top.wait(10)


def show_twice(agent: Agent, noisy: ExecProcess) -> None:
    """Two snapshots: on the way up, and over the limit."""
    on_the_way = sum(seconds for _, seconds in STEPS[:3])
    over = sum(seconds for _, seconds in STEPS[:4]) + 3
    began_s = time.monotonic()
    for moment_s in (on_the_way, over):
        while time.monotonic() - began_s < moment_s and noisy.poll() is None:
            time.sleep(0.1)
        print()
        print_once(from_json(agent.snapshot()), ViewState(), sys.stdout, width=80)
        print(flush=True)
    noisy.communicate()


def counted_all(agent: Agent, within_s: float = 5.0) -> None:
    """Wait for the tick that has the last packets in it; what is missing then is missing."""
    seen = agent.lab.counters()["ens5_ip_udp_resolver"]
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if agent.total("eni53_eni_packets_total", **{"class": "resolver"}) >= seen:
            return
        time.sleep(0.1)


def summary(agent: Agent, watch: Watch, sent: int) -> list[str]:
    """What there was to see, in five lines."""
    counters = agent.lab.counters()
    counted = int(agent.total("eni53_eni_packets_total", **{"class": "resolver"}))
    seen, dropped = counters["ens5_ip_udp_resolver"], counters["ens5_drops"]
    warning, drop = watch.first("warning"), watch.first_drop()
    culprit = watch.worst["enis"][0]["workloads"][0]
    lines = [
        f"sent      {sent} queries by three tasks; nftables in the VPC counted {seen},"
        f" eni53 counted {counted}",
        f"who       {culprit['kind']} {culprit['workload']}: {culprit['pps']:.0f} pps,"
        f" {culprit['share']:.0%} of the ENI's packets",
        f"peak      {max(m.peak_pps for m in watch.moments):.0f} pps in one second, limit 1024",
        f"lost      the resolver's limiter dropped {dropped} packets, without a log line anywhere",
    ]
    if warning is None or drop is None:
        return [*lines, "warned    the load never came near the limit on this machine"]
    return [
        *lines,
        f"warned    {drop.at_s - warning.at_s:.1f} s before the first packet was lost"
        f" (at {warning.peak_pps:.0f} pps, {warning.dropped} dropped by then)",
    ]


def run(picture: Path | None) -> int:
    """The whole demo; its exit code."""
    live = sys.stdout.isatty() and sys.stdin.isatty() and picture is None
    with Lab(limit_pps=1024, progress=lambda line: say(f"lab: {line}")) as lab:
        say("starting the agent and three ECS tasks")
        with Agent(lab) as agent:
            tasks, loads = start_load(lab)
            say(
                f"{len(tasks)} tasks send to the resolver; batch-import climbs to"
                f" {STEPS[-1][0]} packets a second"
            )
            with Watch(agent, aloud=not live) as watch:
                (show_live if live else show_twice)(agent, loads[-1])
                say("waiting for the last answers")
                reports = [load.communicate()[0] for load in loads]
            counted_all(agent)
            lines = summary(agent, watch, sum(parse_sent(r).sent for r in reports))
            if picture is not None:
                save_svg(from_json(watch.worst), picture)
                say(f"drew {picture}")
    print("\n".join(["", *lines]), flush=True)
    return 0


def main() -> int:
    """Parse, run, and turn what can go wrong into one line."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw top as SVG")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("the demo makes network namespaces: run it as root", file=sys.stderr)
        return 2
    try:
        return run(arguments.picture)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
