"""Containers' own resolv.conf in the lab: read from real containers, some of which lay traps."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.hooks import wait_for
from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.tally import flows

LEAKED = "6.6.6.6"
Confs = dict[str, dict[str, Any]]


def confs(agent: Agent) -> Confs:
    """By the name of the workload; a task by its family."""
    return {
        whose["workload"].partition(":")[0]: {k: v for k, v in conf.items() if k != "workloads"}
        for conf in agent.snapshot()["resolv_confs"]
        for whose in conf["workloads"]
    }


@contextlib.contextmanager
def running(lab: Lab, name: str, *extra: str, **more: Any) -> Iterator[Container]:
    """A container until the end of the block."""
    container = lab.run_container(name, extra=extra, **more)
    try:
        yield container
    finally:
        container.remove()


def write(container: Container, text: str) -> None:
    """What its own root may do to its resolv.conf."""
    container.exec(["/bin/sh", "-c", "cat >/etc/resolv.conf"], stdin=text)


def test_what_docker_wrote_is_told(lab: Lab) -> None:
    """With its options; and of one that comes after the agent."""
    task = lab.run_task("shop", extra=("--dns", vpc.RESOLVER, "--dns-search", "corp.test",
                                       "--dns-opt", "ndots:5", "--dns-opt", "rotate"))  # fmt: skip
    with Agent(lab) as agent:
        wait_for(lambda: "shop" in confs(agent))
        assert confs(agent)["shop"] == {
            "nameservers": [vpc.RESOLVER],
            "search": ["corp.test"],
            "ndots": 5,
            "timeout": None,
            "attempts": None,
            "flags": ["rotate"],
            "listening": None,
        }
        with running(lab, "later"):
            wait_for(lambda: "later" in confs(agent))
        task.remove()
        wait_for(lambda: not confs(agent))


def look(agent: Agent, *flags: str) -> dict[str, dict[str, Any]]:
    """What doctor finds, by code."""
    done = agent.run("doctor", "--json", "--seconds", "4", *flags)
    return {finding["code"]: finding for finding in json.loads(done.stdout)["findings"]}


LISTEN = "import socket, sys, time; s = socket.socket(type=socket.SOCK_DGRAM);"
LISTEN += " s.bind((sys.argv[1], 53)); time.sleep(600)"


@contextlib.contextmanager
def cache_of_the_node(lab: Lab) -> Iterator[str]:
    """Somebody listens on the bridge's address, and says nothing."""
    where = lab.docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")
    cache = lab.node_popen(["/usr/bin/python3", "-c", LISTEN, where.strip()])
    try:
        wait_for(lambda: "0035" in lab.node_exec(["cat", "/proc/net/udp"]).stdout)
        yield where.strip()
    finally:
        cache.terminate()
        cache.communicate(timeout=10)


def listen_inside(container: Container, address: str) -> None:
    """In its own namespace."""
    shell = f'/usr/bin/python3 -c "{LISTEN}" {address} >/dev/null 2>&1 &'
    container.exec(["/bin/sh", "-c", shell])
    wait_for(lambda: "0035" in container.exec(["cat", "/proc/net/udp"]).stdout)


@pytest.mark.parametrize("alone", [False, True], ids=["agent", "alone"])
def test_findings_of_what_the_files_say(lab: Lab, alone: bool) -> None:
    """One of each, beside a container that is as it should be."""
    with (
        cache_of_the_node(lab) as cache,
        running(lab, "copied", "--dns", "127.0.0.1"),
        running(lab, "last", "--dns", vpc.RESOLVER, "--dns", cache) as last,
        running(lab, "single", "--dns", cache),
        running(lab, "right", "--dns", cache, "--dns", vpc.RESOLVER),
        Agent(lab) as agent,
    ):
        wait_for(lambda: {"copied", "last", "single", "right"} <= set(confs(agent)))
        wait_for(lambda: agent.snapshot()["on_node"] == [cache])
        if alone:
            agent.stop()
        load = last.start_send("udp", "--to", vpc.RESOLVER, "--rate", "60", "--count", "3600")
        assert flows(lab, 60)
        found = look(agent)
        load.terminate()
        load.communicate()
    assert found["loopback-resolver"]["severity"] == "critical"
    told = {code: finding["workload"] for code, finding in found.items()}
    assert {code: told.get(code) for code in ("loopback-resolver", "cache-not-first",
                                              "no-fallback")} == {
        "loopback-resolver": "copied", "cache-not-first": "last", "no-fallback": "single",
    }  # fmt: skip
    assert found["cache-not-first"]["severity"] == "warning"
    assert found["cache-not-first"]["evidence"]["pps"] == pytest.approx(60, rel=0.3)


