"""The ladder: from what the kernel saw of a sender to whom its packets are charged. No I/O.

Before it, two things are known for certain: a packet that a cache sent for somebody else is that
client's (via="cache"), and on an ENI in a task's namespace all packets are the task's. Then:
(a) a tag of ours: the origin, with its container; (b) it came in by a known veth: that veth's
owner; (c) it was sent on this host: by cgroup; (d) the un-NATed source address of a known workload
(`ledger` does that one, for it needs counts); (e) unattributed. When in doubt, further down: a
packet charged to nobody is honest, one charged to the wrong workload is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from .inventory.cgroups import CONTAINER_ID, CgroupTree, workload_of_path
from .inventory.workloads import Owner, Workloads
from .model import UNATTRIBUTED, Origin, Remote, SenderKey, Workload

DIRECT = "direct"
CACHE = "cache"
KERNEL = Workload("host", workload="kernel")
NOBODY = Owner(UNATTRIBUTED)


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
class Ladder:
    """The ladder over one moment's inventory.

    Attributes:
        origins: By tag.
        veths: Indexes of the host-side veths our program is on.
        workloads: Who is behind a veth, a cgroup, an address.
        cgroups: The tree.
        remotes: Clients on other nodes, by the id an asker carries.
    """

    origins: Mapping[int, Origin]
    veths: Collection[int]
    workloads: Workloads
    cgroups: CgroupTree
    remotes: Mapping[int, Remote] = field(default_factory=dict)

    def judge(self, key: SenderKey) -> Verdict:
        """Whom the packets of *key* are charged to."""
        remote = self.remotes.get(key.asker) if key.asker else None
        if remote is not None:
            asker = Owner(Workload("remote", workload=remote.address))
            return Verdict(asker, Rung.ASKER, via=CACHE)
        behind = self.origins.get(key.asker) if key.asker else None
        if behind is not None:
            owner = self.workloads.of_veth(behind.ifindex, behind.cgroup_id)
            return Verdict(owner, Rung.ASKER, via=CACHE)
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
        if origin is not None and workload.kind != "container":
            return NOBODY  # the runtime's own socket in somebody's namespace, say; not the host's
        return Owner(workload, path, cgroup_id)

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
