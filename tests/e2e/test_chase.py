"""Aliases behind a cache: what they stand for is asked for on behalf of who wanted them."""

from __future__ import annotations

import pytest

from tests.e2e import hostcache
from tests.e2e.hostcache import bridge_address
from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.services import ALIASES
from tests.lab.tally import Tally

NAMES = ("--count", str(ALIASES), "--name", "{n}.alias.test", "--wait-answers")


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_unbound_chases_for_its_asker(lab: Lab, mode: str) -> None:
    """Two packets for each alias, and both are the task's; what is in the cache is nobody's."""
    gateway, task = bridge_address(lab), lab.run_task("shop")
    with hostcache.unbound(lab, gateway), Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
        tally = Tally(lab)
        assert task.send("udp", "--to", gateway, *NAMES).answered == ALIASES
        assert tally.of("ens5_ip_udp_resolver") == 2 * ALIASES
        [row] = agent.settled(packets=2 * ALIASES)["enis"][0]["workloads"]
        assert (row["kind"], row["via"], row["packets"]) == ("ecs_task", "cache", 2 * ALIASES)
        asked = {name["name"].partition(".")[2] for name in row["names"]}
        assert asked <= {"alias.test", "lab.test"}
        assert task.send("udp", "--to", gateway, *NAMES).answered == ALIASES
        assert tally.of("ens5_ip_udp_resolver") == 2 * ALIASES
    task.remove()


def test_dnsmasq_does_not_chase(lab: Lab) -> None:
    """One packet for each alias, and its task's; what others ask for then is their own."""
    gateway = bridge_address(lab)
    task, other = lab.run_task("shop"), lab.run_task("other")
    with hostcache.dnsmasq(lab, gateway), Agent(lab) as agent:
        tally = Tally(lab)
        assert task.send("udp", "--to", gateway, *NAMES).answered == ALIASES
        assert tally.of("ens5_ip_udp_resolver") == ALIASES
        # For the address of the other family: that there is none of this one it knows by now.
        words = ("--count", str(ALIASES), "--name", "t{n}.lab.test", "--type", "AAAA")
        assert other.send("udp", "--to", gateway, *words, "--wait-answers").answered == ALIASES
        found = tally.charged(agent)["ens5"]
        assert {owner[2].partition(":")[0]: n for owner, n in found.items()} == {
            "shop": ALIASES,
            "other": ALIASES,
        }
    for each in (task, other):
        each.remove()
