"""The agent as a process in the lab, with two hundred small workloads: memory, processor, start."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import network, remains, vpc
from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.shell import LabError

from . import process, starts
from .crowd import Member
from .page import Aim, Section
from .process import Cpu, Memory, Start, memory
from .runtime import Runtime

WORKLOADS, ENIS, RATE = 200, 15, 1000
FIRST_ADDRESS = 20  # the lab's own workloads have the numbers before
STARTS, CROWDED_STARTS = 5, 4
IDLE_S, WARM_S, CPU_S = 5.0, 8.0, 30.0

Say = Callable[[str], None]


def eni_flags(lab: Lab) -> list[str]:
    """Every ENI by name, for by itself an agent finds those of AWS's drivers."""
    return [word for eni in lab.enis for word in ("--eni", eni.interface)]


def pid_of(agent: Agent) -> int:
    """Of one that runs."""
    assert agent.process is not None
    return agent.process.pid


class Node:
    """The lab with its many ENIs, and agents that see the bench's runtime."""

    def __init__(self, lab: Lab, socket_path: Path) -> None:
        self.lab = lab
        self._flags = [*eni_flags(lab), "--docker-socket", str(socket_path)]

    def agent(self) -> Agent:
        """One that is not started yet."""
        return Agent(self.lab, *self._flags, docker=False)

    def starts(self, count: int) -> list[Start]:
        """That many, one after the other."""
        return [starts.watch(self.agent()) for _ in range(count)]

    def quiet_starts(self, count: int) -> list[Start]:
        """The same on a node without workloads; a process of the node's sends."""
        words = ("--to", vpc.RESOLVER, "--rate", "200", "--count", "1000000")
        sender = self.lab.start_send("udp", *words)
        try:
            return self.starts(count)
        finally:
            sender.terminate()
            sender.wait(20)

    @contextmanager
    def crowd(self) -> Iterator[tuple[list[Member], Callable[[], None]]]:
        """Two hundred workloads, and how to let them send."""
        cgroup = f"/eni53-bench-{self.lab.id}"
        remains.note_cgroup(self.lab.id, cgroup)
        routes = []
        for number in range(FIRST_ADDRESS, FIRST_ADDRESS + WORKLOADS):
            eni = self.lab.enis[number % ENIS]
            if eni.table is not None:
                routes.append(f"route add 10.53.2.{number} via {eni.ipv4}")
        network.batch(self.lab.vpc_ns, routes)
        tables = ",".join(str(eni.table or 0) for eni in self.lab.enis)
        numbers = (WORKLOADS, FIRST_ADDRESS, tables, cgroup, RATE)
        argv = [sys.executable, "-m", "tests.bench.crowd", *map(str, numbers)]
        process = self.lab.node_popen(argv)
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        if not line:
            raise LabError(f"no crowd: {process.stderr.read()}")
        try:
            members = [Member(**each) for each in json.loads(line)]
            yield members, lambda: os.kill(process.pid, signal.SIGUSR1)
        finally:
            process.terminate()
            process.wait(20)


@dataclass(slots=True)
class Seen:
    """What came out of the lab."""

    idle: Memory
    crowded: Memory
    settled: Memory
    restarted: Memory
    kernel_mib: float
    maps: int
    threads: int
    descriptors: int
    metrics_bytes: int
    idle_cpu: Cpu
    busy_cpu: Cpu
    scraped_cpu: Cpu
    starts: list[Start]
    crowded_starts: list[Start]
    workloads: int
    enis: int
    pps: float


def measure(say: Say) -> Seen:
    """Memory, processor time and starts, in one lab."""
    with (
        Lab(enis=ENIS, docker=False, limit_pps=None) as lab,
        Runtime(lab.directory / "runtime.sock") as runtime,
    ):
        node = Node(lab, lab.directory / "runtime.sock")
        say("starts")
        quiet_starts = node.quiet_starts(STARTS)
        with node.agent() as agent:
            pid = pid_of(agent)
            time.sleep(IDLE_S)
            idle = memory(pid)
            say("idle")
            idle_cpu = process.cpu(pid, CPU_S / 3)
            say(f"{WORKLOADS} workloads")
            with node.crowd() as (members, send):
                runtime.start(members)
                send()
                time.sleep(WARM_S)  # until all names are known, and all maps warm
                crowded = memory(pid)
                before = agent.snapshot()
                busy_cpu = process.cpu(pid, CPU_S)
                after = agent.snapshot()
                scraped_cpu = process.cpu(pid, CPU_S, lambda: agent.get("/metrics"))
                settled = memory(pid)
                threads, descriptors = process.threads(pid), process.descriptors(pid)
                kernel_mib, maps = process.kernel_memory(pid)
                agent.stop()
                say("starts, crowded")
                crowded_starts = node.starts(CROWDED_STARTS)
                with node.agent() as second:
                    time.sleep(WARM_S)
                    metrics_bytes = len(second.get("/metrics"))
                    time.sleep(1)
                    restarted = memory(pid_of(second))
    packets = [sum(eni["packets"] for eni in each["enis"]) for each in (before, after)]
    named = {
        row["workload"]
        for eni in after["enis"]
        for row in eni["workloads"]
        if row["kind"] == "ecs_task"
    }
    return Seen(
        idle, crowded, settled, restarted, kernel_mib, maps, threads, descriptors, metrics_bytes,
        idle_cpu, busy_cpu, scraped_cpu, quiet_starts, crowded_starts, len(named),
        len(after["enis"]), (packets[1] - packets[0]) / busy_cpu.seconds,
    )  # fmt: skip


