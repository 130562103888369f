"""Behind a cache on the node: what it asks the resolver is charged to who wanted the name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import hostcache
from tests.e2e.hostcache import bridge_address
from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.load import parse_sent
from tests.lab.tally import Tally

ASKERS = 20


@pytest.fixture(scope="module")
def askers(lab: Lab) -> Iterator[list[Container]]:
    """Twenty tasks."""
    tasks = [lab.run_task(f"asker-{number}") for number in range(ASKERS)]
    yield tasks
    for task in tasks:
        task.remove()


@pytest.fixture
def dnsmasq(lab: Lab) -> Iterator[None]:
    """A cache on the node, on the bridge's own address."""
    with hostcache.dnsmasq(lab, bridge_address(lab)):
        yield


def by_via(snapshot: dict[str, Any]) -> dict[str, Counter[str]]:
    """Packets by family of the task (or kind), for each way."""
    found: dict[str, Counter[str]] = {"direct": Counter(), "cache": Counter()}
    for row in snapshot["enis"][0]["workloads"]:
        name = row["workload"].partition(":")[0] if row["kind"] == "ecs_task" else row["kind"]
        if "resolver" in row["classes"]:
            found[row["via"]][name] += row["classes"]["resolver"]["packets"]
    return found


def overflowed(lab: Lab) -> int:
    """UDP packets for the node that found a socket's queue full, as the kernel counts them."""
    names, values = (
        line.split()
        for line in lab.node_exec(["cat", "/proc/net/snmp"]).stdout.splitlines()
        if line.startswith("Udp: ")
    )
    return int(values[names.index("RcvbufErrors")])


def test_twenty_askers_behind_dnsmasq(lab: Lab, askers: list[Container], dnsmasq: None) -> None:
    """800 names a second that nobody asked for before: each query of the cache is its asker's."""
    gateway = bridge_address(lab)
    with Agent(lab) as agent:
        tally, before = Tally(lab), overflowed(lab)
        loads = [
            task.start_send("udp", "--to", gateway, "--rate", "40", "--count", "200",
                            "--name", f"a{number}-{{n}}.lab.test", "--settle", "1")
            for number, task in enumerate(askers)
        ]  # fmt: skip
        sent = sum(parse_sent(load.communicate()[0]).sent for load in loads)
        upstream = tally.of("ens5_ip_udp_resolver")
        found = by_via(agent.settled(packets=upstream))
        charged = found["cache"]

        assert sent == ASKERS * 200
        # Each missed; a lost answer is asked for again. What found dnsmasq's socket full, when it
        # was not let run for a quarter of a second, it has never seen.
        assert upstream >= sent - (overflowed(lab) - before)
        assert sum(charged.values()) + sum(found["direct"].values()) == upstream
        right = sum(min(charged[f"asker-{number}"], 200) for number in range(ASKERS))
        assert right >= 0.97 * upstream
        assert set(charged) == {f"asker-{number}" for number in range(ASKERS)}
        # What it asks on its own account (here: again) is in a row of its own.
        assert set(found["direct"]) <= {"cache"}
        # What a task asked is its own in the names as well.
        rows = agent.snapshot()["enis"][0]["workloads"]
        for row in rows:
            if row["via"] == "cache":
                prefix = "a" + row["workload"].partition(":")[0].partition("-")[2] + "-"
                assert all(name["name"].startswith(prefix) for name in row["names"])


def test_what_the_cache_answers_by_itself_charges_nobody(
    lab: Lab, askers: list[Container], dnsmasq: None
) -> None:
    """One name, asked for by all again and again: one query, and the first asker's."""
    gateway = bridge_address(lab)
    with Agent(lab) as agent:
        tally = Tally(lab)
        for task in askers[:5]:
            task.send("udp", "--to", gateway, "--rate", "100", "--count", "40",
                      "--name", "hot.lab.test")  # fmt: skip
        upstream = tally.of("ens5_ip_udp_resolver")
        found = by_via(agent.settled(packets=upstream))

        assert upstream == 1
        assert found == {"direct": Counter(), "cache": Counter({"asker-0": 1})}


def test_who_asks_the_resolver_itself_is_charged_for_itself(
    lab: Lab, askers: list[Container], dnsmasq: None
) -> None:
    """The same names, straight to the resolver and to the cache at once: neither pays for both."""
    gateway = bridge_address(lab)
    with Agent(lab) as agent:
        tally = Tally(lab)
        words = ("--rate", "200", "--count", "600", "--name", "both{n}.lab.test", "--settle", "1")
        loads = [
            askers[0].start_send("udp", "--to", gateway, *words),
            askers[1].start_send("udp", "--to", vpc.RESOLVER, *words),
        ]
        for load in loads:
            load.communicate()
        upstream = tally.of("ens5_ip_udp_resolver")
        found = by_via(agent.settled(packets=upstream))

        assert found["direct"]["asker-1"] == 600
        assert found["cache"]["asker-1"] == 0
        assert found["cache"]["asker-0"] >= 0.97 * (upstream - 600)
        assert found["direct"]["asker-0"] == 0
