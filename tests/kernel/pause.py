"""Pause containers: processes in network namespaces without a name, and the ENIs they are given."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
from collections.abc import Callable

from eni53.inventory.netns import Netns, netns_inode
from eni53.tasknets import TaskEni, TaskNets

from .kernel import Kernel
from .netns import Namespace, run, until


class Pause:
    """A process in a network namespace that has no name, as a pause container is."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        before = Netns.own()
        before.close()
        assert until(lambda: netns_inode(self.pid) not in {before.inode, None})
        self.inode = netns_inode(self.pid) or 0
        # Or messages about addresses come at any time, and nothing is ever quiet.
        self.enter("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")

    @property
    def pid(self) -> int:
        """Of the process that is in it."""
        return self.process.pid

    def enter(self, *command: str) -> str:
        """Run a command in it."""
        return run("nsenter", "-t", str(self.pid), "-n", *command)

    def ip(self, *arguments: str) -> str:
        """``ip`` in it."""
        return self.enter("ip", *arguments)

    def end(self) -> None:
        """End the process; the namespace ends when nobody holds it."""
        self.process.kill()
        self.process.wait()

    def send(self, count: int) -> None:
        """Datagrams to the resolver."""
        netns = Netns.of_process(self.pid)
        assert netns is not None
        with contextlib.closing(netns), netns.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            for _ in range(count):
                sender.sendto(b"question", ("10.0.0.2", 53))

    def traces(self, interface: str = "eth1") -> str:
        """What ``tc`` shows on an interface."""
        shown = self.enter("tc", "qdisc", "show", "dev", interface)
        for direction in ("ingress", "egress"):
            shown += self.enter("tc", "filter", "show", "dev", interface, direction)
        return "\n".join(line for line in shown.splitlines() if "noqueue" not in line)


def move_in(
    host: Namespace, pause: Pause, name: str = "eth1", index: int = 0, vpc: str = "vpc"
) -> None:
    """The ECS agent moves an ENI into the task; its other end stays, to be seen vanishing."""
    numbered = ("index", str(index)) if index else ()
    host.ip("link", "add", name, *numbered, "type", "veth", "peer", "name", vpc)
    host.ip("link", "set", name, "netns", str(pause.pid))
    host.ip("addr", "add", "10.0.0.2/24", "dev", vpc)
    host.ip("link", "set", vpc, "up")


def set_up(pause: Pause, name: str = "eth1") -> None:
    """Its address, and a neighbour, for nobody answers there."""
    pause.ip("addr", "add", "10.0.0.1/24", "dev", name)
    pause.ip("link", "set", name, "up")
    pause.ip("neigh", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", name)


def route(pause: Pause, name: str = "eth1") -> None:
    """What makes it the task's ENI."""
    pause.ip("route", "add", "default", "via", "10.0.0.2", "dev", name)


def stirs(nets: TaskNets, pause: Pause, seconds: float = 5.0) -> bool:
    """Whether the event loop would be woken."""
    events = nets.state.events[pause.inode].socket
    return bool(select.select([events], [], [], seconds)[0])


def follow(nets: TaskNets, pause: Pause, truth: Callable[[], bool]) -> None:
    """What the agent does when it is woken, and no more, until *truth*."""
    while not truth():
        assert stirs(nets, pause), "nobody would look again"
        nets.look(pause.inode)


def calm(nets: TaskNets, pause: Pause) -> None:
    """Look until nothing stirs."""
    nets.look(pause.inode)
    while stirs(nets, pause, 0.3):
        nets.look(pause.inode)


def attached(host: Namespace, nets: TaskNets, pause: Pause, index: int = 0) -> TaskEni:
    """A task with its ENI, watched."""
    move_in(host, pause, index=index)
    set_up(pause)
    route(pause)
    nets.watch(pause.pid)
    return the_eni(nets)


def the_eni(nets: TaskNets) -> TaskEni:
    """The only one."""
    (eni,) = nets.state.enis.values()
    return eni


def counted(kernel: Kernel) -> dict[int, int]:
    """Packets by dev."""
    found: dict[int, int] = {}
    for key, packets in kernel.maps.read().senders.items():
        found[key.dev] = found.get(key.dev, 0) + packets
    return found