def sections(say: Say) -> list[Section]:
    """Memory, processor time, start."""
    seen = measure(say)
    what = (
        f"{seen.workloads} named tasks on {seen.enis} ENIs, each a namespace, a veth and a cgroup"
        f" of its own, together {seen.pps:.0f} packets/s to the resolver, which answers"
    )
    return [_memory(seen, what), _processor(seen, what), _start(seen)]


def _memory(seen: Seen, what: str) -> Section:
    return Section(
        title="Memory",
        text=f"The agent's process in the lab, MiB. Busy: {what}.",
        header=["state", "RSS", "PSS", "private", "highest RSS"],
        rows=[
            ["idle, no workloads", *seen.idle.cells],
            ["busy, the workloads came after the agent", *seen.crowded.cells],
            ["the same a minute later, scraped", *seen.settled.cells],
            ["busy, the agent came after the workloads, scraped", *seen.restarted.cells],
        ],
        notes=[
            f"Busy it has {seen.threads} threads and {seen.descriptors} descriptors (with tcx one"
            f" for each program on each interface), and `/metrics` is"
            f" {seen.metrics_bytes / 1024:.0f} KiB.",
            f"The kernel's maps take {seen.kernel_mib:.1f} MiB besides ({seen.maps} maps, as"
            " `/proc/PID/fdinfo` tells); most of it is allocated when it is first needed.",
            "PSS is lower for what other processes of the machine have mapped as well: Python,"
            " libc, OpenSSL.",
        ],
        aims=[
            Aim("resident memory, the workloads came later", seen.settled.rss, 48, "MiB"),
            Aim("resident memory, the agent came later", seen.restarted.rss, 48, "MiB"),
        ],
    )


def _processor(seen: Seen, what: str) -> Section:
    return Section(
        title="Processor",
        text=f"User and system time of the agent's process, % of one core, 1 Hz. Busy: {what}.",
        header=["state", "% of a core", "seconds watched"],
        rows=[
            ["idle", *seen.idle_cpu.cells],
            ["busy", *seen.busy_cpu.cells],
            ["busy, `/metrics` every 15 s", *seen.scraped_cpu.cells],
        ],
        notes=[
            "Busy means busier than the aim of 200 workloads asks: all of them send all the"
            " time, so each tick changes every row.",
            "Whoever shares the processor and its caches makes the same work take longer: with"
            " others at work on the machine the figures are up to twice as high.",
        ],
        aims=[
            Aim("processor at 1 Hz, busy", seen.busy_cpu.percent, 1, "% of a core"),
            Aim("the same, scraped", seen.scraped_cpu.percent, 1, "% of a core"),
        ],
    )


def _start(seen: Seen) -> Section:
    best = starts.first_count(seen.starts)
    crowded = starts.first_count(seen.crowded_starts)
    return Section(
        title="Start",
        text=(
            "Seconds from the command to the first packet counted (an entry in the kernel's map),"
            " and to the first snapshot (`agent.json` and `/readyz`): interpreter, compiler, load,"
            " attachment to all interfaces, containers listed. Processor time is what the agent and"
            " its compiler took until then; the clock also counts what others on the machine take."
        ),
        header=["node", *starts.HEADER],
        rows=[
            [f"{ENIS} ENIs, no workloads", *starts.cells(seen.starts)],
            [f"{ENIS} ENIs, {WORKLOADS} workloads", *starts.cells(seen.crowded_starts)],
        ],
        notes=[
            "With tcx the kernel waits for an RCU grace period at every attachment, about 12 ms"
            " here, so 200 veths take seconds whoever attaches to them. For half a second veths"
            " come first, for what passes an ENI before its veth has our program carries no tag;"
            " then the ENIs, so that counting does not wait for all.",
            "The metadata service is asked meanwhile, for every ENI one after the other, and"
            " attachment waits for its answer.",
        ],
        aims=[
            Aim("first count after the start, no workloads", best, 1.5, "s"),
            Aim(f"the same with {WORKLOADS} workloads", crowded, 1.5, "s"),
        ],
    )
