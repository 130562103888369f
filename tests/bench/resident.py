"""The agent as a process in the lab: memory, processor time, start, and what senders notice."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import network, remains, vpc
from tests.lab.agent import ENI53, Agent
from tests.lab.lab import Lab
from tests.lab.load import parse_sent
from tests.lab.workloads import Workload

from .crowd import Member
from .page import Aim, Section
from .runtime import Runtime

WORKLOADS, ENIS, RATE = 200, 15, 1000
FIRST_ADDRESS = 20  # the lab's own workloads have the numbers before
STARTS, CROWDED_STARTS = 5, 3
IDLE_S, WARM_S, CPU_S, SCRAPE_EVERY_S = 5.0, 8.0, 30.0, 15.0
FLOOD, FLOODS = 100_000, 4
_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1024.0  # in KiB

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Memory:
    """Mebibytes of one process; ``peak`` is the highest RSS of its life."""

    rss: float
    pss: float
    private: float
    peak: float

    @property
    def cells(self) -> list[str]:
        """As cells of a row."""
        return [f"{each:.1f}" for each in (self.rss, self.pss, self.private, self.peak)]


def memory(pid: int) -> Memory:
    """Of the process *pid*, now."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.M)}
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return Memory(
        kib["Rss"] / _MIB, kib["Pss"] / _MIB, private / _MIB, int(peak[1] if peak else 0) / _MIB
    )


def cpu_s(pid: int) -> float:
    """User and system time of all threads of *pid* so far, ended ones included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class Cpu:
    """A part of one core, over some seconds."""

    percent: float
    seconds: float


def cpu(pid: int, seconds: float, meanwhile: Callable[[], object] | None = None) -> Cpu:
    """Watch *pid* for *seconds*; every 15 s of it *meanwhile* is done."""
    used, begin = cpu_s(pid), time.monotonic()
    done = 0
    while (gone := time.monotonic() - begin) < seconds:
        if meanwhile is not None and gone >= done * SCRAPE_EVERY_S:
            meanwhile()
            done += 1
        time.sleep(0.1)
    return Cpu((cpu_s(pid) - used) / gone * 100, gone)


class Node:
    """The lab with its many ENIs, and agents that see the bench's runtime."""

    def __init__(self, lab: Lab, runtime: Runtime, socket_path: Path) -> None:
        self.lab = lab
        self.runtime = runtime
        flags = [word for eni in lab.enis for word in ("--eni", eni.interface)]
        self._flags = [*flags, "--docker-socket", str(socket_path)]

    def agent(self) -> Agent:
        """One that is not started yet."""
        return Agent(self.lab, *self._flags, docker=False)

    def start_s(self) -> float:
        """Seconds from the command to the first snapshot; the agent is stopped again."""
        agent = self.agent()
        ready = agent.runtime_dir / "agent.json"
        begin = time.monotonic()
        argv = [ENI53, "agent", *agent._flags, *self._flags]
        process = self.lab.node_popen(argv, log=agent.log)
        while not ready.exists():
            if process.poll() is not None or time.monotonic() - begin > 30:
                raise RuntimeError(f"the agent did not start:\n{agent.log.read_text()}")
            time.sleep(0.002)
        seconds = time.monotonic() - begin
        process.terminate()
        process.wait(20)
        return seconds

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
            raise RuntimeError(f"no crowd: {process.stderr.read()}")
        try:
            members = [Member(**each) for each in json.loads(line)]
            yield members, lambda: os.kill(process.pid, signal.SIGUSR1)
        finally:
            process.terminate()
            process.wait(20)


def _kernel_memory(pid: int) -> tuple[float, int]:
    """(MiB, number) of the maps that *pid* holds."""
    total = count = 0
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            text = entry.read_text()
            found = re.search(r"^memlock:\s+(\d+)", text, re.M)
            if found and "map_type" in text:
                total, count = total + int(found[1]), count + 1
    return total / 1024 / 1024, count


