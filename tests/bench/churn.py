"""``python -m tests.bench.churn [--count 1000]``: what stays of containers that come and go.

Each asks 20 times as its first act and is gone a tenth of a second later. Says how many a second
this machine starts, how many packets were charged to the right task, and what the agent and the
kernel hold before, right after, and once the series of all have ended. Exit 1 when anything stays,
or less than 99 % is right. Needs root.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.lab import brief, vpc
from tests.lab.agent import Agent
from tests.lab.audit import Audit, Row
from tests.lab.lab import Lab
from tests.lab.shell import LabError
from tests.lab.stopping import Terminated

from .page import table
from .process import memory

EACH, BATCH, WARM = 20, 50, 30
ENDED_S = 330.0  # five minutes without a packet, and a few ticks
QUIET_S = 90.0
ROOM_MIB = 9.0  # what an allocator keeps, and names of containers that have ended
POOL = min(32, (os.cpu_count() or 1) + 4)  # asyncio's threads for blocking calls stay once started
MAPS = ("origins", "senders", "sources", "enis", "remotes")


@dataclass(frozen=True, slots=True)
class Level:
    """What is held at one moment.

    Attributes:
        links: Attachments, as the kernel's own objects behind descriptors.
        maps: Entries by map.
        series: Lines of a scrape.
    """

    fds: int
    links: int
    threads: int
    rss_mib: float
    maps: dict[str, int]
    series: int

    @property
    def cells(self) -> list[str]:
        """As cells of a row."""
        counts = (self.fds, self.links, self.threads)
        held = (self.maps.get(name, 0) for name in MAPS)
        return [*map(str, counts), f"{self.rss_mib:.1f}", *map(str, held), str(self.series)]

    def above(self, before: Level) -> list[str]:
        """What is more than it was."""
        pairs = {
            "descriptors": (self.fds, before.fds),
            "links": (self.links, before.links),
            "threads": (self.threads, before.threads + POOL),
            **{name: (self.maps.get(name, 0), before.maps.get(name, 0)) for name in MAPS},
        }
        found = [f"{what} {was} → {now}" for what, (now, was) in pairs.items() if now > was]
        if self.rss_mib > before.rss_mib + ROOM_MIB:
            found.append(f"RSS {before.rss_mib:.1f} → {self.rss_mib:.1f} MiB")
        return found


def level(agent: Agent) -> Level:
    """Of the agent, now."""
    assert agent.process is not None
    proc = Path("/proc") / str(agent.process.pid)
    fds = [fd.readlink() for fd in (proc / "fd").iterdir() if fd.is_symlink()]
    samples = list(agent.metrics())
    return Level(
        fds=len(fds),
        links=sum("bpf_link" in str(fd) for fd in fds),
        threads=len(list((proc / "task").iterdir())),
        rss_mib=memory(agent.process.pid).rss,
        maps={
            labels["map"]: int(value)
            for name, labels, value in samples
            if name == "eni53_agent_map_entries"
        },
        series=len(samples),
    )


@dataclass(slots=True)
class Tally:
    """What has been charged so far.

    Attributes:
        wrong: Packets charged to a named workload that did not send them.
    """

    packets: int = 0
    right: int = 0
    wrong: int = 0
    seconds: float = 0.0
    containers: int = 0

    def add(self, lab: Lab, agent: Agent, count: int, threads: int) -> None:
        """Run *count* containers, and see whom they were charged to.

        Raises:
            AssertionError: The agent's sum is not nftables'.
        """
        words = ("udp", "--to", vpc.RESOLVER, "--count", str(EACH), "--warm", "0.01")
        words += (
            "--settle",
            "5",
        )  # an answer to one that is gone makes an ICMP error, one more packet
        audit = Audit(lab, agent)
        begin = time.monotonic()
        with ThreadPoolExecutor(threads) as pool:
            ids = list(pool.map(lambda _: brief.run(lab, "churn", *words), range(count)))
        self.seconds += time.monotonic() - begin
        found = audit.charged(timeout=60)
        rows: list[Row] = [("ecs_task", "prod", f"churn:1/{task_id}", "app") for task_id in ids]
        self.containers += count
        self.packets += sum(found.values())
        self.right += sum(min(found.get(row, 0), EACH) for row in rows)
        self.wrong += sum(max(found.get(row, 0) - EACH, 0) for row in rows)
        self.wrong += sum(
            packets
            for row, packets in found.items()
            if row not in rows and row[0] not in {"container", "unattributed"}
        )


def quiet(agent: Agent) -> Level:
    """The level once the kernel holds nothing of containers that are gone, if that comes."""
    deadline = time.monotonic() + QUIET_S
    while True:
        now = level(agent)
        if not now.maps.get("origins", 0) or time.monotonic() > deadline:
            return now
        time.sleep(1)


def measure(count: int, threads: int, *, ended: bool) -> int:
    """Run it, print it; the exit code."""
    begin = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begin:5.0f} s  {what}", file=sys.stderr, flush=True)

    room = {"ENI53_METRICS_MAX_WORKLOADS": str(count + WARM + 100)}
    with Lab(limit_pps=None) as lab, Agent(lab, env=room) as agent:
        say("warm")
        Tally().add(lab, agent, WARM, threads)
        levels = {"before": quiet(agent)}
        tally = Tally()
        while tally.containers < count:
            tally.add(lab, agent, min(BATCH, count - tally.containers), threads)
            say(f"{tally.containers} containers, {tally.right} of {tally.packets} packets right")
        levels["right after"] = quiet(agent)
        if ended:
            say("until their series end")
            time.sleep(ENDED_S)
            levels["series ended"] = level(agent)
        errors = {
            tuple(labels.values()): value
            for name, labels, value in agent.metrics()
            if name == "eni53_agent_errors_total"
        }
        clean_log = "Traceback" not in agent.log.read_text()
    header = ["", "fds", "links", "threads", "RSS MiB", *MAPS, "series"]
    print(table(header, [[name, *each.cells] for name, each in levels.items()]))
    share = tally.right / tally.packets
    print(
        f"\n{tally.containers} containers, {tally.containers / tally.seconds:.1f} a second by"
        f" {threads} clients at once; {tally.packets} packets by nftables and the agent alike,"
        f" {share:.2%} on the right task, {tally.wrong} on a wrong one; errors: {errors or 'none'}."
    )
    stayed = list(levels.values())[-1].above(levels["before"])
    if not clean_log:
        stayed.append("a traceback in the log")
    print("Nothing stays." if not stayed else f"Stays: {'; '.join(stayed)}.")
    good = tally.packets == count * EACH and share >= 0.99 and not tally.wrong and not stayed
    return 0 if good else 1


def main(argv: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.churn", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=8, help="docker clients at once")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for series to end")
    args = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("the lab makes network namespaces: run it as root", file=sys.stderr)
        return 2
    try:
        return measure(args.count, args.threads, ended=not args.no_wait)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
