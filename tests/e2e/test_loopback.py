"""A cache on the node's loopback: what it asks is charged to the process that asked it."""

from __future__ import annotations

import pytest

from tests.e2e.hostcache import dnsmasq
from tests.lab import vpc
from tests.lab.agent import Agent, rows
from tests.lab.lab import Lab
from tests.lab.load import parse_sent
from tests.lab.tally import Tally

STUB = "127.0.0.53"
CACHE, SHIPPER, BACKUP = (
    f"/system.slice/{name}.service" for name in ("stub-resolver", "shipper", "backup")
)


def asks(lab: Lab, unit: str, server: str, count: int, name: str) -> None:
    """A service of the host asks for names that nobody has asked for before."""
    words = ("--to", server, "--count", str(count), "--name", f"{name}{{n}}.lab.test")
    load = lab.start_send("udp", *words, "--rate", "200", "--wait-answers", cgroup=unit)
    assert parse_sent(load.communicate()[0]).answered == count


def filters(lab: Lab) -> str:
    """What hangs on the node's loopback."""
    told = [["qdisc", "show"], ["filter", "show", "egress"]]
    return "".join(
        lab.node_exec(["tc", kind, verb, "dev", "lo", *where]).stdout for kind, verb, *where in told
    )


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_services_behind_a_stub_resolver(lab: Lab, mode: str) -> None:
    """Each pays for what it asks; the one that asks the resolver itself too; nothing is left."""
    before = filters(lab)
    with dnsmasq(lab, STUB, CACHE), Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
        tally = Tally(lab)
        asks(lab, SHIPPER, STUB, 53, "ship")
        asks(lab, BACKUP, STUB, 31, "back")
        asks(lab, BACKUP, STUB, 31, "back")  # out of the cache
        asks(lab, BACKUP, vpc.RESOLVER, 17, "direct")
        asks(lab, BACKUP, vpc.RESOLVER, 11, "ship")
        found = tally.charged(agent)["ens5"]
        assert found == {
            ("host", "", "shipper.service", ""): 53,
            ("host", "", "backup.service", ""): 31 + 17 + 11,
        }
        via = {(row["workload"], row["via"]): row["packets"]
               for row in agent.snapshot()["enis"][0]["workloads"]}  # fmt: skip
        assert via == {
            ("shipper.service", "cache"): 53,
            ("backup.service", "cache"): 31,
            ("backup.service", "direct"): 17 + 11,
        }
        checked = agent.run("check", check=False).stdout
        assert f"{STUB}: what they ask upstream" in checked
        # No packet of theirs left a namespace by a veth.
        assert agent.total("eni53_workload_sent_packets_total") == 0
        assert agent.stop() == 0
    assert filters(lab) == before


def test_a_container_in_host_mode_asks_there_too(lab: Lab) -> None:
    """By its cgroup it is its task; the cache's own packets stay the cache's."""
    task = lab.run_task("hosted", network="host")
    with dnsmasq(lab, STUB, CACHE), Agent(lab) as agent:
        tally = Tally(lab)
        words = ("--count", "47", "--name", "hosted{n}.lab.test", "--wait-answers")
        assert task.send("udp", "--to", STUB, *words).answered == 47
        asks(lab, CACHE, vpc.RESOLVER, 7, "prefetched")
        tally.charged(agent)
        found = {
            (kind, name.partition(":")[0], container): packets
            for (kind, _, name, container), packets in rows(agent.snapshot()).items()
        }
        assert found == {
            ("ecs_task", "hosted", "app"): 47,
            ("cache", "stub-resolver.service", ""): 7,
        }
    task.remove()
