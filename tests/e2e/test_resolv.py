"""Containers' own resolv.conf in the lab: read from real containers, some of which lay traps."""

from __future__ import annotations

import contextlib
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


def test_who_listens_in_its_namespace_is_told(lab: Lab) -> None:
    """Somebody, or nobody; in the node, only what is served there."""
    listen = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM);"
    listen += " s.bind(('127.0.0.1', 53)); time.sleep(600)"
    with running(lab, "alone", "--dns", "127.0.0.1"), running(lab, "cache") as cache:
        write(cache, "nameserver 127.0.0.1\n")
        cache.exec(["/bin/sh", "-c", f'/usr/bin/python3 -c "{listen}" >/dev/null 2>&1 &'])
        wait_for(lambda: "0035" in cache.exec(["cat", "/proc/net/udp"]).stdout)
        with Agent(lab) as agent:
            wait_for(lambda: {"alone", "cache"} <= set(confs(agent)))
            found = confs(agent)
            assert agent.snapshot()["on_node"] == []
    assert found["alone"]["listening"] == []
    assert found["cache"]["listening"] == ["127.0.0.1"]


def test_a_cache_of_the_node_is_told(lab: Lab) -> None:
    """It listens on the bridge's address; another server there is no address of the node."""
    gateway = lab.docker("network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}")
    listen = "import socket, sys, time; s = socket.socket(type=socket.SOCK_DGRAM);"
    listen += " s.bind((sys.argv[1], 53)); time.sleep(600)"
    cache = lab.node_popen(["/usr/bin/python3", "-c", listen, gateway.strip()])
    try:
        with running(lab, "web", "--dns", gateway.strip(), "--dns", vpc.RESOLVER):
            wait_for(lambda: "0035" in lab.node_exec(["cat", "/proc/net/udp"]).stdout)
            with Agent(lab) as agent:
                wait_for(lambda: agent.snapshot()["on_node"] == [gateway.strip()])
    finally:
        cache.terminate()
        cache.communicate(timeout=10)


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


@pytest.mark.parametrize(
    "trap", [link_out, link_through_proc, fifo, sparse, folder, device, missing]
)
def test_a_trap_leaks_nothing_and_counting_goes_on(
    lab: Lab, secret: Path, trap: Callable[[Container, Path], None]
) -> None:
    """Unknown for that container; all others are read, and its packets are counted."""
    with (
        running(lab, "trap", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined",
                "--security-opt", "seccomp=unconfined") as bad,
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
