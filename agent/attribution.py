"""The ladder: from what the kernel saw of a sender to whom its packets are charged. No I/O.

(a) a tag of ours: the origin, with its container; (b) it came in by a known veth: that veth's
owner; (c) it was sent on this host: by cgroup; (d) the un-NATed source address of a known workload
(`ledger` does that one, for it needs counts); (e) unattributed. When in doubt, further down: a
packet charged to nobody is honest, one charged to the wrong workload is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from .inventory.cgroups import CgroupTree, workload_of_path
from .inventory.workloads import Owner, Workloads
from .model import UNATTRIBUTED, Origin, SenderKey, Workload

KERNEL = Workload("host", workload="kernel")
NOBODY = Owner(UNATTRIBUTED)


class Rung(Enum):
    """How far down the ladder a sender was found."""

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
    """

    owner: Owner | None
    rung: Rung
    tag_lost: bool = False


@dataclass(frozen=True, slots=True)
class Ladder:
    """The ladder over one moment's inventory.

    Attributes:
        origins: By tag.
        veths: Indexes of the host-side veths our program is on.
        workloads: Who is behind a veth, a cgroup, an address.
        cgroups: The tree.
    """

    origins: Mapping[int, Origin]
    veths: Collection[int]
    workloads: Workloads
    cgroups: CgroupTree

    def judge(self, key: SenderKey) -> Verdict:
        """Whom the packets of *key* are charged to."""
        if not key.ingress:
            return Verdict(self._local(key.cgroup_id), Rung.LOCAL)
        origin = self.origins.get(key.origin) if key.origin else None
        if origin is not None and key.ingress in self.veths and key.ingress != origin.ifindex:
            # It came straight from another veth than the tag says: the tag is somebody else's
            # mark in the same field, and the veth cannot be forged.
            origin = None
        if origin is not None:
            return Verdict(self._behind(origin.ifindex, origin.cgroup_id), Rung.TAG)
        if key.ingress in self.veths:
            return Verdict(self._behind(key.ingress, 0), Rung.VETH, tag_lost=True)
        return Verdict(NOBODY, Rung.NOWHERE)

    def settle(self, key: SenderKey) -> Owner:
        """The best that can be said of a sender that stayed without an owner for too long."""
        origin = self.origins.get(key.origin) if key.origin else None
        cgroup_id = origin.cgroup_id if origin is not None else key.cgroup_id
        path = self.cgroups.path_of(cgroup_id) if cgroup_id else None
        if path is None or path == "/":
            return NOBODY
        return Owner(workload_of_path(path), path, cgroup_id)

    def _behind(self, ifindex: int, cgroup_id: int) -> Owner | None:
        return self.workloads.of_veth(ifindex, cgroup_id)

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
        if workload.kind == "container":
            return None  # its runtime is about to tell its name
        return Owner(workload, path, cgroup_id)
