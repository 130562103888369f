"""`eni53 doctor` beside a cache that one of two tasks does not use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.hostcache import bridge_address, dnsmasq
from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.tally import flows


@contextmanager
def asking(task: Container, server: str, name: str) -> Iterator[None]:
    """A task asks for fifty new names a second."""
    words = ("--to", server, "--rate", "50", "--count", "3000", "--name", f"{name}-{{n}}.lab.test")
    load = task.start_send("udp", *words)
    try:
        yield
    finally:
        load.terminate()
        load.communicate()


def bypassed(agent: Agent) -> list[dict[str, Any]]:
    """The findings of four seconds."""
    done = agent.run("doctor", "--json", "--seconds", "4", check=False)
    found = json.loads(done.stdout)["findings"]
    return [finding for finding in found if finding["code"] == "cache-bypassed"]


def test_who_goes_past_the_cache_is_told(lab: Lab) -> None:
    """The one that does, with its share; and nobody once both ask the cache."""
    gateway = bridge_address(lab)
    good, bad = lab.run_task("good"), lab.run_task("bad")
    with Agent(lab) as agent, dnsmasq(lab, gateway), asking(good, gateway, "good"):
        with asking(bad, vpc.RESOLVER, "bad"):
            assert flows(lab, 100)  # both
            [found] = bypassed(agent)
        assert found["workload"].partition(":")[0].endswith("/bad")
        assert found["eni"] == lab.enis[0].eni_id
        assert found["evidence"]["pps"] == pytest.approx(50, rel=0.2)
        assert found["evidence"]["share"] == pytest.approx(0.5, rel=0.2)
        with asking(bad, gateway, "set-right"):
            assert flows(lab, 100)
            assert bypassed(agent) == []
    for task in (good, bad):
        task.remove()


def test_without_a_cache_nobody_goes_past_it(lab: Lab) -> None:
    """The same load where there is only the resolver."""
    task = lab.run_task("alone")
    with Agent(lab) as agent, asking(task, vpc.RESOLVER, "alone"):
        assert flows(lab, 50)
        assert bypassed(agent) == []
    task.remove()
