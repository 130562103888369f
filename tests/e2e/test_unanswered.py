"""Queries that left an ENI and were never answered, to the packet."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.load import parse_sent

from .hooks import wait_for

RESOLVER, RESOLVER6 = "10.53.0.2", "fd00:ec2::253"
SILENT, SILENT6 = "10.53.9.9", "fd53:9::9"
TOLD_S = 3.5
"""After this long the kernel knows of a query whether it was answered."""
METRIC = "eni53_eni_unanswered_total"


def settled(agent: Agent) -> float:
    """The metric, once everything sent until now has had its time and a tick has read it."""
    time.sleep(TOLD_S)
    seen = agent.snapshot()["time"]
    wait_for(lambda: agent.snapshot()["time"] > seen)
    return agent.total(METRIC)


def answered(agent: Agent) -> float:
    """Answers that came in."""
    return agent.total("eni53_eni_responses_total")


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_one_asks_in_vain_beside_one_that_is_answered(lab: Lab, mode: str) -> None:
    """178 queries to resolvers that are silent; 500 answered ones, and TCP, are none of them."""
    asks, waits = lab.run_task("asks"), lab.run_task("waits")
    with Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
        assert agent.total(METRIC) == 0
        told = []
        waiting = [
            waits.start_send("udp", "--to", SILENT, "--count", "137", "--rate", "60"),
            lab.start_send("udp", "--to", SILENT6, "--count", "41", "--rate", "20"),
        ]
        for resolver in (RESOLVER, RESOLVER6):
            asks.send("udp", "--to", resolver, "--count", "250", "--rate", "250",
                      "--wait-answers", "--strict")  # fmt: skip
        asks.send("tcp", "--to", RESOLVER, "--count", "11")
        while any(sender.poll() is None for sender in waiting):
            told.append(agent.total(METRIC))
        assert [parse_sent(sender.communicate()[0]).sent for sender in waiting] == [137, 41]
        assert settled(agent) == 137 + 41
        assert answered(agent) == 500
        assert agent.snapshot()["enis"][0]["unanswered"] == 137 + 41
        assert sorted(told) == told
    asks.remove()
    waits.remove()


def test_what_the_limit_drops_is_unanswered() -> None:
    """All that the VPC let through was answered; the rest was dropped, and that is the metric."""
    with Lab(docker=False, limit_pps=100) as lab, Agent(lab, docker=False) as agent:
        before = lab.counters()["ens5_drops"]
        sent = lab.send("udp", "--to", RESOLVER, "--count", "900", "--rate", "450",
                        "--wait-answers")  # fmt: skip
        found = settled(agent)
        dropped = lab.counters()["ens5_drops"] - before
        assert (sent.sent, sent.failed) == (900, 0)
        assert found == sent.sent - sent.answered
        # The agent's own questions to the metadata service are dropped with the others.
        assert 0 < found <= dropped
        assert answered(agent) == sent.answered


def test_an_agent_that_looks_seldom(lab: Lab) -> None:
    """It stands still for longer than the kernel keeps moments apart, and is right afterwards."""
    with Agent(lab) as agent:
        assert agent.process is not None
        os.kill(agent.process.pid, signal.SIGSTOP)
        try:
            for _ in range(7):
                lab.send("udp", "--to", SILENT, "--count", "13")
                lab.send("udp", "--to", RESOLVER, "--count", "17", "--wait-answers", "--strict")
                time.sleep(0.8)
        finally:
            os.kill(agent.process.pid, signal.SIGCONT)
        assert settled(agent) == 7 * 13
        assert answered(agent) == 7 * 17
