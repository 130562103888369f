"""The ladder: from what the kernel saw of a sender to whom its packets are charged. No I/O.

Before it, two things are known for certain: a packet that a cache sent for somebody else is that
client's (via="cache"), and on an ENI in a task's namespace all packets are the task's. What a cache
sends for nobody is its own, as kind="cache", whoever it is. Then:
(a) a tag of ours: the origin, with its container; (b) it came in by a known veth: that veth's
owner; (c) it was sent on this host: by cgroup; (d) the un-NATed source address of a known workload
(`ledger` does that one, for it needs counts); (e) unattributed. When in doubt, further down: a
packet charged to nobody is honest, one charged to the wrong workload is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from .inventory.cgroups import CONTAINER_ID, CgroupTree, workload_of_path
from .inventory.workloads import Owner, Workloads
from .kernel.layout import LOOPBACK
from .model import UNATTRIBUTED, Workload
from .sample import Origin, Remote, SenderKey

DIRECT = "direct"
CACHE = "cache"
KERNEL = Workload("host", workload="kernel")
NOBODY = Owner(UNATTRIBUTED)

Place = tuple[int, int]
"""A sender as the kernel tells them apart: (index of its veth, or 0 on this host; cgroup id)."""


class Rung(Enum):
    """How far down the ladder a sender was found."""

    ASKER = auto()
    ENI = auto()
    TAG = auto()
    VETH = auto()
    LOCAL = auto()
    NOWHERE = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who sent, and how sure that is.

    Attributes:
        owner: None when a veth or a cgroup is known but nobody is behind it yet: ask again.
        rung: Where on the ladder the answer was found.
        tag_lost: It came by a veth of ours and should have carried a tag.
        via: ``cache`` when the owner asked and another one sent.
    """

    owner: Owner | None
    rung: Rung
    tag_lost: bool = False
    via: str = DIRECT


@dataclass(frozen=True, slots=True)
class Caches:
    """Senders that ask upstream for others.

    Attributes:
        places: All of them.
        workloads: Who those are that have a name by now.
    """

    places: frozenset[Place] = frozenset()
    workloads: frozenset[Workload] = frozenset()


@dataclass(frozen=True, slots=True)
class Ladder:
    """The ladder over one moment's inventory.

    Attributes:
        origins: By tag.
        veths: Indexes of the host-side veths our program is on.
        workloads: Who is behind a veth, a cgroup, an address.
        cgroups: The tree.
        remotes: Clients on other nodes, by the id an asker carries.
        caches: Who asks upstream for others.
    """

    origins: Mapping[int, Origin]
    veths: Collection[int]
    workloads: Workloads
    cgroups: CgroupTree
    remotes: Mapping[int, Remote] = field(default_factory=dict)
    caches: Caches = Caches()

    def judge(self, key: SenderKey) -> Verdict:
        """Whom the packets of *key* are charged to."""
        remote = self.remotes.get(key.asker) if key.asker else None
        if remote is not None:
            asker = Owner(Workload("remote", workload=remote.address))
            return Verdict(asker, Rung.ASKER, via=CACHE)
        behind = self.origins.get(key.asker) if key.asker else None
        if behind is not None:
            if behind.ifindex == LOOPBACK:
                return Verdict(self._local(behind.cgroup_id), Rung.ASKER, via=CACHE)
            owner = self.workloads.of_veth(behind.ifindex, behind.cgroup_id)
            return Verdict(owner, Rung.ASKER, via=CACHE)
        verdict = self.judge_sender(key)
        return replace(verdict, owner=self._as_cache(key, verdict.owner))

    def judge_sender(self, key: SenderKey) -> Verdict:
        """Who put the packets of *key* on the ENI, whomever they are for."""
        task = self.workloads.of_eni((key.dev, key.vlan), key.cgroup_id)
        if task is not None:
            return Verdict(task, Rung.ENI)
        if not key.ingress:
            return Verdict(self._local(key.cgroup_id), Rung.LOCAL)
        origin = self._origin(key)
        if origin is not None:
            owner = self.workloads.of_veth(origin.ifindex, origin.cgroup_id)
            return Verdict(owner, Rung.TAG)
        if self._is_veth(key.ingress):
            return Verdict(self.workloads.of_veth(key.ingress, 0), Rung.VETH, tag_lost=True)
        return Verdict(NOBODY, Rung.NOWHERE)

    def settle(self, key: SenderKey) -> Owner:
        """The best that can be said of a sender that stayed without an owner for too long."""
        origin = self.origins.get(key.asker) if key.asker else None
        origin = origin or self._origin(key)
        cgroup_id = origin.cgroup_id if origin is not None else key.cgroup_id
        path = self.cgroups.path_of(cgroup_id) if cgroup_id else None
        if path is None or path == "/":
            return NOBODY
        workload = workload_of_path(path)
        inside = origin is not None and origin.ifindex != LOOPBACK
        if inside and workload.kind != "container":
            return NOBODY  # the runtime's own socket in somebody's namespace, say; not the host's
        owner = Owner(workload, path, cgroup_id)
        return owner if key.asker in self.origins else self._as_cache(key, owner) or owner

    def place(self, key: SenderKey) -> Place | None:
        """Which sender *key* is; None for the kernel and for who is not told apart."""
        if not key.ingress:
            return (0, key.cgroup_id) if key.cgroup_id else None
        if self.workloads.of_eni((key.dev, key.vlan), 0) is not None:
            return None  # a namespace of its own has other interfaces
        origin = self._origin(key)
        if origin is not None:
            return origin.ifindex, origin.cgroup_id
        return (key.ingress, 0) if self._is_veth(key.ingress) else None

    def _as_cache(self, key: SenderKey, owner: Owner | None) -> Owner | None:
        """*owner*, as the cache it is if it is one."""
        if not self.caches.places or owner is None or owner.workload == UNATTRIBUTED:
            return owner
        place = self.place(key)
        if place is None:
            return owner
        # A packet without a socket (the last ACK of a connection) has no cgroup, or lost its tag.
        is_its = not place[1] and owner.workload in self.caches.workloads
        if place not in self.caches.places and not is_its:
            return owner
        return replace(owner, workload=replace(owner.workload, kind=CACHE))

    def _origin(self, key: SenderKey) -> Origin | None:
        origin = self.origins.get(key.origin) if key.origin else None
        if origin is not None and key.ingress != origin.ifindex and self._is_veth(key.ingress):
            # It came straight from another veth than the tag says: the tag is somebody else's
            # mark in the same field, and the veth cannot be forged.
            return None
        return origin

    def _is_veth(self, ifindex: int) -> bool:
        """Whether packets by it are a workload's; `veths` knows them a little earlier."""
        return ifindex in self.veths or self.workloads.knows_veth(ifindex)

    def _local(self, cgroup_id: int) -> Owner | None:
        if not cgroup_id:
            return Owner(KERNEL)
        owner = self.workloads.of_cgroup(cgroup_id)
        if owner is not None:
            return owner
        path = self.cgroups.path_of(cgroup_id)
        if path is None:
            return None
        workload = workload_of_path(path)
        inside = CONTAINER_ID.search(path)
        if inside:  # or in a cgroup below it; else its runtime is about to tell its name
            return self.workloads.of_container(inside[1])
        return Owner(workload, path, cgroup_id)
