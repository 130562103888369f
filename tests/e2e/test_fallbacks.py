"""A dead server in front of resolv.conf: glibc's own resolver in containers, and who asks all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.processes import end
from tests.lab.tally import until

SILENT = "10.53.9.9"

GLIBC = """
import socket
for number in range({count}):
    try:
        socket.getaddrinfo(f"name-{{number}}.lab.test", 443, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror:
        pass
"""

MUSL = """
import select, socket, sys, time
sys.path.insert(0, "/lab")
from send import dns_query
for number in range({count}):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        for server in {servers!r}:
            sock.sendto(dns_query(number, f"name-{{number % 3}}.lab.test"), (server, 53))
        select.select([sock], [], [], 1)
    time.sleep(1.1)
"""


def found(agent: Agent, *flags: str) -> dict[str, dict[str, Any]]:
    """Findings by code."""
    done = agent.run("doctor", "--json", "--seconds", "1", *flags, check=False)
    return {finding["code"]: finding for finding in json.loads(done.stdout)["findings"]}


@pytest.fixture
def make_task(lab: Lab) -> Iterator[Any]:
    """Starts tasks with the given servers in resolv.conf, in that order."""
    made: list[Container] = []

    def make(family: str, *servers: str) -> Container:
        extra = [word for server in servers for word in ("--dns", server)]
        extra += ["--dns-opt", "timeout:1", "--dns-opt", "attempts:2"]
        made.append(lab.run_task(family, extra=extra))
        return made[-1]

    yield make
    for task in made:
        task.remove()


def resolve(task: Container, count: int = 6) -> None:
    """Look names up, one after the other, with glibc."""
    listed = task.exec(["cat", "/etc/resolv.conf"]).stdout
    assert "timeout:1" in listed
    task.exec(["/usr/bin/python3", "-I", "-c", GLIBC.format(count=count)])


def test_a_dead_first_nameserver_is_found_by_what_glibc_does(lab: Lab, make_task: Any) -> None:
    """Each name waits a second; beside it one that asks the other way round, and is well."""
    waits = make_task("waits", SILENT, vpc.RESOLVER)
    well = make_task("well", vpc.RESOLVER, SILENT)
    with Agent(lab) as agent:
        resolve(waits)
        resolve(well)
        assert until(lambda: "dead-first-nameserver" in found(agent))
        finding = found(agent)["dead-first-nameserver"]
        servers = agent.snapshot()["servers"]

    assert "waits:42" in finding["workload"]
    assert finding["evidence"]["server"] == SILENT
    assert finding["evidence"]["fallbacks"] >= 5
    assert finding["evidence"]["waited_seconds"] == pytest.approx(1.0, abs=0.3)
    assert SILENT in finding["remedy"]
    assert [row["workload"].partition(":")[0] for row in servers] == ["waits"]


def test_a_process_of_the_host_waits_as_well(lab: Lab) -> None:
    """It has no veth: its queries are seen at the ENI."""
    script = GLIBC.format(count=5)
    resolv = lab.directory / "resolv.conf"
    resolv.write_text(f"nameserver {SILENT}\nnameserver {vpc.RESOLVER}\noptions timeout:1\n")
    mounted = f"mount --bind {resolv} /etc/resolv.conf && exec /usr/bin/python3 -I -c '{script}'"
    with Agent(lab) as agent:
        unit = "/system.slice/waits.service"
        process = lab.node_popen(["unshare", "-m", "/bin/sh", "-c", mounted], cgroup=unit)
        assert process.wait(60) == 0, process.communicate()
        assert until(lambda: "dead-first-nameserver" in found(agent))
        finding = found(agent)["dead-first-nameserver"]
    assert (finding["workload"], finding["evidence"]["server"]) == ("waits.service", SILENT)


def test_who_asks_all_servers_at_once_does_not_wait(lab: Lab, make_task: Any) -> None:
    """As musl does: the dead one costs it nothing, and is no finding."""
    task = make_task("musl", SILENT, vpc.RESOLVER)
    with Agent(lab) as agent:
        script = MUSL.format(count=8, servers=(SILENT, vpc.RESOLVER))
        task.exec(["/usr/bin/python3", "-I", "-c", script])
        agent.settled(packets=16)
        assert "dead-first-nameserver" not in found(agent)
        assert agent.snapshot()["servers"] == []


def test_a_cache_that_answers_is_no_finding(lab: Lab, make_task: Any) -> None:
    """A cache first, as it should be: nobody falls back from it, though it is not the VPC's."""
    told = lab.node_exec(["ip", "-4", "-o", "addr", "show", "dev", "docker0"]).stdout
    gateway = told.split("inet ")[1].split("/")[0]
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
    argv += ["--server", vpc.RESOLVER, "--listen-address", gateway, "--bind-interfaces"]
    argv += ["--user=root", "--pid-file="]
    dnsmasq = lab.node_popen(argv)
    task = make_task("cached", gateway, vpc.RESOLVER)
    try:
        with Agent(lab) as agent:
            for _ in range(3):
                resolve(task)
            assert until(lambda: agent.snapshot()["enis"][0]["packets"] >= 6)
            assert agent.snapshot()["servers"] == []
            assert "dead-first-nameserver" not in found(agent)
    finally:
        end([dnsmasq.pid], grace=3)
        dnsmasq.wait(10)