def test_containers_as_they_should_be_are_no_finding(lab: Lab) -> None:
    """Docker's own resolver, a cache in the container itself, one on the host's network."""
    lab.docker("network", "create", "own")
    with contextlib.ExitStack() as stack:
        stack.callback(lab.docker, "network", "rm", "own")
        stack.enter_context(cache_of_the_node(lab))
        stack.enter_context(running(lab, "embedded", network="own"))
        stack.enter_context(running(lab, "resolver"))
        inside = stack.enter_context(
            running(lab, "inside", "--dns", "127.0.0.1", "--dns", vpc.RESOLVER)
        )
        listen_inside(inside, "127.0.0.1")
        agent = stack.enter_context(Agent(lab))
        wait_for(lambda: {"embedded", "resolver", "inside"} <= set(confs(agent)))
        assert confs(agent)["embedded"]["nameservers"] == ["127.0.0.11"]
        assert look(agent, "--fail") == {}


def test_who_searches_is_told_with_its_ndots(lab: Lab) -> None:
    """And what a dot at the end would save."""
    task = lab.run_task("shop", extra=("--dns", vpc.RESOLVER, "--dns-search", "corp.test",
                                       "--dns-opt", "ndots:5"))  # fmt: skip
    words = ("udp", "--to", vpc.RESOLVER, "--rate", "60", "--count", "3600", "--name")
    with Agent(lab) as agent:
        wait_for(lambda: "shop" in confs(agent))
        loads = [task.start_send(*words, name) for name in ("db.lab.test.corp.test", "db.lab.test")]
        assert flows(lab, 120)
        told = look(agent)["search-domains"]
        for load in loads:
            load.terminate()
            load.communicate()
    task.remove()
    assert told["workload"].startswith("prod/shop:42/")
    assert told["evidence"]["ndots"] == 5
    assert told["evidence"]["saved_pps"] == pytest.approx(60, rel=0.15)
    assert told["evidence"]["workloads"].startswith(told["workload"])
    assert "(corp.test)" in told["summary"]


def test_who_listens_in_its_namespace_is_told(lab: Lab) -> None:
    """Somebody, or nobody; in the node, only what is served there."""
    with running(lab, "alone", "--dns", "127.0.0.1"), running(lab, "cache") as cache:
        write(cache, "nameserver 127.0.0.1\n")
        listen_inside(cache, "127.0.0.1")
        with Agent(lab) as agent:
            wait_for(lambda: {"alone", "cache"} <= set(confs(agent)))
            found = confs(agent)
            assert agent.snapshot()["on_node"] == []
    assert found["alone"]["listening"] == []
    assert found["cache"]["listening"] == ["127.0.0.1"]


@pytest.fixture(scope="module")
def secret(lab: Lab) -> Path:
    """A file of the node as only root may read it, that looks like one of ours."""
    path = lab.directory / "shadow"
    path.write_text(f"nameserver {LEAKED}\nsearch secret.test\nroot:$6$secret:1::\n")
    path.chmod(0o600)
    return path


def link_out(container: Container, secret: Path) -> None:
    """Up, and down to the node's file."""
    target = "../" * 20 + str(secret).lstrip("/")
    container.exec(["ln", "-sf", target, "/etc/resolv.conf"])


def link_through_proc(container: Container, secret: Path) -> None:
    """By the root directory of whoever follows it."""
    container.exec(["ln", "-sf", f"/proc/self/root{secret}", "/etc/resolv.conf"])


