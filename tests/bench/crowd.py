"""Many workloads in one process group: each a namespace, a pair, a cgroup and a socket of its own.

Run in the node by `workloads`: ``python -m tests.bench.crowd COUNT FIRST TABLES CGROUP RATE``. Says
on one line of JSON who there is, sends at RATE from SIGUSR1 on, and says at SIGTERM how much it
sent. Containers would do the same at twenty times the cost.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab import cgroups, vpc
from tests.lab.send import dns_query
from tests.lab.workloads import POD_GATEWAY

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_STEP_S = 0.01
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Member:
    """One workload, as a container runtime would describe it."""

    id: str
    pid: int
    address: str


class Crowd:
    """The parent: makes the members, holds their sockets, sends."""

    def __init__(self, count: int, first: int, cgroup: str) -> None:
        self.members: list[Member] = []
        self._sockets: list[socket.socket] = []
        self._talks: list[socket.socket] = []
        for number in range(first, first + count):
            self._add(number, cgroup)

    def _add(self, number: int, cgroup: str) -> None:
        container_id = hashlib.sha256(f"{cgroup}-{number}".encode()).hexdigest()
        ours, theirs = socket.socketpair()
        directory = cgroups.unified() / cgroup.lstrip("/") / container_id
        directory.mkdir(parents=True, exist_ok=True)
        address = f"10.53.2.{number}"
        pid = os.fork()
        if not pid:
            _member(theirs, directory, address, number)
        theirs.close()
        if ours.recv(1) != b"n":
            raise OSError(f"workload {number} has no namespace")
        self.members.append(Member(container_id, pid, address))
        self._talks.append(ours)

    def connect(self, first: int, tables: list[int]) -> None:
        """Make the pairs, then take one socket from each member."""
        lines = []
        for number, member in enumerate(self.members, start=first):
            name, mac = f"crowd{number}", f"02:53:01:00:02:{number:02x}"
            lines += [
                f"link add {name} address {_host_mac(number)} type veth"
                f" peer name eth0 address {mac} netns {member.pid}",
                f"link set {name} up",
                f"route add {member.address}/32 dev {name}",
                f"neigh replace {member.address} lladdr {mac} dev {name} nud permanent",
            ]
            table = tables[number % len(tables)]
            if table:
                lines.append(f"rule add from {member.address} table {table}")
        _ip(lines)
        for talk in self._talks:
            talk.sendall(b"p")
        for talk in self._talks:
            _, (fd,), _, _ = socket.recv_fds(talk, 1, 1)
            self._sockets.append(socket.socket(fileno=fd))

    def send(self, rate: int, stopped: list[int]) -> int:
        """Send in turn until *stopped* holds something; how many."""
        sent, begin = 0, time.monotonic()
        while not stopped:
            due = int((time.monotonic() - begin) * rate)
            for number in range(sent, due):
                query = dns_query(number, f"q{number}.lab.test")
                with contextlib.suppress(OSError):  # an ICMP error, or a full queue: not our matter
                    self._sockets[number % len(self._sockets)].send(query)
            sent = max(sent, due)
            time.sleep(_STEP_S)
        return sent

    def end(self) -> None:
        """End the members, by pid."""
        for member in self.members:
            os.kill(member.pid, signal.SIGKILL)
        for member in self.members:
            os.waitpid(member.pid, 0)


def _host_mac(number: int) -> str:
    return f"02:53:02:00:02:{number:02x}"


def _ip(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=True)


def _member(talk: socket.socket, cgroup: Path, address: str, number: int) -> None:
    """The child: into its cgroup and namespace, hand over a socket, sleep. Never returns."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        if _libc.unshare(_CLONE_NEWNET):
            os._exit(1)
        talk.sendall(b"n")
        talk.recv(1)
        _ip(
            [
                "link set lo up",
                "link set eth0 up",
                f"address add {address}/32 dev eth0",
                f"route add {POD_GATEWAY} dev eth0 scope link",
                f"neigh replace {POD_GATEWAY} lladdr {_host_mac(number)} dev eth0 nud permanent",
                f"route add default via {POD_GATEWAY} dev eth0",
            ]
        )
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect((vpc.RESOLVER, 53))
        socket.send_fds(talk, [b"s"], [sock.fileno()])
        sock.close()
        while True:
            signal.pause()
    finally:
        os._exit(1)


def main(count: int, first: int, tables: list[int], cgroup: str, rate: int) -> None:
    """Be a crowd until SIGTERM."""
    stopped: list[int] = []
    crowd = Crowd(count, first, cgroup)
    try:
        signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
        crowd.connect(first, tables)
        print(json.dumps([asdict(member) for member in crowd.members]), flush=True)
        told = signal.sigwait([signal.SIGUSR1, signal.SIGTERM])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        sent = crowd.send(rate, stopped) if told == signal.SIGUSR1 else 0
        print(json.dumps({"sent": sent}), flush=True)
    finally:
        crowd.end()


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        int(sys.argv[2]),
        [int(table) for table in sys.argv[3].split(",")],
        sys.argv[4],
        int(sys.argv[5]),
    )
