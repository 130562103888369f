"""Which interfaces there are: what netlink and others tell, handed on to who counts and names.

Host interfaces come from `wiring`, ENIs of awsvpc tasks from `tasknets`; both belong to the netlink
thread, and hand over frozen values. This is the event loop's side of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from .branch_entries import BranchEntries
from .eni_names import EniNames
from .errors import NeedError, SourceError
from .faults import Faults
from .inventory.cni import CniFacts
from .inventory.links import Changes, Link, LinkEvents
from .inventory.names import pod_workload
from .inventory.pod_eni import BranchEni
from .inventory.workloads import Workloads
from .kernel.levels import Watch
from .kernel.maps import Maps
from .kernel.netlink import NetlinkError
from .model import Branch, Eni
from .pipeline import Pipeline
from .task_enis import TaskEnis
from .tasknets import TaskNets, TaskNetsState
from .threads import Threads
from .wiring import Wired, Wiring

_RESYNC_S = 60.0
_MOVES_WITHIN = 20  # tenths of a second


class Interfaces:
    """Follows links, ENIs and their branches, and the namespaces of tasks.

    Args:
        threads: The netlink thread and the loop.
        names: What an ENI is called.
        workloads: Told of veths and of tasks' ENIs.
        faults: Where it is counted when an interface cannot be attached to.
        veth_appeared: Asks who is in a namespace, by its number.
        cilium_changed: Called when Cilium came or went.

    Attributes:
        tasks: Told of pause containers.
        attach_s: Seconds between a veth's message and its program, the slowest so far.
    """

    def __init__(
        self,
        threads: Threads,
        names: EniNames,
        workloads: Workloads,
        faults: Faults,
        veth_appeared: Callable[[int], Coroutine[Any, Any, None]],
        cilium_changed: Callable[[], None],
    ) -> None:
        self._threads = threads
        self._names = names
        self._workloads = workloads
        self._faults = faults
        self._veth_appeared = veth_appeared
        self._cilium_changed = cilium_changed
        self._wired = Wired({}, {}, {})
        self._task_nets = TaskNetsState()
        self._reading = False
        self.tasks = TaskEnis(threads, self._tasks_changed)
        self.attach_s = 0.0

    async def start(
        self,
        events: LinkEvents,
        wiring: Wiring,
        nets: TaskNets,
        pipeline: Pipeline,
        watch: Watch,
        maps: Maps,
    ) -> None:
        """Attach to all there is, and follow it.

        Args:
            events: Since before the first list, so that nothing is missed.
            wiring: Of the host's interfaces.
            nets: Of the tasks' namespaces.
            pipeline: Told which ENIs to follow.
            watch: Told of limits.
            maps: Told of branch ENIs.

        Raises:
            NeedError: There is no ENI, or none that can be attached to.
        """
        self._loop = asyncio.get_running_loop()
        self._events, self._wiring = events, wiring
        self._pipeline, self._watch = pipeline, watch
        self._entries = BranchEntries(maps, self._faults.attach_failed)
        # Before the ENIs: else the first packets of their branches count as the trunk's own.
        await self.tasks.start(nets)
        self._rewired(await self._threads.on_netlink(wiring.start), starting=True)
        self._loop.add_reader(events.socket, self._links_changed)
        self._reading = True

    def stop(self) -> None:
        """Hear nothing more; what is attached is its owners' to take off."""
        if self._reading:
            self._loop.remove_reader(self._events.socket)
            self._reading = False
        self.tasks.stop()

    @property
    def cilium(self) -> bool:
        """Cilium's devices are here."""
        return self._wired.cilium

    @property
    def veths(self) -> Mapping[int, int]:
        """Host-side veths: index to the number of the namespace behind them."""
        return self._wired.veths

    @property
    def enis(self) -> Collection[int]:
        """Indexes of the host's ENIs."""
        return self._wired.enis.keys()

    async def resync_for_ever(self) -> None:
        """Now and then compare with the kernel's own lists."""
        while True:
            await asyncio.sleep(_RESYNC_S)
            await self._rewire(self._wiring.resync)
            await self.tasks.check()

    async def read_allowances(self, every_s: float) -> None:
        """What the driver says of drops; it is asked in the thread, for the device may be slow."""
        while True:
            try:
                found = await self._threads.on_netlink(self._wiring.allowances)
                self._pipeline.allowances = found | await self.tasks.allowances()
            except SourceError as error:
                self._faults.failed("ethtool", str(error))
            await asyncio.sleep(every_s)

    # --- of the host -------------------------------------------------------------------------

    def _links_changed(self) -> None:
        try:
            changes = self._events.read()
        except OSError as error:
            self._faults.failed("netlink", error.strerror or type(error).__name__)
            changes = Changes(lost=True)
        if changes.lost:
            self._faults.failed("netlink", "overrun")
        self._threads.spawn(self._rewire(lambda: self._wiring.apply(changes)))

    async def _rewire(self, work: Callable[[], Wired]) -> None:
        try:
            self._rewired(await self._threads.on_netlink(work))
        except (OSError, NetlinkError, NeedError) as error:
            self._faults.failed("attach", str(error) or type(error).__name__)

    def _rewired(self, wired: Wired, *, starting: bool = False) -> None:
        before, self._wired = self._wired, wired
        for index in before.veths.keys() - wired.veths.keys():
            self._workloads.veth_gone(index)
        for index, nsid in wired.veths.items():
            if before.veths.get(index) != nsid:
                self._workloads.veth_appeared(index, nsid)
                self._threads.spawn(self._veth_appeared(nsid))
        if wired.cilium != before.cilium:
            self._cilium_changed()
        for index in before.enis.keys() - wired.enis.keys():
            self._pipeline.remove_eni(index)
        for name, reason in wired.failed.items():
            self._faults.attach_failed(name, reason)
        self.attach_s = max(self.attach_s, wired.attach_s)
        self._pipeline.present = wired.enis.keys() | self._task_nets.enis.keys()
        self._set_branches()
        for index in wired.enis.keys() - before.enis.keys():
            link = wired.enis[index]
            if starting:
                self._follow(link, index, "host", self._names.known(link))
            else:
                self._threads.spawn(self._follow_late(link, index, "host"))

    def _follow(self, link: Link, dev: int, netns: str, label: str) -> None:
        self._pipeline.add_eni(Eni(label, link.mac.lower(), link.name, netns, dev))
        self._watch.follow(self._pipeline.limits)

    async def _follow_late(self, link: Link, dev: int, netns: str) -> None:
        label = await self._names.label(link)
        for _ in range(_MOVES_WITHIN):  # from the host: that it left there may be told later
            if not self._pipeline.is_taken(label, dev):
                break
            await asyncio.sleep(0.1)
        if netns != "host":
            self._follow(link, dev, netns, label)
            if dev not in self._task_nets.enis:  # it ended meanwhile, and has yet to be told of
                self._pipeline.retire_eni(dev, time.monotonic())
        elif dev in self._wired.enis:
            self._follow(link, dev, netns, label)

    def cni_says(self, facts: CniFacts) -> None:
        """Addresses of pods, and which ENIs are trunks."""
        self._workloads.set_pod_addresses(
            {a: pod_workload(pod.namespace, pod.pod) for a, pod in facts.addresses.items()}
        )
        for index, link in self._wired.enis.items():
            if self._names.known(link) in facts.trunks:
                self._threads.spawn(self._declare_trunk(index))

    def pods_say(self, written: tuple[BranchEni, ...]) -> None:
        """Which branch ENIs are written on pods."""
        # Anybody who may edit a pod may write there. So it names only a branch that is here by
        # itself, with that VLAN id and that MAC, and takes no name from another ENI.
        here = {(branch.vlan, branch.mac) for branch in self._branches()}
        for eni in written:
            if (eni.vlan, eni.mac) in here and not self._names.is_taken(eni.eni_id):
                self._names.learn({eni.mac: eni.eni_id})

    async def _declare_trunk(self, index: int) -> None:
        try:
            await self._threads.on_netlink(lambda: self._wiring.add_trunk(index))
        except OSError as error:
            self._faults.failed("trunk", error.strerror or type(error).__name__)

    def _branches(self) -> tuple[Branch, ...]:
        return (*self._wired.branches, *self._task_nets.branches)

    def _set_branches(self) -> None:
        others = self._pipeline.set_branches(self._branches(), self._names.id_of)
        self._entries.follow(self._branches(), self._wired.enis, others)
        self._watch.follow(self._pipeline.limits)

    def tidy(self, now_s: float) -> None:
        """Forget the branch ENIs that are over; right after a sample, in which they were silent."""
        self._entries.remove(self._pipeline.take_ended_branches(now_s))

    # --- of tasks ----------------------------------------------------------------------------

    async def _tasks_changed(self, state: TaskNetsState) -> None:
        before, self._task_nets = self._task_nets, state
        self._pipeline.present = self._wired.enis.keys() | state.enis.keys()
        for dev in before.enis.keys() - state.enis.keys():
            self._pipeline.retire_eni(dev, time.monotonic())
        for name, reason in state.failed.items():
            self._faults.attach_failed(name, reason)
        for branch in state.branches:
            await self._threads.on_netlink(lambda branch=branch: self._wiring.add_branch(branch))  # type: ignore[misc]
        self._set_branches()
        for dev in state.enis.keys() - before.enis.keys():
            eni = state.enis[dev]
            self._workloads.eni_appeared((dev, 0), eni.netns)
            self._threads.spawn(self._follow_late(eni.link, dev, f"net:[{eni.netns}]"))
