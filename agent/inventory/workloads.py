"""Who is behind a veth, and which container of theirs a cgroup is.

The network namespace names the workload, always; the cgroup only picks the container within it. A
cgroup that is foreign to the namespace (dockerd's own for its embedded resolver, none for a packet
without a socket, an old one) still belongs to the namespace's owner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..model import Workload

PAUSE = "~internal~ecs~pause"
"""Name of the container that only holds the namespace of an ECS awsvpc task."""

_MAX_ENDED = 4096


@dataclass(frozen=True, slots=True)
class Container:
    """A container as far as attribution needs it.

    Attributes:
        id: The runtime's id.
        workload: Task, pod or container, with the container's name within it.
        netns: Inode of its network namespace; None when it could not be learned.
        netns_id: Number by which the host's namespace knows it; None likewise, and for host mode.
        cgroup_id: Id of its cgroup; None when it has none in v2.
        cgroup: Path of that cgroup.
        addresses: Its own IP addresses.
        host_network: Whether it lives in the agent's own network namespace.
    """

    id: str
    workload: Workload
    netns: int | None
    netns_id: int | None
    cgroup_id: int | None
    cgroup: str | None
    addresses: tuple[str, ...] = ()
    host_network: bool = False


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom packets are charged to, and the cgroup they came from if there is exactly one."""

    workload: Workload
    cgroup: str | None = None
    cgroup_id: int | None = None


class Workloads:
    """Containers, running and lately ended, and the veths that lead to them."""

    def __init__(self) -> None:
        self._containers: dict[str, Container] = {}
        self._ended: dict[str, Container] = {}
        self._veth_netns: dict[int, int] = {}
        self._veth_nsid: dict[int, int] = {}

    # --- what the sources say ---------------------------------------------------------------

    def add(self, container: Container) -> None:
        """A container runs. Binds every veth that leads to its namespace now."""
        self._containers[container.id] = container
        self._ended.pop(container.id, None)
        self._bind(container)

    def end(self, container_id: str) -> None:
        """A container has ended; it keeps its name for the packets it has sent."""
        container = self._containers.pop(container_id, None)
        if container is None:
            return
        self._ended[container_id] = container
        while len(self._ended) > _MAX_ENDED:
            self._ended.pop(next(iter(self._ended)))

    @property
    def running(self) -> frozenset[str]:
        """Ids of the containers that run."""
        return frozenset(self._containers)

    def is_running(self, workload: Workload) -> bool:
        """Whether any container of *workload*, in the ledger's sense, still runs."""
        wanted = replace(workload, container="")
        return any(replace(c.workload, container="") == wanted for c in self._containers.values())

    def veth_appeared(self, ifindex: int, netns_id: int) -> None:
        """A veth leads to namespace *netns_id*. That number is reused once the namespace is gone."""
        if self._veth_nsid.get(ifindex) != netns_id:
            self._veth_nsid[ifindex] = netns_id
            self._veth_netns.pop(ifindex, None)
        for container in self._containers.values():
            self._bind(container)

    def veth_gone(self, ifindex: int) -> None:
        """A veth is gone; what it was bound to stays, for its packets are still being reported."""
        self._veth_nsid.pop(ifindex, None)

    def forget_veth(self, ifindex: int) -> None:
        """Every packet of a veth that is gone has been reported."""
        if ifindex not in self._veth_nsid:
            self._veth_netns.pop(ifindex, None)

    def _bind(self, container: Container) -> None:
        if container.netns is None or container.netns_id is None or container.host_network:
            return
        for ifindex, nsid in self._veth_nsid.items():
            if nsid == container.netns_id:
                self._veth_netns[ifindex] = container.netns

    # --- what attribution asks --------------------------------------------------------------

    def of_veth(self, ifindex: int, cgroup_id: int | None) -> Owner | None:
        """Owner of packets from a veth; None when nobody is known to be behind it (yet).

        Args:
            ifindex: The host's end.
            cgroup_id: Of the sending socket; None or foreign: the owner without a container.
        """
        netns = self._veth_netns.get(ifindex)
        if netns is None:
            return None
        members = self._members(lambda c: c.netns == netns)
        if not members:
            return None
        for member in members:
            if cgroup_id and member.cgroup_id == cgroup_id:
                return Owner(member.workload, member.cgroup, member.cgroup_id)
        real = [m for m in members if m.workload.container != PAUSE] or members
        if len(real) == 1:
            return Owner(real[0].workload, real[0].cgroup, real[0].cgroup_id)
        # Plain containers that share a namespace are workloads of their own: the first one, whose
        # namespace it is, stands for them.
        return Owner(replace(members[0].workload, container=""))

    def of_cgroup(self, cgroup_id: int) -> Owner | None:
        """Owner of a local sender's cgroup; None when no container has it."""
        for member in self._members(lambda c: c.cgroup_id == cgroup_id):
            return Owner(member.workload, member.cgroup, member.cgroup_id)
        return None

    def of_address(self, address: str) -> Owner | None:
        """Owner of an un-NATed source address; None when unknown or not of one workload alone."""
        members = [c for c in self._containers.values() if address in c.addresses]
        owners = {replace(member.workload, container="") for member in members}
        if len(owners) != 1:
            return None
        return Owner(owners.pop())

    def _members(self, wanted: Callable[[Container], bool]) -> list[Container]:
        """Running ones first, in the order in which they started; then those that ended."""
        running = [c for c in self._containers.values() if wanted(c)]
        return running or [c for c in self._ended.values() if wanted(c)]
