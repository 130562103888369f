"""What answers: unbound and the IMDS in the vpc namespace, ECS's and the CNI's on the node."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from . import vpc
from .metadata import Metadata
from .shell import HERE, PYTHON, daemon_environment, in_netns, popen, run, sender, wait_until

ALIASES = 40

Started = Callable[[subprocess.Popen[str]], None]

# Nothing is forwarded and no root is asked: "." is static, so all else is NXDOMAIN.
_UNBOUND = """\
server:
  verbosity: 0
  use-syslog: no
  logfile: ""
  do-daemonize: no
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{directory}"
  {interfaces}
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  do-ip4: yes
  do-ip6: yes
  num-threads: 1
  so-rcvbuf: 4m
  module-config: "iterator"
  local-zone: "." static
  local-data: ". 60 IN SOA lab.test. root.lab.test. 1 3600 600 86400 60"
  local-zone: "lab.test." redirect
  local-data: "lab.test. 60 IN A 10.53.100.1"
  local-data: "lab.test. 60 IN AAAA fd53:100::1"
  local-zone: "refused.test." refuse
  local-zone: "corp.internal." static
  local-data: "db.corp.internal. 60 IN A 10.53.100.7"
  local-zone: "svc.corp.internal." redirect
  local-data: "svc.corp.internal. 2 IN A 10.53.100.8"
  local-zone: "100.53.10.in-addr.arpa." static
  local-data-ptr: "10.53.100.7 60 db.corp.internal."
  {aliases}
  {large}
remote-control:
  control-enable: no
"""


def unbound_config(directory: Path) -> str:
    """The resolver's configuration.

    Zones: ``*.lab.test`` answers A and AAAA (TTL 60 s); ``large.test`` has TXT records that fit
    no UDP answer, so a client goes on by TCP; ``*.refused.test`` is REFUSED; others NXDOMAIN.
    A private hosted zone, which no server of the internet knows: ``db.corp.internal`` (and its
    reverse name), ``*.svc.corp.internal`` with the 2 s of service discovery. And aliases, of
    which the answer is the CNAME alone: ``0.alias.test`` to ``39`` stand for ``t0.lab.test`` …
    """
    addresses = [*vpc.RESOLVERS4, vpc.RESOLVER6]
    text = "x" * 200
    large = ['local-zone: "large.test." static']
    large += [f"local-data: 'large.test. 60 IN TXT \"{n:02d}{text}\"'" for n in range(10)]
    aliases = ['local-zone: "alias.test." static']
    aliases += [f'local-data: "{n}.alias.test. 60 IN CNAME t{n}.lab.test."' for n in range(ALIASES)]
    return _UNBOUND.format(
        directory=directory,
        interfaces="\n  ".join(f"interface: {address}" for address in addresses),
        aliases="\n  ".join(aliases),
        large="\n  ".join(large),
    )


def start_resolver(netns: str, directory: Path, lab_id: str, *, started: Started) -> None:
    """Start unbound in *netns*; return when it has answered on each of its addresses.

    *started* gets the process before it is ready, so that a failed start is ended too.
    """
    config, log = directory / "unbound.conf", directory / "unbound.log"
    config.write_text(unbound_config(directory))
    env = daemon_environment(lab_id, directory)
    process = popen([*in_netns(netns), "unbound", "-d", "-c", str(config)], env, log)
    started(process)

    def answers(address: str) -> bool:
        probe = sender("udp", "--to", address, "--wait-answers", "--settle", "0.1", "--strict")
        return run([*in_netns(netns), *probe], check=False).returncode == 0

    for address in (vpc.RESOLVER6, *vpc.RESOLVERS4):
        wait_until("unbound", lambda to=address: answers(to), process, log)  # type: ignore[misc]


def start_imds(
    netns: str, directory: Path, lab_id: str, served: Metadata, *, started: Started
) -> None:
    """Start the metadata service in *netns*; return when it listens on both addresses."""
    log = directory / "imds.log"
    served.write()
    script = [PYTHON, "-I", str(HERE / "imds.py"), str(served.path), vpc.IMDS4, vpc.IMDS6]
    process = popen([*in_netns(netns), *script], daemon_environment(lab_id, directory), log)
    started(process)

    def listens() -> bool:
        sockets = run([*in_netns(netns), "ss", "-Hltn", "sport = :80"]).stdout
        return vpc.IMDS4 in sockets and vpc.IMDS6 in sockets

    wait_until("the IMDS", listens, process, log)


def start_introspection(netns: str, directory: Path, lab_id: str, *, started: Started) -> None:
    """Start what the ECS agent and the VPC CNI serve in *netns*; return when both listen."""
    state, log = directory / "introspection.json", directory / "introspection.log"
    script = [PYTHON, "-I", str(HERE / "introspection.py"), str(state)]
    process = popen([*in_netns(netns), *script], daemon_environment(lab_id, directory), log)
    started(process)

    def listens() -> bool:
        sockets = run([*in_netns(netns), "ss", "-Hltn"]).stdout
        return ":51678 " in sockets and ":61679 " in sockets

    wait_until("the introspection", listens, process, log)
