"""Findings from what comes back, and does not, with real packets: there, and not there."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.processes import end
from tests.lab.shell import PYTHON

SILENT = "10.53.9.9"
ASKED, ANSWERS = "10.53.9.10", "10.53.9.11"
# The same query again and again, each time from another port, as glibc does; and then it ends.
STORM = """
import socket, sys, time
query = bytes.fromhex("053501000001000000000000") + b"\\3big\\3lab\\4test\\0\\0\\1\\0\\1"
begin = time.monotonic()
for number in range(60 * 15):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(query, (sys.argv[1], 53))
    time.sleep(max(0, begin + number / 60 - time.monotonic()))
"""
# Answers by another of its addresses than was asked. It ends by itself.
STRANGE = """
import select, socket, sys, time
asked, answers = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
asked.bind((sys.argv[1], 53)), answers.bind((sys.argv[2], 53))
end = time.monotonic() + 60
while time.monotonic() < end:
    if select.select([asked], [], [], 0.5)[0]:
        query, peer = asked.recvfrom(512)
        answers.sendto(query[:2] + b"\\x81\\x80" + query[4:], peer)
"""


@pytest.fixture(scope="module")
def agent(lab: Lab) -> Iterator[Agent]:
    """One agent for all."""
    with Agent(lab) as agent:
        yield agent


def doctor(agent: Agent) -> dict[str, dict[str, object]]:
    """Findings by code."""
    said = agent.run("doctor", "--json", "--seconds", "6").stdout
    return {finding["code"]: finding for finding in json.loads(said)["findings"]}


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[None]:
    """While it runs; it is ended."""
    time.sleep(1)
    try:
        yield
    finally:
        assert process.poll() is None
        end([process.pid], grace=3)
        process.communicate()


def test_a_retry_storm(lab: Lab, agent: Agent) -> None:
    """One name, one id, no answer: each query but the first is that one again."""
    with running(lab.node_popen([PYTHON, "-c", STORM, SILENT])):
        evidence = doctor(agent)["retry-storm"]["evidence"]
    assert isinstance(evidence, dict)
    assert evidence["pps"] == pytest.approx(60, rel=0.2)
    assert evidence["share"] > 0.95


def test_the_same_with_answers_is_none(lab: Lab, agent: Agent) -> None:
    """Who always takes the same id, and has an answer each time, does not retry."""
    with running(lab.node_popen([PYTHON, "-c", STORM, vpc.RESOLVER])):
        assert "retry-storm" not in doctor(agent)


def test_answers_from_another_address(lab: Lab, agent: Agent) -> None:
    """Than was asked; whoever asks throws them away."""
    for address in (ASKED, ANSWERS):
        lab.vpc_exec(["ip", "address", "add", f"{address}/32", "dev", "lo"])
    try:
        with running(lab.vpc_popen([PYTHON, "-c", STRANGE, ASKED, ANSWERS])):
            load = lab.start_send("udp", "--to", ASKED, "--rate", "30", "--count", "600")
            with running(load):
                found = doctor(agent)["answered-elsewhere"]
    finally:
        for address in (ASKED, ANSWERS):
            lab.vpc_exec(["ip", "address", "del", f"{address}/32", "dev", "lo"])
    assert found["evidence"]["share"] > 0.9  # type: ignore[index]


@pytest.mark.parametrize(("name", "ttl_s"), [("t{n}.svc.corp.internal", 2), ("t{n}.lab.test", 60)])
def test_short_ttls(lab: Lab, agent: Agent, name: str, ttl_s: int) -> None:
    """Service discovery, and what is kept for a minute; the TTL is told with each name."""
    words = ("--rate", "60", "--count", "900", "--name", name, "--repeat", "5")
    with running(lab.start_send("udp", "--to", vpc.RESOLVER, *words)):
        found = doctor(agent)
        names = agent.snapshot()["enis"][0]["names"]
    assert ("short-ttl" in found) == (ttl_s == 2)
    assert "answered-elsewhere" not in found
    if ttl_s == 2:
        assert found["short-ttl"]["evidence"]["ttl_s"] == 2  # type: ignore[index]
    told = [(each["ttl_s"], each["rcode"]) for each in names if each["name"].startswith("t")]
    assert told == [(ttl_s, "NOERROR")] * 5
