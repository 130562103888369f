"""Who is behind a veth, and which container of theirs a cgroup is.

The network namespace names the workload, always; the cgroup only picks the container within it. A
cgroup that is foreign to the namespace (dockerd's own for its embedded resolver, none for a packet
without a socket, an old one) still belongs to the namespace's owner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..model import Workload

PAUSE = "~internal~ecs~pause"
"""Name of the container that only holds the namespace of an ECS awsvpc task."""

_MAX_ENDED = 1024
_MAX_ENDED_TOGETHER = 64  # in one namespace: a pod's container may crash for days
_MAX_OWNERS = 64  # remembered of one namespace: anybody in it may make cgroups


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


class _Namespace:
    """One life of a network namespace: its numbers are given to the next one at once."""

    def __init__(self) -> None:
        self.running: dict[str, Container] = {}
        self.ended: dict[str, Container] = {}
        self._owners: dict[int | None, Owner] = {}

    def enter(self, container: Container) -> None:
        """One runs in it."""
        self.ended.pop(container.id, None)
        self.running[container.id] = container
        self._owners.clear()

    def leave(self, container: Container) -> bool:
        """One has ended; False when it was not in it."""
        if self.running.pop(container.id, None) is None:
            return False
        _keep(self.ended, container, _MAX_ENDED_TOGETHER)
        self._owners.clear()
        return True

    def owner(self, cgroup_id: int | None) -> Owner:
        """Whose it is; with the container when the cgroup, or being the only one, tells it."""
        owner = self._owners.get(cgroup_id)  # each tick asks for the same ones
        if owner is None:
            if len(self._owners) >= _MAX_OWNERS:
                self._owners.clear()
            owner = self._owners[cgroup_id] = self._find_owner(cgroup_id)
        return owner

    def _find_owner(self, cgroup_id: int | None) -> Owner:
        for member in (*self.running.values(), *self.ended.values()):
            if cgroup_id and member.cgroup_id == cgroup_id and not _only_holds(member):
                return Owner(member.workload, member.cgroup, member.cgroup_id)
        present = list((self.running or self.ended).values())
        real = [member for member in present if not _only_holds(member)]
        if len(real) == 1:
            return Owner(real[0].workload, real[0].cgroup, real[0].cgroup_id)
        # Plain containers that share a namespace are workloads of their own: the first one, whose
        # namespace it is, stands for them.
        return Owner(replace(present[0].workload, container=""))


def _only_holds(container: Container) -> bool:
    """Whether it is there to hold the namespace of a task or a pod, and sends nothing itself."""
    workload = container.workload
    return workload.container == PAUSE or (workload.kind == "pod" and not workload.container)


class Workloads:
    """Containers, running and lately ended, and the veths that lead to them."""

    def __init__(self) -> None:
        self._running: dict[str, Container] = {}
        self._ended: dict[str, Container] = {}
        self._names: Counter[Workload] = Counter()
        self._by_cgroup: dict[int, Container] = {}
        self._namespaces: dict[int, _Namespace] = {}  # by inode, of running containers
        self._behind: dict[int, _Namespace] = {}  # by veth, gone ones included
        self._veth_nsid: dict[int, int] = {}
        self._gone: dict[int, None] = {}  # veths, the one that went first in front
        self._pod_addresses: Mapping[str, Workload] = {}
        self._behind_eni: dict[tuple[int, int], _Namespace] = {}  # a task's own ENI

    # --- what the sources say ---------------------------------------------------------------

    def add(self, container: Container) -> None:
        """A container runs. Every veth that leads to its namespace now is its own."""
        known = self._running.get(container.id)
        if known is not None and known.netns != container.netns:
            self.end(container.id)  # it was restarted, and nobody told us of the end
        elif known is not None:
            self._names[_whole(known)] -= 1
        self._ended.pop(container.id, None)
        self._running[container.id] = container
        self._names[_whole(container)] += 1
        if container.cgroup_id is not None:
            self._by_cgroup[container.cgroup_id] = container
        if container.netns is None or container.host_network:
            return
        namespace = self._namespaces.get(container.netns)
        if namespace is None or (
            container.id not in namespace.running and self._lost_its_veths(namespace)
        ):
            namespace = self._namespaces[container.netns] = _Namespace()
        namespace.enter(container)
        for ifindex, nsid in self._veth_nsid.items():
            if nsid == container.netns_id:
                self._behind[ifindex] = namespace

    def end(self, container_id: str) -> None:
        """A container has ended; it keeps its name for the packets it has sent."""
        container = self._running.pop(container_id, None)
        if container is None:
            return
        self._names[_whole(container)] -= 1
        self._names += Counter()  # drops what is zero
        _keep(self._ended, container, _MAX_ENDED, self._forget_cgroup)
        namespace = self._namespaces.get(container.netns or 0)
        if namespace is None or not namespace.leave(container):
            return
        if not namespace.running and container.netns is not None:
            # Whoever gets this inode next starts a life of its own; veths still lead to this one.
            del self._namespaces[container.netns]

    @property
    def running(self) -> frozenset[str]:
        """Ids of the containers that run."""
        return frozenset(self._running)

    def is_running(self, workload: Workload) -> bool:
        """Whether any container of *workload*, in the ledger's sense, still runs."""
        return self._names[replace(workload, container="")] > 0

    def veth_appeared(self, ifindex: int, netns_id: int) -> None:
        """A veth leads to namespace *netns_id*.

        That number may have been another namespace's a moment ago, whose containers' end we have
        yet to hear of. So nobody is bound here: either a container that is added says it is in
        there, or the first packet finds one that still runs (`_namespace_of`).
        """
        if self._veth_nsid.get(ifindex) != netns_id:
            self._veth_nsid[ifindex] = netns_id
            self._gone.pop(ifindex, None)
            self._behind.pop(ifindex, None)

    def veth_gone(self, ifindex: int) -> None:
        """A veth is gone; what it was bound to stays, for its packets are still being reported."""
        self._namespace_of(ifindex)
        self._veth_nsid.pop(ifindex, None)
        self._gone[ifindex] = None
        while len(self._gone) > _MAX_ENDED:  # one that never sent anything is never reported
            self.forget_veth(next(iter(self._gone)))

    def forget_veth(self, ifindex: int) -> None:
        """Every packet of a veth that is gone has been reported."""
        if ifindex not in self._veth_nsid:
            self._gone.pop(ifindex, None)
            self._behind.pop(ifindex, None)

    def set_pod_addresses(self, addresses: Mapping[str, Workload]) -> None:
        """Which pod has which address, as the CNI has given them out."""
        self._pod_addresses = addresses

    def eni_appeared(self, place: tuple[int, int], netns: int) -> None:
        """An ENI (device key, VLAN id) belongs to a task: to whoever lives in *netns* now."""
        namespace = self._namespaces.get(netns)
        if namespace is not None:
            self._behind_eni[place] = namespace

    def eni_gone(self, place: tuple[int, int]) -> None:
        """Every packet of such an ENI has been reported."""
        self._behind_eni.pop(place, None)

    def _forget_cgroup(self, container: Container) -> None:
        if container.cgroup_id and self._by_cgroup.get(container.cgroup_id) is container:
            del self._by_cgroup[container.cgroup_id]

    def _namespace_of(self, ifindex: int) -> _Namespace | None:
        """What a veth leads to; one that appeared after its container is bound here."""
        namespace = self._behind.get(ifindex)
        nsid = self._veth_nsid.get(ifindex)
        if namespace is not None or nsid is None:
            return namespace
        for container in reversed(self._running.values()):
            if container.netns_id == nsid and container.netns in self._namespaces:
                candidate = self._namespaces[container.netns]
                if not self._lost_its_veths(candidate):
                    self._behind[ifindex] = candidate
                    return candidate
        return None

    def _lost_its_veths(self, namespace: _Namespace) -> bool:
        """Whether it had veths and has none now: probably dead, and its number somebody else's."""
        had = [index for index, behind in self._behind.items() if behind is namespace]
        return bool(had) and not any(index in self._veth_nsid for index in had)

    # --- what attribution asks --------------------------------------------------------------

    def knows_veth(self, ifindex: int) -> bool:
        """Whether it is a workload's veth, or was one whose last packets are being reported."""
        return ifindex in self._veth_nsid or ifindex in self._gone

    def of_veth(self, ifindex: int, cgroup_id: int | None) -> Owner | None:
        """Owner of packets from a veth; None when nobody is known to be behind it (yet).

        Args:
            ifindex: The host's end.
            cgroup_id: Of the sending socket; None or foreign: the owner without a container.
        """
        namespace = self._namespace_of(ifindex)
        if namespace is not None:
            return namespace.owner(cgroup_id)
        # A container that ended before its veth was heard of. Its cgroup is never another's.
        member = self._by_cgroup.get(cgroup_id) if cgroup_id else None
        if member is None or member.host_network or member.id in self._running:
            return None
        return Owner(member.workload, member.cgroup, member.cgroup_id)

    def of_eni(self, place: tuple[int, int], cgroup_id: int) -> Owner | None:
        """Owner of packets on a task's own ENI; None when it is no task's.

        One on the host's network that puts frames on a trunk by itself does not become the task
        whose VLAN it chose.
        """
        namespace = self._behind_eni.get(place)
        if namespace is None:
            return None
        sender = self._by_cgroup.get(cgroup_id)
        if sender is not None and sender.host_network:
            return Owner(sender.workload, sender.cgroup, sender.cgroup_id)
        return namespace.owner(cgroup_id)

    def of_cgroup(self, cgroup_id: int) -> Owner | None:
        """Owner of a local sender's cgroup; None when no container has it."""
        member = self._by_cgroup.get(cgroup_id)
        return Owner(member.workload, member.cgroup, member.cgroup_id) if member else None

    def of_container(self, container_id: str) -> Owner | None:
        """Owner by the container's id, for a cgroup that is below the container's own."""
        member = self._running.get(container_id) or self._ended.get(container_id)
        return Owner(member.workload, member.cgroup, member.cgroup_id) if member else None

    def of_address(self, address: str) -> Owner | None:
        """Owner of an un-NATed source address; None when unknown or not of one workload alone."""
        owners = {_whole(c) for c in self._running.values() if address in c.addresses}
        if not owners and address in self._pod_addresses:
            return Owner(self._pod_addresses[address])
        return Owner(owners.pop()) if len(owners) == 1 else None


def _whole(container: Container) -> Workload:
    return replace(container.workload, container="")


def _keep(
    ended: dict[str, Container],
    container: Container,
    most: int,
    dropped: Callable[[Container], None] = lambda _: None,
) -> None:
    """Remember *container*, and no more than the *most* that ended last."""
    ended[container.id] = container
    while len(ended) > most:
        dropped(ended.pop(next(iter(ended))))