@dataclass(slots=True)
class Seen:
    """What came out of the lab."""

    idle: Memory
    crowded: Memory
    settled: Memory
    restarted: Memory
    kernel_mib: float
    maps: int
    idle_cpu: Cpu
    busy_cpu: Cpu
    scraped_cpu: Cpu
    starts_s: list[float]
    crowded_starts_s: list[float]
    workloads: int
    enis: int
    pps: float


def _pid(agent: Agent) -> int:
    assert agent.process is not None
    return agent.process.pid


def measure(say: Say) -> Seen:
    """Memory, processor time and starts, in one lab."""
    with (
        Lab(enis=ENIS, docker=False, limit_pps=None) as lab,
        Runtime(lab.directory / "runtime.sock") as runtime,
    ):
        node = Node(lab, runtime, lab.directory / "runtime.sock")
        say("starts")
        starts_s = [node.start_s() for _ in range(STARTS)]
        with node.agent() as agent:
            pid = _pid(agent)
            time.sleep(IDLE_S)
            idle = memory(pid)
            say("idle")
            idle_cpu = cpu(pid, CPU_S / 3)
            say(f"{WORKLOADS} workloads")
            with node.crowd() as (members, send):
                runtime.start(members)
                send()
                time.sleep(WARM_S)  # until all names are known, and all maps warm
                crowded = memory(pid)
                before = agent.snapshot()
                busy_cpu = cpu(pid, CPU_S)
                after = agent.snapshot()
                scraped_cpu = cpu(pid, CPU_S, lambda: agent.get("/metrics"))
                settled = memory(pid)
                kernel_mib, maps = _kernel_memory(pid)
                agent.stop()
                say("starts, crowded")
                crowded_starts_s = [node.start_s() for _ in range(CROWDED_STARTS)]
                with node.agent() as second:
                    time.sleep(WARM_S)
                    second.get("/metrics")
                    time.sleep(1)
                    restarted = memory(_pid(second))
    packets = [sum(eni["packets"] for eni in each["enis"]) for each in (before, after)]
    named = {
        row["workload"]
        for eni in after["enis"]
        for row in eni["workloads"]
        if row["kind"] == "ecs_task"
    }
    return Seen(
        idle, crowded, settled, restarted, kernel_mib, maps, idle_cpu, busy_cpu, scraped_cpu,
        starts_s, crowded_starts_s, len(named), len(after["enis"]),
        (packets[1] - packets[0]) / busy_cpu.seconds,
    )  # fmt: skip


def sections(say: Say) -> list[Section]:
    """Memory, processor time, start."""
    seen = measure(say)
    what = (
        f"{seen.workloads} named tasks on {seen.enis} ENIs, each a namespace, a veth and a cgroup"
        f" of its own, together {seen.pps:.0f} packets/s to the resolver, which answers"
    )
    starts = statistics.median(seen.starts_s)
    crowded_starts = statistics.median(seen.crowded_starts_s)
    return [
        Section(
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
                f"The kernel's maps take {seen.kernel_mib:.1f} MiB besides ({seen.maps} maps, as"
                " `/proc/PID/fdinfo` tells); most of it is allocated when it is first needed.",
                "Compiling happens in a process of its own, which holds 110 to 130 MiB for the"
                " second it lives.",
            ],
            aims=[
                Aim("resident memory, the workloads came later", seen.settled.rss, 48, "MiB"),
                Aim("resident memory, the agent came later", seen.restarted.rss, 48, "MiB"),
            ],
        ),
        Section(
            title="Processor",
            text=f"User and system time of the agent's process, % of one core, 1 Hz. Busy: {what}.",
            header=["state", "% of a core", "seconds watched"],
            rows=[
                ["idle", f"{seen.idle_cpu.percent:.2f}", f"{seen.idle_cpu.seconds:.0f}"],
                ["busy", f"{seen.busy_cpu.percent:.2f}", f"{seen.busy_cpu.seconds:.0f}"],
                ["busy, `/metrics` every 15 s", f"{seen.scraped_cpu.percent:.2f}",
                 f"{seen.scraped_cpu.seconds:.0f}"],
            ],
            notes=[
                "Busy means busier than the aim of 200 workloads asks: all of them send all the"
                " time, so each tick changes every row.",
            ],
            aims=[
                Aim("processor at 1 Hz, busy", seen.busy_cpu.percent, 1, "% of a core"),
                Aim("the same, scraped", seen.scraped_cpu.percent, 1, "% of a core"),
            ],
        ),
        Section(
            title="Start",
            text=(
                "Seconds from the command to the first snapshot (`agent.json` and `/readyz`):"
                " interpreter, compiler, load, attachment to all interfaces, containers listed."
            ),
            header=["node", "median", "all"],
            rows=[
                [f"{ENIS} ENIs, no workloads", f"{starts:.2f}", _list(seen.starts_s)],
                [f"{ENIS} ENIs, {WORKLOADS} workloads", f"{crowded_starts:.2f}",
                 _list(seen.crowded_starts_s)],
            ],
            notes=[
                "Counting begins before that, as soon as the ENIs are attached to. With tcx the"
                " kernel waits for an RCU grace period at every attachment, about 12 ms here, so"
                " 200 veths take seconds whoever attaches to them.",
                "The metadata service is asked meanwhile, for every ENI one after the other, and"
                " the first snapshot waits for its answer.",
            ],
            aims=[
                Aim("first snapshot after the start, no workloads", starts, 1.5, "s"),
                Aim(f"the same with {WORKLOADS} workloads", crowded_starts, 1.5, "s"),
            ],
        ),
    ]  # fmt: skip


