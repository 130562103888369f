"""ECS tasks in network mode awsvpc: a pause container, an ENI in its namespace, then the rest.

Step by step, so that a test can start an agent in between::

    task = lab.awsvpc_task(family="shop")
    task.start_pause()              # a namespace with nothing but lo
    task.plug_eni()                 # eth0 appears in it; attach_eni() before: it moves there
    task.start_container("app")

``lab.run_awsvpc_task()`` does all of it.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import network, vpc
from .containers import Container
from .shell import LabError, environment, in_netns, run
from .vpc import TaskEni

if TYPE_CHECKING:
    from .lab import Lab

PAUSE = "~internal~ecs~pause"
# What the VPC's plugin calls an ENI that it takes out of a task: ecs and the MAC's first bytes.
_TAKEN_BACK = "ecs025300"
_SYSCTLS = (
    "net.ipv6.conf.all.disable_ipv6=0",
    "net.ipv6.conf.default.disable_ipv6=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
)
_GONE_S = 20.0


class AwsvpcTask:
    """One task. Made by Lab.awsvpc_task and Lab.run_awsvpc_task.

    Attributes:
        task_id: 32 hex digits.
        eni: Its ENI: id, MAC, addresses and the prefix of its counters.
        containers: The app containers by name, without pause.
    """

    def __init__(
        self,
        lab: Lab,
        eni: TaskEni,
        *,
        task_id: str,
        family: str,
        revision: int,
        cluster: str,
        in_imds: bool,
        ecs_bridge: bool,
    ) -> None:
        self.task_id = task_id
        self.family = family
        self.revision = revision
        self.cluster = cluster
        self.eni = eni
        self.containers: dict[str, Container] = {}
        self._lab = lab
        self._in_imds = in_imds
        self._ecs_bridge = ecs_bridge
        self._pause: Container | None = None
        self._attached = False
        self._plugged = False

    @property
    def pause(self) -> Container:
        """The container that holds the namespace."""
        if self._pause is None:
            raise LabError(f"task {self.task_id} has no pause container")
        return self._pause

    @property
    def pid(self) -> int:
        """Of the pause container, in the machine's pid namespace."""
        return self.pause.pid

    def attach_eni(self) -> None:
        """Attach the ENI to the node, where EC2 puts it first: ens101, ens102, ... and down."""
        peer = f"name {self.eni.node_interface} address {self.eni.mac} netns {self._lab.node_ns}"
        self._make_pair(peer)
        self._attached = True

    def start_pause(self) -> Container:
        """Start the container that holds the namespace, which has no interface but lo."""
        self._pause = self._start(PAUSE, "none")
        return self._pause

    def plug_eni(self) -> None:
        """Put the ENI into the namespace, as eth0, with the default route."""
        eni = self.eni
        self.exec(["sysctl", "-qw", *_SYSCTLS])
        if self._attached:
            move = f"link set {eni.node_interface} netns {self.pid} name eth0"
            network.batch(self._lab.node_ns, [move])
        else:
            self._make_pair(f"name eth0 address {eni.mac} netns {self.pid}")
        self._plugged = True
        self._lab.introspection.plugged(self.task_id, eni)
        self.exec(["ethtool", "-K", "eth0", *network.OFFLOADS])
        self._batch(
            [
                "link set eth0 up",
                f"address add {eni.ipv4}/24 dev eth0",
                f"address add {eni.ipv6}/64 dev eth0 nodad",
                f"neigh replace {vpc.GATEWAY} lladdr {vpc.GATEWAY_MAC} dev eth0 nud permanent",
                f"neigh replace {vpc.GATEWAY6} lladdr {vpc.GATEWAY_MAC} dev eth0 nud permanent",
                f"route add default via {vpc.GATEWAY} dev eth0",
                f"route add default via {vpc.GATEWAY6} dev eth0",
            ]
        )
        if self._ecs_bridge:
            self._plug_bridge()

    def start_container(self, name: str, *, command: Sequence[str] = ()) -> Container:
        """Start an app container in the namespace; without a *command* it sleeps."""
        self.containers[name] = self._start(name, f"container:{self.pause.id}", command)
        return self.containers[name]

    def exec(
        self, argv: Sequence[str], *, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the machine in the task's network namespace, in no container."""
        argv = ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv]
        return run(argv, env=environment(self._lab.id), check=check, stdin=stdin)

    def tell_imds(self) -> None:
        """Let the IMDS list the ENI from now on: it tells of a new one late (in_imds=False)."""
        self._lab.list_eni(self.eni)

    def counted(self, what: str) -> int:
        """One counter of its ENI: ``ip_udp_resolver``, ... It can be read after the end, too."""
        return self._lab.counters()[f"{self.eni.counters}_{what}"]

    def unplug_eni(self) -> None:
        """Take the ENI out of the namespace, by the node if it came by there, and delete it."""
        if self._plugged and self._ecs_bridge:
            self._batch(["link delete ecs-eth0"])
        if self._plugged and self._attached:
            back = f"link set eth0 netns {self._lab.node_ns} name {_TAKEN_BACK}"
            self._batch(["link set eth0 down", back])
        network.batch(self._lab.vpc_ns, [f"link delete {self.eni.uplink}"])
        self._part()

    def remove(self) -> None:
        """End the task as the ECS agent does: its containers, the ENI, then pause."""
        for container in self.containers.values():
            container.remove()
        self.containers.clear()
        if self._plugged or self._attached:
            self.unplug_eni()
        if self._pause is not None:
            self._pause.remove()
            self._pause = None
        self._lab.introspection.stopped(self.task_id, wanted=True)

    def vanish(self) -> None:
        """End the task at once, its ENI still in the namespace, which takes it along.

        Raises:
            LabError: Something holds the namespace still, 20 s after its last container.
        """
        pid, apps = self.pid, [container.id for container in self.containers.values()]
        self._lab.docker("rm", "-f", self.pause.id, *apps)
        self.containers.clear()
        self._pause = None
        self._lab.introspection.stopped(self.task_id, wanted=False)
        deadline = time.monotonic() + _GONE_S
        show = [*in_netns(self._lab.vpc_ns), "ip", "link", "show", self.eni.uplink]
        while self._plugged and run(show, check=False).returncode == 0:
            if time.monotonic() > deadline:
                raise LabError(f"the namespace of {pid} is held by something, {_GONE_S:g} s on")
            time.sleep(0.02)
        if self._plugged:
            self._part()

    def _start(self, name: str, network_mode: str, command: Sequence[str] = ()) -> Container:
        return self._lab.run_task(
            self.family,
            self.revision,
            name,
            task_id=self.task_id,
            cluster=self.cluster,
            network=network_mode,
            command=command,
        )

    def _make_pair(self, peer: str) -> None:
        eni, vpc_ns = self.eni, self._lab.vpc_ns
        network.batch(
            vpc_ns,
            [
                f"link add {eni.uplink} type veth peer {peer}",
                f"link set {eni.uplink} master vpc0",
                f"neigh replace {eni.ipv4} lladdr {eni.mac} dev vpc0 nud permanent",
                f"neigh replace {eni.ipv6} lladdr {eni.mac} dev vpc0 nud permanent",
            ],
        )
        run([*in_netns(vpc_ns), "ethtool", "-K", eni.uplink, *network.OFFLOADS])
        self._lab.join_eni(eni, in_imds=self._in_imds)
        # Last: what came in before the rules are loaded would be counted nowhere.
        network.batch(vpc_ns, [f"link set {eni.uplink} up"])

    def _part(self) -> None:
        self._plugged = self._attached = False
        gone = [f"neigh delete {address} dev vpc0" for address in (self.eni.ipv4, self.eni.ipv6)]
        network.batch(self._lab.vpc_ns, gone)
        self._lab.part_eni(self.eni)

    def _plug_bridge(self) -> None:
        """The way to the credentials: a pair to a bridge on the node, for one address only."""
        node_ns, bridge = self._lab.node_ns, vpc.ECS_BRIDGE
        if run([*in_netns(node_ns), "ip", "link", "show", bridge], check=False).returncode:
            network.batch(
                node_ns,
                [
                    f"link add {bridge} type bridge mcast_snooping 0",
                    f"address add {vpc.ECS_BRIDGE_GATEWAY}/22 dev {bridge}",
                    # Without it the node would send what is meant for the agent to the VPC.
                    f"address add {vpc.ECS_CREDENTIALS}/32 dev {bridge}",
                    f"link set {bridge} up",
                ],
            )
        host = "veth" + hashlib.sha1(self.task_id.encode(), usedforsecurity=False).hexdigest()[:8]
        network.batch(
            node_ns,
            [
                f"link add {host} type veth peer name ecs-eth0 netns {self.pid}",
                f"link set {host} master {bridge}",
                f"link set {host} up",
            ],
        )
        self._batch(
            [
                "link set ecs-eth0 up",
                f"address add {self.eni.bridge_ipv4}/22 dev ecs-eth0",
                f"route add {vpc.ECS_CREDENTIALS}/32 via {vpc.ECS_BRIDGE_GATEWAY} dev ecs-eth0",
            ]
        )

    def _batch(self, lines: Sequence[str]) -> None:
        self.exec(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
