"""A cache on the lab's node: the real dnsmasq or unbound, as a process of the host."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab import vpc
from tests.lab.forwarder import READY, write_config
from tests.lab.lab import Lab
from tests.lab.processes import end
from tests.lab.tally import until


def bridge_address(lab: Lab) -> str:
    """The node's own address on docker0."""
    told = lab.node_exec(["ip", "-4", "-o", "addr", "show", "dev", "docker0"]).stdout
    return told.split("inet ")[1].split("/")[0]


def answers(lab: Lab, server: str) -> bool:
    """Whether there is a server; it is asked for what it knows by itself."""
    asked = lab.send("udp", "--to", server, "--name", "version.bind", "--settle", "0.3")
    return asked.answered == 1


@contextmanager
def unbound(lab: Lab, address: str) -> Iterator[subprocess.Popen[str]]:
    """The same with the real unbound, with a cache."""
    config, log = lab.directory / "hostcache.conf", lab.directory / "hostcache.log"
    write_config(config, listen=(address,), tcp=False, cache=True)
    running = lab.node_popen(["unbound", "-d", "-c", str(config)], log=log)

    def ready() -> bool:
        return lab.send("udp", "--to", address, "--name", READY, "--settle", "0.3").answered == 1

    try:
        assert until(ready), log.read_text()
        yield running
    finally:
        end([running.pid], grace=3)
        running.wait(10)


@contextmanager
def dnsmasq(lab: Lab, address: str, cgroup: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """It listens on *address* alone and asks the VPC's resolver."""
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]
    argv += ["--server", vpc.RESOLVER, "--listen-address", address, "--bind-interfaces"]
    argv += ["--cache-size=5000", "--local=/bind/", "--dns-forward-max=5000"]
    argv += ["--user=root", "--pid-file="]
    running = lab.node_popen(argv, cgroup=cgroup)
    try:
        assert until(lambda: answers(lab, address)), running.poll()
        yield running
    finally:
        end([running.pid], grace=3)
        running.wait(10)
