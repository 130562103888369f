"""The agent on a node full of pods: real ones, made by containerd through CRI."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.pods import MAX_PODS, Pod
from tests.lab.shell import sender

from . import process, starts
from .page import Aim, Section
from .process import Cpu, Memory, Start
from .resident import eni_flags, pid_of

ENIS, RATE = 15, 4
AT_ONCE = 8
CREATE_S = 240.0  # no more are begun after that: the section says how many there are
STARTS = 4
STEADY_S, CPU_S = 60.0, 30.0
_NAMED = {"ENI53_METRICS_MAX_WORKLOADS": "300"}  # 200 unless told: the others would be one row

Say = Callable[[str], None]


def create(lab: Lab, count: int) -> list[Pod]:
    """Pods that send a little from their first moment on, each on the next ENI."""
    end_s = time.monotonic() + CREATE_S
    words = ("udp", "--to", vpc.RESOLVER, "--rate", str(RATE), "--count", "1000000")
    command = sender(*words, at="/lab")

    def one(number: int) -> Pod | None:
        if time.monotonic() > end_s:
            return None
        name = f"service-{number}-{number:05x}-x7k2p"
        return lab.run_pod(name, "shop", eni=number % ENIS, command=command)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [pod for pod in pool.map(one, range(count)) if pod is not None]


def _available_mib() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable"))


@dataclass(slots=True)
class Seen:
    """What came out of the lab."""

    pods: int
    create_s: float
    pod_mib: float
    starts: list[Start]
    steady: Memory
    last: Memory
    threads: int
    descriptors: int
    metrics_bytes: int
    cpu: Cpu
    scraped_cpu: Cpu
    named: int
    unnamed_packets: int
    pps: float


def measure(say: Say, count: int) -> Seen:
    """The agent comes to a node that is full already, as with a rolling update."""
    with Lab(enis=ENIS, docker=False, pods=True, limit_pps=None) as lab:
        begin, free_mib = time.monotonic(), _available_mib()
        pods = create(lab, count)
        create_s = time.monotonic() - begin
        pod_mib = (free_mib - _available_mib()) / max(1, len(pods))
        say(f"{len(pods)} pods: starts")

        def agent() -> Agent:
            return Agent(lab, *eni_flags(lab), docker=False, env=_NAMED)

        watched = [starts.watch(agent()) for _ in range(STARTS)]
        say("steady")
        with agent() as resident:
            pid = pid_of(resident)
            time.sleep(STEADY_S - CPU_S)
            before = resident.snapshot()
            plain = process.cpu(pid, CPU_S)
            steady = process.memory(pid)
            after = resident.snapshot()
            scraped = process.cpu(pid, CPU_S, lambda: resident.get("/metrics"))
            figures = (process.threads(pid), process.descriptors(pid))
            metrics_bytes = len(resident.get("/metrics"))
            last = process.memory(pid)
        say("pods end")
    packets = [sum(eni["packets"] for eni in each["enis"]) for each in (before, after)]
    rows = [row for eni in after["enis"] for row in eni["workloads"]]
    named = {row["workload"] for row in rows if row["kind"] == "pod"}
    unnamed = sum(row["packets"] for row in rows if row["kind"] in ("unattributed", "other"))
    return Seen(
        len(pods), create_s, pod_mib, watched, steady, last, *figures, metrics_bytes, plain,
        scraped, len(named), unnamed, (packets[1] - packets[0]) / plain.seconds,
    )  # fmt: skip


def section(say: Say, count: int = MAX_PODS) -> Section:
    """The section, measured now."""
    seen = measure(say, count)
    return Section(
        title=f"A node of {seen.pods} pods",
        text=(
            f"{seen.pods} real pods, each with a container, made by containerd through CRI and"
            f" wired as the Amazon VPC CNI does, over {ENIS} ENIs; together they send"
            f" {seen.pps:.0f} packets/s to the resolver, which answers. The agent comes to the full"
            " node and has no Docker to ask."
        ),
        header=["figure", "here"],
        rows=[
            ["RSS / PSS / private after 60 s, MiB",
             f"{seen.steady.rss:.1f} / {seen.steady.pss:.1f} / {seen.steady.private:.1f}"],
            ["the same after being scraped, MiB",
             f"{seen.last.rss:.1f} / {seen.last.pss:.1f} / {seen.last.private:.1f}"],
            ["highest RSS, MiB", f"{seen.last.peak:.1f}"],
            ["processor, % of a core", f"{seen.cpu.percent:.2f}"],
            ["the same, `/metrics` every 15 s", f"{seen.scraped_cpu.percent:.2f}"],
            ["threads / descriptors", f"{seen.threads} / {seen.descriptors}"],
            ["`/metrics`, KiB", f"{seen.metrics_bytes / 1024:.0f}"],
            *([f"from the start, s: {name}", cell] for name, cell in zip(
                starts.HEADER, starts.cells(seen.starts), strict=True)),
        ],
        notes=[
            f"{seen.named} of the pods have a name in the snapshot; packets without one:"
            f" {seen.unnamed_packets}. `max_workloads` is 300 here, so that none is summed up.",
            f"The pods themselves took {seen.create_s:.0f} s to make, {AT_ONCE} at once, and"
            f" {seen.pod_mib:.0f} MiB each (shim, pause, sender), which is the lab's affair and not"
            " the agent's.",
        ],
        aims=[
            Aim(f"resident memory, {seen.pods} pods", seen.last.rss, 48, "MiB"),
            Aim(f"processor, {seen.pods} pods", seen.cpu.percent, 1, "% of a core"),
            Aim(f"first count, {seen.pods} pods", starts.first_count(seen.starts), 1.5, "s"),
        ],
    )  # fmt: skip
