"""`eni53 doctor` near an ENI's limit, over it, and where VPC+2 is not known; with real packets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.tally import flows

LIMIT = 100


def look(agent: Agent) -> dict[str, dict[str, Any]]:
    """Findings by code."""
    done = agent.run("doctor", "--json", "--seconds", "4", check=False)
    return {finding["code"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.mark.parametrize("alone", [False, True], ids=["agent", "alone"])
@pytest.mark.parametrize(
    ("rate", "wanted"), [(30, set()), (80, {"near-limit"}), (150, {"over-limit"})]
)
def test_the_limit(lab: Lab, alone: bool, rate: int, wanted: set[str]) -> None:
    """Names spread, so that nothing else is to be said; who sends is named."""
    task = lab.run_task("shop")
    with Agent(lab, env={"ENI53_LIMIT_PPS": str(LIMIT)}) as agent:
        if alone:
            agent.stop()
        words = ("--rate", str(rate), "--count", str(rate * 60), "--name", "n{n}.lab.test")
        load = task.start_send("udp", "--to", vpc.RESOLVER, "--no-catch-up", *words)
        assert flows(lab, rate)
        found = look(agent)
        load.terminate()
        load.communicate()
    task.remove()
    assert set(found) == wanted
    for finding in found.values():
        assert finding["evidence"]["limit_pps"] == LIMIT
        assert finding["evidence"]["peak_pps"] == pytest.approx(rate, rel=0.2)
        assert "shop:42" in finding["evidence"]["top_workload"]


@pytest.mark.parametrize("alone", [False, True], ids=["agent", "alone"])
def test_a_resolver_that_is_not_known(lab: Lab, alone: bool) -> None:
    """Without the metadata service and without a word in resolv.conf; given, all is well."""
    resolv = lab.directory / "resolv-elsewhere.conf"
    resolv.write_text("nameserver 192.0.2.53\n")
    wrap = ["unshare", "-m", "/bin/sh", "-c", f'mount --bind {resolv} /etc/resolv.conf; exec "$@"']
    for addresses, wanted in (("", {"resolver-unknown"}), (vpc.RESOLVER, set())):
        env = {"ENI53_RUNTIME_IMDS": "", "ENI53_RESOLVER_ADDRESSES": addresses}
        with Agent(lab, env=env, wrap=[*wrap, "sh"]) as agent:
            if alone:
                agent.stop()
            assert set(look(agent)) == wanted
