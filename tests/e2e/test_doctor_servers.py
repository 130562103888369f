"""`eni53 doctor` where queries go astray: a task whose cache is out of reach; TCP."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.tally import Tally, until

NODELOCAL = "169.254.20.10"


def look(agent: Agent, seconds: int = 6) -> dict[str, dict[str, Any]]:
    """Findings by code."""
    done = agent.run("doctor", "--json", "--seconds", str(seconds), check=False)
    return {finding["code"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.mark.parametrize("reached", [False, True])
def test_a_task_with_an_eni_of_its_own_and_its_hosts_cache(lab: Lab, reached: bool) -> None:
    """What it asks a cache leaves by its ENI, and nobody has an answer; the resolver answers by the
    same ENI. A task that asks the resolver alone is well.
    """
    task = lab.run_awsvpc_task("shop")
    with Agent(lab) as agent:
        # More is lost than the resolver is asked: then it cannot be the resolver's.
        words = ("--count", "150", "--settle", "0", "--rate")
        servers = {vpc.RESOLVER: "6"} if reached else {NODELOCAL: "10", vpc.RESOLVER: "6"}
        send = task.containers["app"].start_send
        loads = [send("udp", "--to", to, *words, rate) for to, rate in servers.items()]
        assert until(lambda: own(agent, task.eni.eni_id)["packets"] > 0)
        time.sleep(4)  # until the first are told unanswered
        found = look(agent)
        for load in loads:
            load.terminate()
            load.communicate()
        seen = own(agent, task.eni.eni_id)["classes"]
    task.remove()

    assert seen["resolver"]["packets"] > 30
    assert (seen["dns_other"]["packets"] == 0) is reached
    if reached:
        assert not {"cache-unreachable", "unanswered"} & set(found)
        return
    finding = found["cache-unreachable"]
    assert finding["eni"] == task.eni.eni_id
    assert "shop:7" in finding["workload"]
    assert finding["evidence"]["dns_other"] == pytest.approx(60, rel=0.25)
    assert finding["evidence"]["unanswered"] == pytest.approx(60, rel=0.25)
    assert "unbound-awsvpc" in finding["remedy"]


def own(agent: Agent, eni: str) -> dict[str, Any]:
    """An ENI; one of which nothing is known yet has sent nothing."""
    enis = agent.snapshot()["enis"]
    return next((dict(one) for one in enis if one["eni"] == eni), {"packets": 0})


def test_losses_on_an_eni_of_the_host_are_no_cache_out_of_reach(lab: Lab) -> None:
    """The same by the node's own ENI: unanswered, and nothing is known of a cache."""
    task = lab.run_task("asks")
    with Agent(lab) as agent:
        words = ("--to", vpc.ELSEWHERE4, "--rate", "10", "--count", "150", "--settle", "0")
        load = task.start_send("udp", *words)
        time.sleep(4)
        found = look(agent)
        load.terminate()
        load.communicate()
    task.remove()
    assert "unanswered" in found
    assert "cache-unreachable" not in found


@pytest.mark.parametrize("tcp", [True, False])
def test_lookups_by_tcp(lab: Lab, tcp: bool) -> None:
    """Real connections, ten a second; the same number by UDP is nothing to speak of."""
    task = lab.run_task("web")
    with Agent(lab) as agent:
        tally = Tally(lab)
        mode = "tcp" if tcp else "udp"
        load = task.start_send(mode, "--to", vpc.RESOLVER, "--rate", "10", "--count", "120")
        # Over a second of it: what the look begins with may be a second old.
        assert until(lambda: tally.of(f"ens5_ip_{mode}_resolver") >= (70 if tcp else 13))
        found = look(agent, 4)
        report = json.loads(load.communicate()[0].splitlines()[-1])
        packets = tally.of("ens5_ip_tcp_resolver")
    task.remove()
    assert report["answered"] == 120
    assert ("tcp-overhead" in found) is tcp
    if tcp:
        assert 5 * 120 <= packets <= 7 * 120, "the remedy says five or six"
        assert found["tcp-overhead"]["evidence"]["tcp_pps"] == pytest.approx(55, rel=0.25)
        assert found["tcp-overhead"]["evidence"]["share"] == pytest.approx(1.0, abs=0.01)