def _list(seconds: list[float]) -> str:
    return " ".join(f"{each:.2f}" for each in seconds)


def _flood(workload: Workload) -> float:
    """Packets a second that one sender gets out of its namespace, through the node."""
    words = ("udp", "--to", vpc.ELSEWHERE4, "--count", str(FLOOD), "--settle", "0", "--warm", "0")
    sent = parse_sent(workload.exec(["/usr/bin/python3", "-I", _SENDER, *words]).stdout)
    assert sent.sent == FLOOD, sent
    return sent.sent / sent.seconds


_SENDER = str(Path(__file__).parents[1] / "lab/send.py")


def flood_section(say: Say) -> Section:
    """What a sender notices."""
    rates: dict[str, list[float]] = {"without": [], "with": []}
    counted = 0
    with Lab(docker=False, resolver=False, imds=False, limit_pps=None) as lab:
        workload = lab.add_workload_netns("flood")
        say("flood")
        _flood(workload)  # warm
        for _ in range(FLOODS):
            rates["without"].append(_flood(workload))
            with Agent(lab, docker=False, env={"ENI53_RUNTIME_IMDS": ""}) as agent:
                rates["with"].append(_flood(workload))
                time.sleep(1.2)
                counted += int(agent.total("eni53_eni_packets_total", **{"class": "dns_other"}))
    with_pps, without_pps = (statistics.median(rates[name]) for name in ("with", "without"))
    pairs = zip(rates["with"], rates["without"], strict=True)
    ratio = statistics.median(ours / without for ours, without in pairs)
    return Section(
        title="What a sender notices",
        text=(
            f"One process sends {FLOOD:,} DNS queries as fast as it can from a workload's"
            " namespace, through both of our programs, without and with the agent in turn."
        ),
        header=["", "packets/s, median", "all"],
        rows=[
            [f"{name} the agent", f"{statistics.median(each):,.0f}",
             " ".join(f"{rate:,.0f}" for rate in each)]
            for name, each in rates.items()
        ],
        notes=[
            f"With the agent a sender reaches {ratio:.3f} of its rate without (median of"
            f" {FLOODS} pairs), {1e9 / with_pps - 1e9 / without_pps:.0f} ns more per packet: two"
            " programs, and the hooks they are called from, with colder caches than in a test run.",
            f"Sent while the agent watched: {FLOOD * FLOODS:,}. Counted: {counted:,}.",
        ],
        aims=[Aim("packets missed at full speed", FLOOD * FLOODS - counted, 0, "packets")],
    )  # fmt: skip