def fifo(container: Container, secret: Path) -> None:
    """Nobody writes."""
    container.exec(["mkfifo", "/etc/resolv.conf"])


def sparse(container: Container, secret: Path) -> None:
    """A gibibyte."""
    container.exec(["truncate", "-s", "1G", "/etc/resolv.conf"])


def folder(container: Container, secret: Path) -> None:
    """A directory."""
    container.exec(["mkdir", "/etc/resolv.conf"])


def device(container: Container, secret: Path) -> None:
    """It never ends."""
    container.exec(["mknod", "/etc/resolv.conf", "c", "1", "5"])


def missing(container: Container, secret: Path) -> None:
    """Nothing is there."""


_HANG = """
import ctypes, os, time
fd = os.open("/dev/fuse", os.O_RDWR)
data = f"fd={fd},rootmode=100000,user_id=0,group_id=0,allow_other".encode()
assert ctypes.CDLL(None).mount(b"hang", b"/etc/resolv.conf", b"fuse", 0, data) == 0
open("/hangs", "w").close()
time.sleep(600)
"""
PRIVILEGED = ("--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined",
              "--security-opt", "seccomp=unconfined")  # fmt: skip


def test_a_file_that_hangs_costs_itself_alone(lab: Lab) -> None:
    """A file system of the container's own never answers: said once, and the agent ends."""
    with running(lab, "hangs", *PRIVILEGED, "--device", "/dev/fuse") as bad:
        command = ["/bin/sh", "-c", 'exec /usr/bin/python3 -c "$0" >/dev/null 2>&1 &', _HANG]
        bad.exec(command)
        wait_for(lambda: bad.exec(["test", "-e", "/hangs"], check=False).returncode == 0)
        with Agent(lab) as agent, running(lab, "honest"):
            wait_for(lambda: agent.total("eni53_agent_errors_total", stage="resolv.conf") == 1)
            wait_for(lambda: set(confs(agent)) == {"honest"})
            sent = bad.send("udp", "--to", vpc.RESOLVER, "--count", "50").sent
            assert agent.settled(sent)["enis"][0]["packets"] >= sent
            assert agent.total("eni53_agent_errors_total", stage="resolv.conf") == 1
            began_s = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - began_s < 10


@pytest.mark.parametrize(
    "trap", [link_out, link_through_proc, fifo, sparse, folder, device, missing]
)
def test_a_trap_leaks_nothing_and_counting_goes_on(
    lab: Lab, secret: Path, trap: Callable[[Container, Path], None]
) -> None:
    """Unknown for that container; all others are read, and its packets are counted."""
    with (
        running(lab, "trap", *PRIVILEGED) as bad,
        running(lab, "honest"),
    ):  # fmt: skip
        # Docker mounts its own there; other runtimes do not.
        bad.exec(["umount", "/etc/resolv.conf"])
        bad.exec(["rm", "-f", "/etc/resolv.conf"])
        trap(bad, secret)
        with Agent(lab) as agent:
            wait_for(lambda: "honest" in confs(agent))
            sent = bad.send("udp", "--to", vpc.RESOLVER, "--count", "50").sent
            time.sleep(3)  # another look
            snapshot = agent.settled(sent)
            text = agent.get("/api/v1/snapshot") + agent.get("/metrics") + agent.log.read_text()
            known = set(confs(agent))
    assert known == {"honest"}
    assert LEAKED not in text and "secret" not in text
    assert sum(row["packets"] for row in snapshot["enis"][0]["workloads"]
               if row["workload"] == "trap") == sent  # fmt: skip


def test_the_capabilities_it_asks_for_are_enough(lab: Lab) -> None:
    """Those of docs/wirings.md, as in the chart; the file is another's."""
    caps = "-all,+bpf,+net_admin,+perfmon,+sys_ptrace"
    wrap = ("setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", "--no-new-privs")
    with (
        running(lab, "web", "--user", "1000", "--dns", "127.0.0.1"),
        Agent(lab, wrap=wrap) as agent,
    ):
        wait_for(lambda: confs(agent).get("web", {}).get("listening") == [])
