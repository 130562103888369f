"""What a sender notices that sends as fast as it can."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.load import parse_sent
from tests.lab.workloads import Workload

from .page import Aim, Section

FLOOD, FLOODS = 100_000, 4
_SENDER = str(Path(__file__).parents[1] / "lab/send.py")


def _flood(workload: Workload) -> float:
    """Packets a second that one sender gets out of its namespace, through the node."""
    words = ("udp", "--to", vpc.ELSEWHERE4, "--count", str(FLOOD), "--settle", "0", "--warm", "0")
    sent = parse_sent(workload.exec(["/usr/bin/python3", "-I", _SENDER, *words]).stdout)
    assert sent.sent == FLOOD, sent
    return sent.sent / sent.seconds


def section(say: Callable[[str], None]) -> Section:
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
