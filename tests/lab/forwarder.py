"""A pod that is a DNS cache: unbound, with the machine's binary, in place of CoreDNS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import vpc
from .shell import LabError, sender, tail

if TYPE_CHECKING:
    from .podexec import PodContainer
    from .pods import Pod

# Answered without asking anyone, so that the wait for readiness counts nowhere.
READY = "ready.test"

# One upstream query per question: nothing ahead of time, nothing for parts of the name, and none
# again when the VPC's resolver is held up for a moment (by itself it waits for 50 ms). Without
# "nodefault", unbound itself says NXDOMAIN to all of *.test and asks nobody.
_UNBOUND = """\
server:
  verbosity: 0
  use-syslog: no
  logfile: ""
  do-daemonize: no
  username: ""
  chroot: ""
  pidfile: ""
  directory: "/tmp"
  {interfaces}
  access-control: 0.0.0.0/0 allow
  do-ip6: no
  num-threads: 1
  so-rcvbuf: {rcvbuf}
  module-config: "iterator"
  qname-minimisation: no
  prefetch: no
  infra-cache-min-rtt: 5000
  {cache}
  tcp-upstream: {tcp}
  local-zone: "test." nodefault
  local-zone: "{ready}." static
  local-data: "{ready}. 60 IN A 127.0.0.1"
forward-zone:
  name: "."
  forward-addr: {upstream}
remote-control:
  control-enable: no
"""


def write_config(
    path: Path, *, listen: tuple[str, ...], tcp: bool, cache: bool, rcvbuf: str = "0"
) -> None:
    """A configuration that sends all to the VPC's resolver.

    Without *cache* it still answers equal questions that wait at the same time by one query.
    *rcvbuf* above the system's limit needs NET_ADMIN; "0" is the system's own.
    """
    text = _UNBOUND.format(
        interfaces="\n  ".join(f"interface: {address}" for address in listen),
        cache="" if cache else "cache-max-ttl: 0\n  cache-max-negative-ttl: 0",
        tcp="yes" if tcp else "no",
        rcvbuf=rcvbuf,
        ready=READY,
        upstream=vpc.RESOLVER,
    )
    path.write_text(text)


def command(config: Path) -> list[str]:
    """What a container runs; *config* is in the lab's share."""
    return ["/usr/sbin/unbound", "-d", "-c", f"/share/{config.name}"]


def wait_ready(pod: Pod, container: PodContainer, address: str, log: Path) -> None:
    """Return when it answers on *address*.

    Raises:
        LabError: It ended, or did not in five seconds; with what it said.
    """
    probe = ["udp", "--to", address, "--name", READY, "--wait-answers", "--settle", "0.1"]
    for _ in range(50):
        if container.exec(sender(*probe, "--strict", at="/lab"), check=False).returncode == 0:
            return
    raise LabError(f"{pod.name} does not answer on {address}:\n{tail(log)}")
