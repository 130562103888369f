"""What a cache would leave, said before there is one; then real caches, and what they leave."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.e2e.rendered_task import healthy, rendered, start
from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.tally import flows, until

GATEWAY = vpc.DOCKER_GATEWAY.partition("/")[0]
LOOK_S = 10
KEPT_S = 60  # the longest TTL
LOADS = (  # pps, names that take turns (0: each is asked once), name, type
    (200, 10, "hot{n}.lab.test", "A"),  # kept for 60 s
    (60, 10, "hot{n}.lab.test", "AAAA"),
    (20, 100, "now-and-then{n}.lab.test", "A"),
    (120, 40, "task{n}.svc.corp.internal", "A"),  # service discovery: 2 s
    (60, 20, "gone{n}.example.org", "A"),  # NXDOMAIN, 60 s by the SOA
    (60, 0, "once{n}.lab.test", "A"),
)
TOTAL_PPS = sum(load[0] for load in LOADS)


class MixedLoad:
    """Hot names, a long tail, names that are not there, short TTLs: all at once, from a task."""

    def __init__(self, source: Container, server: str, seconds: float, run: str) -> None:
        self._running: list[subprocess.Popen[str]] = []
        for pps, turns, name, kind in LOADS:
            words = ["--rate", str(pps), "--count", str(int(pps * seconds)), "--type", kind]
            words += ["--repeat", str(turns)] if turns else []
            # What is asked for once must not be known from the run before.
            words += ["--name", name if turns else f"{run}-{name}", "--settle", "0.5"]
            self._running.append(source.start_send("udp", "--to", server, *words))
        count = ["/usr/bin/pgrep", "-cf", "/lab/send.py"]
        assert until(lambda: source.exec(count, check=False).stdout.strip() == str(len(LOADS)))

    def end(self) -> None:
        """Stop what still runs."""
        for process in self._running:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def task(lab: Lab) -> Iterator[Container]:
    """Who asks."""
    task = lab.run_task("shop")
    yield task
    task.remove()


@pytest.fixture(scope="module")
def agent(lab: Lab) -> Iterator[Agent]:
    """One agent for all."""
    with Agent(lab) as agent:
        yield agent


def doctor(agent: Agent) -> dict[str, dict[str, object]]:
    """Findings by code."""
    said = agent.run("doctor", "--json", "--seconds", str(LOOK_S)).stdout
    return {finding["code"]: finding for finding in json.loads(said)["findings"]}


def predicted(agent: Agent) -> float:
    """What it says a cache would leave; that there is none is found."""
    evidence = doctor(agent)["no-cache"]["evidence"]
    assert isinstance(evidence, dict)
    assert evidence["pps"] == pytest.approx(TOTAL_PPS, rel=0.1)
    return float(evidence["predicted_pps"])


@pytest.fixture(scope="module")
def predictions(lab: Lab, task: Container, agent: Agent) -> dict[str, float]:
    """By an agent that runs, and by a look of its own that has seen nothing before."""
    load = MixedLoad(task, vpc.RESOLVER, 90, "before")
    assert flows(lab, TOTAL_PPS)
    found = {"agent": predicted(agent)}
    agent.stop()
    found["alone"] = predicted(agent)
    load.end()
    agent.start()
    return found


@pytest.mark.parametrize("name", ["dnsmasq-ecs", "unbound-ecs"])
def test_a_cache_leaves_what_was_predicted(
    lab: Lab, task: Container, agent: Agent, predictions: dict[str, float], name: str
) -> None:
    """Within a tenth, or five packets a second; and then there is nothing more to advise."""
    files = rendered(agent, name)
    [cache] = files["task-definition.yaml"]["containerDefinitions"]
    daemon = start(lab, files["task-definition.yaml"], cache)
    if "healthCheck" in cache:
        healthy(lab, daemon)
    load = MixedLoad(task, GATEWAY, 90, name)
    time.sleep(6)  # until it has fetched what it keeps
    begin, first = time.monotonic(), lab.counters()
    found = doctor(agent)
    # What is kept for a minute is fetched once in it; and what for 2 s, by all its names together.
    time.sleep(begin + KEPT_S - time.monotonic())
    seconds, last = time.monotonic() - begin, lab.counters()
    load.end()
    daemon.remove()

    left = (last["ens5_ip_linklocal"] - first["ens5_ip_linklocal"]) / seconds
    said = ", ".join(f"{pps:.1f} ({who})" for who, pps in predictions.items())
    print(f"\n{name}: {TOTAL_PPS} pps without, {said} predicted, {left:.1f} left", end="")
    for pps in predictions.values():
        assert abs(pps - left) <= max(5.0, 0.1 * left)
    assert "no-cache" not in found
