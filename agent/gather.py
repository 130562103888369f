"""Puts together what several sources say of one container, and places it on this machine.

A name comes from one source and a pid from another, in any order. Only when both are there is a
container known to attribution. Places are looked up at once, in the source's thread: a container
may be gone a tenth of a second later.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from .inventory.cgroups import CgroupTree
from .inventory.netns import Netns, netns_inode
from .inventory.runtime import Seen
from .inventory.workloads import Container, Workloads
from .model import Workload

_MAX_NAMES = 1024  # of containers that have ended, or whose pid nobody has told


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process is on this machine.

    Attributes:
        netns: Inode of its network namespace.
        netns_id: Number by which the agent's namespace knows it; None when it has none.
        cgroup: (path, id); None when it has none in version 2.
        host_network: Whether it is in the agent's own namespace.
    """

    pid: int
    netns: int | None
    netns_id: int | None
    cgroup: tuple[str, int] | None
    host_network: bool

    @property
    def whole(self) -> bool:
        """Whether there is no more to learn, for as long as the process lives."""
        return self.cgroup is not None and (self.host_network or self.netns_id is not None)


class Placer:
    """Looks places up; any thread may.

    Args:
        cgroups: The tree.
        nsid_of: Number of a namespace by a descriptor of it, from the thread that talks netlink.
    """

    def __init__(self, cgroups: CgroupTree, nsid_of: Callable[[int], int | None]) -> None:
        self._cgroups = cgroups
        self._nsid_of = nsid_of

    def place(self, container_id: str, pid: int) -> Place:
        """Where the process *pid* of a container is; what cannot be learned is None."""
        netns = Netns.of_process(pid)
        cgroup = self._cgroups.of_container(container_id, pid)
        if netns is None:
            return Place(pid, None, None, cgroup, host_network=False)
        with contextlib.closing(netns):
            # Held meanwhile, so that the number cannot become another namespace's.
            host = netns.inode == netns_inode(os.getpid())
            nsid = None if host else self._nsid_of(netns.fd)
            return Place(pid, netns.inode, nsid, cgroup, host)


@dataclass(slots=True)
class _Known:
    """What is known of one container so far."""

    workload: Workload | None = None
    place: Place | None = None
    addresses: tuple[str, ...] = ()
    pause: bool = False
    sources: set[str] = field(default_factory=set)


class Gather:
    """Every container that any source speaks of. Belongs to the event loop.

    Args:
        workloads: Gets those that are known well enough.
        paused: Called with a pause container's pid when it is there.
        unpaused: Called with the inode of its namespace when it has ended.
    """

    def __init__(
        self,
        workloads: Workloads,
        paused: Callable[[int], None],
        unpaused: Callable[[int], None],
    ) -> None:
        self._workloads = workloads
        self._paused = paused
        self._unpaused = unpaused
        self._known: dict[str, _Known] = {}

    @property
    def nameless(self) -> frozenset[str]:
        """Ids of containers that run and whose name nobody has told."""
        return frozenset(
            i for i, k in self._known.items() if k.place is not None and k.workload is None
        )

    @property
    def running(self) -> tuple[tuple[str, Workload, Place], ...]:
        """Those that have a name and a process: id, whose it is, where it is."""
        return tuple(
            (i, k.workload, k.place)
            for i, k in self._known.items()
            if k.workload is not None and k.place is not None
        )

    def listed(self, source: str, found: tuple[tuple[Seen, Place | None], ...]) -> None:
        """These and no others of *source* are there; what only it knew of besides has ended."""
        there = {seen.id for seen, _ in found}
        for container_id, known in list(self._known.items()):
            if source in known.sources and container_id not in there:
                known.sources.discard(source)
                if not known.sources:
                    self.ended(container_id)
        for seen, place in found:
            self.seen(source, seen, place)

    def seen(self, source: str, seen: Seen, place: Place | None) -> None:
        """*source* says so much of a container; *place* if it gave a pid."""
        known = self._known.pop(seen.id, None) or _Known()
        self._known[seen.id] = known  # at the end: the one that was heard of last
        known.workload = seen.workload or known.workload
        known.addresses = seen.addresses or known.addresses
        known.pause = known.pause or seen.pause
        if place is not None:
            known.sources.add(source)
            if known.place is None or place.netns is not None or known.place.pid != place.pid:
                known.place = place
        self._forget_some()
        if known.workload is not None and known.place is not None:
            self._add(seen.id, known, known.workload, known.place)

    def perhaps_behind(self, netns_id: int) -> tuple[tuple[str, Place], ...]:
        """Those that a new veth to that namespace may lead to; most of them have ended by now.

        Either their namespace had this number, or it had none, since nothing led to it.
        """
        return tuple(
            (i, k.place)
            for i, k in self._known.items()
            if k.place is not None
            and not k.place.host_network
            and k.place.netns_id in {netns_id, None}
        )

    def placed_again(self, container_id: str, before: Place, now: Place) -> None:
        """It has been looked at anew; the same process in the same namespace says it still runs."""
        known = self._known.get(container_id)
        if known is None or known.place is not before or now.netns != before.netns:
            return
        known.place = now
        if known.workload is not None:
            self._add(container_id, known, known.workload, now)

    def named(self, container_id: str, workload: Workload) -> None:
        """A source that knows names alone has one."""
        if container_id in self._known:
            self.seen("", Seen(container_id, workload), None)

    def ended(self, container_id: str) -> None:
        """It has ended. Its name is kept: it may start again, and its create event is long past."""
        known = self._known.get(container_id)
        if known is None:
            return
        place, known.place = known.place, None
        known.sources.clear()
        self._workloads.end(container_id)
        if known.pause and place is not None and place.netns is not None:
            self._unpaused(place.netns)

    def _add(self, container_id: str, known: _Known, workload: Workload, place: Place) -> None:
        self._workloads.add(
            Container(
                id=container_id,
                workload=workload,
                netns=place.netns,
                netns_id=place.netns_id,
                cgroup_id=place.cgroup[1] if place.cgroup else None,
                cgroup=place.cgroup[0] if place.cgroup else None,
                addresses=known.addresses,
                host_network=place.host_network,
            )
        )
        if known.pause and not place.host_network:
            self._paused(place.pid)

    def _forget_some(self) -> None:
        if len(self._known) <= _MAX_NAMES:
            return
        idle = [i for i, known in self._known.items() if known.place is None]
        for container_id in idle[: len(self._known) - _MAX_NAMES]:
            del self._known[container_id]
