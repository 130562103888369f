"""ENIs that are not in the agent's namespace: those of ECS awsvpc tasks.

The ECS agent moves the ENI itself into the network namespace of a task's pause container, some time
after that container has started; the task's own containers start when it is there. With trunking
it is a VLAN device whose packets leave by the trunk: then it is only learned whose they are.

Belongs to the one thread that talks netlink, as `wiring` does.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .inventory.enis import NEVER
from .inventory.ethtool import Ethtool
from .inventory.links import Link, LinkEvents, LinkTable
from .inventory.netns import Netns, netns_inode
from .kernel.attach import TASK_HOOKS, Attacher, AttachError
from .kernel.layout import TASK_DEV
from .kernel.loader import Loaded
from .kernel.maps import Maps
from .kernel.netlink import NetlinkError
from .model import Branch
from .wiring import REASSERT_WINDOW_S, REASSERTIONS

_MAX_CLASS_ID = 0xFFFF  # of a filter's class id 16 bits reach the program
_MAX_TASKS = 512
_MEMORY = "qdiscs-"


@dataclass(frozen=True, slots=True)
class TaskEni:
    """An ENI in a task's namespace.

    Attributes:
        dev: The key its packets are counted under.
        netns: Inode of the namespace.
        link: As it looks in there; its index says nothing outside.
    """

    dev: int
    netns: int
    link: Link


@dataclass(slots=True)
class _Task:
    """One pause container's namespace. Sockets in it keep it alive: `unwatch` must come."""

    pid: int
    netns: Netns
    events: LinkEvents
    attacher: Attacher
    control: socket.socket
    eni: TaskEni | None = None
    branch: Branch | None = None
    failed: str = ""
    reasserted: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TaskNetsState:
    """What there is.

    Attributes:
        enis: By the key their packets are counted under.
        branches: Branch ENIs whose device is in a task's namespace.
        failed: Reason by a namespace that cannot be looked into or attached in.
        events: What to wait on, by inode: when one is readable, `TaskNets.look`.
    """

    enis: Mapping[int, TaskEni] = field(default_factory=dict)
    branches: tuple[Branch, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    events: Mapping[int, LinkEvents] = field(default_factory=dict)


class TaskNets:
    """Watches the namespaces of pause containers, and attaches to the ENI in each.

    Args:
        loaded: The programs.
        maps: Their maps.
        runtime_dir: Where the memory of our qdiscs is kept; None for none.
    """

    def __init__(self, loaded: Loaded, maps: Maps, runtime_dir: Path | None) -> None:
        self._loaded = loaded
        self._maps = maps
        self._runtime_dir = runtime_dir
        self._host = Netns.own()
        self._tasks: dict[int, _Task] = {}  # by inode
        self._failed: dict[int, tuple[int, str]] = {}  # by inode: process, reason
        self._last_id = 0
        if runtime_dir is not None:
            _forget_ended(runtime_dir)

    @property
    def state(self) -> TaskNetsState:
        """What is attached where, now."""
        tasks = self._tasks.values()
        failed = {f"net:[{task.netns.inode}]": task.failed for task in tasks if task.failed}
        return TaskNetsState(
            {task.eni.dev: task.eni for task in tasks if task.eni is not None},
            tuple(task.branch for task in tasks if task.branch is not None),
            failed | {f"net:[{inode}]": reason for inode, (_, reason) in self._failed.items()},
            {inode: task.events for inode, task in self._tasks.items()},
        )

    def watch(self, pid: int) -> None:
        """Begin with the namespace of a pause container."""
        netns = Netns.of_process(pid)
        if netns is None:
            return
        if netns.inode in self._tasks or netns.inode == self._host.inode:
            netns.close()
            return
        try:
            if len(self._tasks) >= _MAX_TASKS:
                raise AttachError(f"more than {_MAX_TASKS} tasks")
            with netns.entered(), contextlib.closing(LinkTable()) as table:
                attacher = Attacher(
                    table.ipr, self._loaded, "clsact", self._memory(netns.inode), self._next_id()
                )
                attacher.sweep({i: link.name for i, link in table.links().items()})
                # Before the first look: what comes after it is not missed.
                events = LinkEvents(routes=True)
                control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except (OSError, NetlinkError, AttachError) as error:
            self._failed[netns.inode] = pid, str(error)
            netns.close()
            return
        self._failed.pop(netns.inode, None)
        self._tasks[netns.inode] = _Task(pid, netns, events, attacher, control)
        self.look(netns.inode)

    def look(self, inode: int) -> None:
        """Something may have changed in there."""
        task = self._tasks.get(inode)
        if task is None:
            return
        try:
            with task.netns.entered(), contextlib.closing(LinkTable()) as table:
                task.attacher.use(table.ipr)
                changes = task.events.read()
                self._look(task, table, changes.gone)
                if changes.filtered or changes.lost:
                    self._defend(task)
            task.failed = ""
        except (OSError, NetlinkError, AttachError) as error:
            task.failed = str(error)

    def _look(self, task: _Task, table: LinkTable, gone: Collection[int]) -> None:
        links = table.links()
        found = [links[i] for i in table.default_route_interfaces() if i in links]
        # A tunnel that takes the default route (a VPN beside the application) rides on the ENI.
        found = [k for k in found if not k.loopback and (k.kind == "vlan" or k.kind not in NEVER)]
        link = found[0] if found else None
        task.branch = None
        if task.eni is not None:
            index = task.eni.link.index
            # One that went and is there again is another one, on which there is nothing of ours;
            # unless it came between the message and our last look.
            if index not in links or index in gone:
                task.attacher.forget(index)
                task.attacher.sweep({i: links[i].name for i in (index,) if i in links})
                self._lose(task)
        if link is None:
            return
        if link.kind == "vlan":
            # Counted at the trunk: a program here as well would count it twice.
            if link.link_netnsid is not None and table.nsid_of(self._host.fd) == link.link_netnsid:
                task.branch = Branch(link.link, link.vlan, link.mac.lower(), task.netns.inode)
            return
        if task.eni is not None and task.eni.link.index == link.index:
            return
        self._lose(task)
        dev = TASK_DEV | task.attacher.class_id
        self._maps.add_eni(dev)
        task.attacher.attach(link.index, link.name, TASK_HOOKS)
        task.eni = TaskEni(dev, task.netns.inode, link)

    def _defend(self, task: _Task) -> None:
        """Somebody changed filters: be first again, or a final verdict before us ends the count."""
        if task.eni is None or task.attacher.is_first(task.eni.link.index):
            return
        now_s = time.monotonic()
        task.reasserted = [t for t in task.reasserted if now_s - t < REASSERT_WINDOW_S]
        if len(task.reasserted) < REASSERTIONS:
            task.reasserted.append(now_s)
            task.attacher.reassert(task.eni.link.index)

    def _lose(self, task: _Task) -> None:
        """The ENI went away, or is the ENI no longer; another is another ENI.

        What it has counted is removed later, when it has been reported (`Node`).
        """
        if task.eni is None:
            return
        task.attacher.detach(task.eni.link.index)
        task.attacher.class_id = self._next_id()
        task.eni = None

    def allowances(self) -> dict[int, Mapping[str, int]]:
        """The ENA driver's own counters, by ENI; those whose driver has none are absent.

        Raises:
            SourceError: One has them and does not tell.
        """
        result = {}
        for task in self._tasks.values():
            if task.eni is not None:
                counters = Ethtool(task.control).allowances(task.eni.link.name)
                if counters is not None:
                    result[task.eni.dev] = counters
        return result

    def unwatch(self, inode: int) -> None:
        """The pause container has ended: let go of its namespace, or it stays for our sake."""
        self._failed.pop(inode, None)
        task = self._tasks.pop(inode, None)
        if task is None:
            return
        try:
            with task.netns.entered(), contextlib.closing(LinkTable()) as table:
                task.attacher.use(table.ipr)
                task.attacher.detach_all()
        except (OSError, NetlinkError):
            pass  # a namespace that is being taken down takes our filters with it
        task.events.close()
        task.control.close()
        task.netns.close()

    def check(self) -> tuple[int, ...]:
        """Try again what failed; returns what has ended without a word, to be unwatched.

        Not unwatched here: somebody waits on its socket.
        """
        dead = []
        for inode, (pid, _) in list(self._failed.items()):
            if netns_inode(pid) == inode:
                self.watch(pid)
            else:
                del self._failed[inode]
        for inode, task in self._tasks.items():
            if netns_inode(task.pid) != inode:
                dead.append(inode)
            else:
                self.look(inode)
        return tuple(dead)

    def stop(self) -> None:
        """Take everything off again."""
        for inode in list(self._tasks):
            self.unwatch(inode)
        self._host.close()

    def _memory(self, inode: int) -> Path | None:
        return self._runtime_dir / f"{_MEMORY}{inode}.json" if self._runtime_dir else None

    def _next_id(self) -> int:
        taken = {task.attacher.class_id for task in self._tasks.values()}
        while True:
            self._last_id = self._last_id % _MAX_CLASS_ID + 1
            if self._last_id not in taken:
                return self._last_id


def _forget_ended(runtime_dir: Path) -> None:
    """Drop what a killed eni53 remembered of namespaces that have ended since.

    Their inodes are given to the next ones, whose qdiscs would be taken for ours.
    """
    memories = list(runtime_dir.glob(f"{_MEMORY}*.json"))
    if not memories:
        return
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    living = {f"{_MEMORY}{netns_inode(pid)}.json" for pid in pids}
    for path in memories:
        if path.name not in living:
            with contextlib.suppress(OSError):
                path.unlink()
