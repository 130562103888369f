"""The one place that wires the stages: kernel and inventory in, one `Snapshot` a tick out.

One event loop. Netlink has a thread of its own, since pyroute2's sockets block; the runtimes have
theirs, and what else is asked is asked in threads too. Everything that reaches the loop is a frozen
value.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from .config import Config
from .eni_names import EniNames
from .errors import NeedError, SourceError
from .faults import Faults
from .findings import DropWatch, eni_findings, resolver_unknown
from .gather import Gather, Placer
from .inventory.cgroups import CgroupTree, find_root
from .inventory.cni import CniFacts
from .inventory.conntrack import ConntrackWatch
from .inventory.links import Changes, Link, LinkEvents, LinkTable
from .inventory.names import pod_workload
from .inventory.pod_eni import BranchEni
from .inventory.resolvers import Resolvers, read_resolv_confs, resolver_addresses
from .inventory.workloads import Workloads
from .kernel.child import CompilerChild
from .kernel.layout import SLOT_NS
from .kernel.levels import Watch
from .kernel.loader import Loaded, load
from .kernel.maps import Maps
from .kernel.netlink import NetlinkError
from .kernel.remotes import RemotePool
from .kernel.tags import TagPool
from .model import Branch, Eni, Finding, Health, Sample, Snapshot
from .pipeline import Pipeline
from .resolv_watch import ResolvWatch
from .sources import Sources
from .tasknets import TaskNets, TaskNetsState
from .wiring import Wired, Wiring, find_enis, has_cilium

_T = TypeVar("_T")
_RESYNC_S = 60.0
_RUNTIME_WAIT_S = 1.5
_IMDS_RETRY_S = 30.0
_ALLOWANCES_S = 5.0
_MOVES_WITHIN = 20  # tenths of a second
_LOCK_NAME = b"\0eni53"  # an abstract socket: one to a network namespace, gone with its process


class Node:
    """Counts and attributes in the network namespace it is started in.

    Args:
        config: What the user wants.
        keep_memory: Remember in the runtime directory what must be cleaned after a kill -9; a
            one-shot `top` leaves nothing there.
        child: Compiles the programs already; None starts one.
    """

    def __init__(
        self, config: Config, *, keep_memory: bool = True, child: CompilerChild | None = None
    ) -> None:
        self._config = config
        self._child = child
        self._faults = Faults()
        self._runtime_dir = config.runtime_dir if keep_memory else None
        self._netlink = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._closers: list[Callable[[], object]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._workloads = Workloads()
        self._cgroups = CgroupTree(find_root())
        self._wired = Wired({}, {}, {})
        self._drops = DropWatch()
        self._conntrack = ConntrackWatch()
        self._task_nets = TaskNetsState()
        self._readers: dict[int, LinkEvents] = {}
        self._nets: TaskNets | None = None
        self._paused_early: list[int] = []
        self._resolvers = Resolvers((), False, "unknown")
        self._load_s = 0.0
        self._attach_s = 0.0
        self._reading = False
        self.mode = ""
        self.on_crossing: Callable[[], None] = lambda: None

    # --- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load, attach, and learn who is here. On failure nothing is left behind.

        Raises:
            NeedError: This node lacks something, or another eni53 counts here already.
        """
        try:
            await self._start()
        except NetlinkError as error:
            await self.stop()
            raise NeedError(
                f"the kernel refused a netlink request: {error}; `eni53 check` says what is there"
            ) from error
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        self._take_lock()
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._names = EniNames(self._config.runtime.imds, self._faults)
        self._gather = Gather(self._workloads, self._paused, self._unpaused)
        placer = Placer(self._cgroups, self._nsid_of)
        self._sources = Sources(
            self._config,
            self._faults,
            self._cgroups,
            placer,
            self._gather,
            self._cni_says,
            self._pods_say,
        )
        self._resolv = ResolvWatch(lambda: self._gather.running, self._faults.failed)
        self._table = await self._on_netlink(LinkTable)
        self._closers.append(lambda: self._netlink.submit(self._table.close).result())
        # First, for it is the most common mistake and answers at once.
        await self._on_netlink(lambda: find_enis(self._table, self._config.eni.interfaces))
        self._sources.start(loop)
        loaded, _ = await asyncio.gather(asyncio.to_thread(load, self._child), self._names.lookup())
        self._closers.append(loaded.close)
        self._load_s = loaded.load_s
        await self._attach(loaded)
        await asyncio.to_thread(self._sources.wait_listed, _RUNTIME_WAIT_S)
        self._faults.speak()
        self._spawn(self._resync_for_ever())
        self._spawn(self._read_allowances())
        self._spawn(self._resolv.run())
        if self._names.configured and self._names.facts is None:
            self._spawn(self._await_imds())

    async def _attach(self, loaded: Loaded) -> None:
        self._maps = Maps(loaded)
        self._closers.append(self._maps.close)
        self._events = LinkEvents()  # before the first list: what comes after it is not missed
        self._closers.append(self._events.close)
        alerts, limit = self._config.alerts, self._config.limit
        parts = (alerts.warning, alerts.critical)
        self._watch = Watch(loaded, self._maps, parts, limit.pps, limit.basis)
        self._closers.append(self._watch.close)
        self._wiring = await self._on_netlink(
            lambda: Wiring(
                self._table,
                loaded,
                self._maps,
                self._config.attach,
                self._config.eni.interfaces,
                self._runtime_dir,
            )
        )
        self._closers.append(lambda: self._netlink.submit(self._wiring.stop).result())
        self._resolvers = await self._on_netlink(self._find_resolvers)
        # Before anything is attached: else Cilium's packets get tags of ours until we know of it.
        cilium = await self._on_netlink(lambda: has_cilium(self._table.links().values()))
        self._maps.set_resolvers(
            self._resolvers.addresses, write_tags=not cilium, names=self._config.names.enabled
        )
        self.mode = self._wiring.mode
        self._pipeline = Pipeline(self._config, self._workloads, self._cgroups, time.monotonic_ns())
        self._tags = TagPool(
            self._maps,
            self._pipeline.ledger.forget_sender,
            self._cgroups.exists,
        )
        self._remotes = RemotePool(self._maps, self._pipeline.ledger.forget_sender)
        nets = await self._on_netlink(lambda: TaskNets(loaded, self._maps, self._runtime_dir))
        self._closers.append(lambda: self._netlink.submit(nets.stop).result())
        self._nets = nets
        # Before the ENIs: else the first packets of their branches count as the trunk's own.
        for pid in self._paused_early:
            await self._on_netlink(lambda pid=pid: nets.watch(pid))  # type: ignore[misc]
        await self._tasks_changed()
        self._rewired(await self._on_netlink(self._wiring.start), starting=True)
        self._loop.add_reader(self._events.socket, self._links_changed)
        self._loop.add_reader(self._watch.fd, self._crossed)
        self._reading = True

    async def stop(self) -> None:
        """Take everything off again, in the reverse order."""
        if self._reading:
            self._loop.remove_reader(self._events.socket)
            self._loop.remove_reader(self._watch.fd)
            self._reading = False
        self._wait_on({})
        if hasattr(self, "_sources"):
            await self._sources.stop()
        for task in (*self._tasks,):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for close in reversed(self._closers):
            try:
                await asyncio.to_thread(close)
            except (OSError, NetlinkError, NeedError) as error:  # the rest must still be undone
                self._faults.failed("stop", str(error))
        self._closers.clear()
        self._netlink.shutdown(wait=True)

    def _take_lock(self) -> None:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(_LOCK_NAME)
        except OSError as error:
            lock.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise NeedError(
                "another eni53 counts in this network namespace already: ask it with `eni53 top`"
                " (its --runtime-dir), or stop it first"
            ) from error
        self._closers.append(lock.close)

    async def _on_netlink(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._netlink, work)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # a task that nobody holds may be collected before it has run
        task.add_done_callback(self._tasks.discard)

    def _nsid_of(self, fd: int) -> int | None:
        """Number of a namespace; from any thread but the loop's and netlink's own."""
        with contextlib.suppress(RuntimeError):  # the thread has been shut down
            return self._netlink.submit(self._table.nsid_of, fd).result()
        return None

    # --- resolvers ---------------------------------------------------------------------------

    def _find_resolvers(self) -> Resolvers:
        known = self._names.facts.enis.values() if self._names.facts else ()
        enis = [link.index for link in find_enis(self._table, self._config.eni.interfaces)]
        return resolver_addresses(
            self._config.resolver.addresses,
            list(dict.fromkeys(eni.vpc_cidr for eni in known if eni.vpc_cidr)),
            read_resolv_confs(Path("/")),
            self._table.prefixes(enis),
        )

    async def _await_imds(self) -> None:
        """It did not answer at the start; until it does, VPC+2 may be unknown."""
        while self._names.facts is None:
            await asyncio.sleep(_IMDS_RETRY_S)
            await self._names.lookup()
        self._resolvers = await self._on_netlink(self._find_resolvers)
        self._tell_kernel()

    def _tell_kernel(self) -> None:
        # Cilium keeps its own marks in tc_index.
        self._maps.set_resolvers(
            self._resolvers.addresses,
            write_tags=not self._wired.cilium,
            names=self._config.names.enabled,
        )

    # --- interfaces --------------------------------------------------------------------------

    def _links_changed(self) -> None:
        try:
            changes = self._events.read()
        except OSError as error:
            self._faults.failed("netlink", error.strerror or type(error).__name__)
            changes = Changes(lost=True)
        if changes.lost:
            self._faults.failed("netlink", "overrun")
        self._spawn(self._rewire(lambda: self._wiring.apply(changes)))

    async def _rewire(self, work: Callable[[], Wired]) -> None:
        try:
            self._rewired(await self._on_netlink(work))
        except (OSError, NetlinkError, NeedError) as error:
            self._faults.failed("attach", str(error) or type(error).__name__)

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_RESYNC_S)
            await self._rewire(self._wiring.resync)
            if self._nets is not None:
                for inode in await self._on_netlink(self._nets.check):
                    self._unpaused(inode)
                await self._tasks_changed()

    def _rewired(self, wired: Wired, *, starting: bool = False) -> None:
        before, self._wired = self._wired, wired
        for index in before.veths.keys() - wired.veths.keys():
            self._workloads.veth_gone(index)
        for index, nsid in wired.veths.items():
            if before.veths.get(index) != nsid:
                self._workloads.veth_appeared(index, nsid)
                self._spawn(self._sources.veth_appeared(nsid))
        if wired.cilium != before.cilium:
            self._tell_kernel()
        for index in before.enis.keys() - wired.enis.keys():
            self._pipeline.remove_eni(index)
        for name, reason in wired.failed.items():
            self._faults.attach_failed(name, reason)
        self._attach_s = max(self._attach_s, wired.attach_s)
        self._pipeline.present = wired.enis.keys() | self._task_nets.enis.keys()
        self._set_branches()
        for index in wired.enis.keys() - before.enis.keys():
            link = wired.enis[index]
            if starting:
                self._follow(link, index, "host", self._names.known(link))
            else:
                self._spawn(self._follow_late(link, index, "host"))

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

    def _cni_says(self, facts: CniFacts) -> None:
        self._workloads.set_pod_addresses(
            {a: pod_workload(pod.namespace, pod.pod) for a, pod in facts.addresses.items()}
        )
        for index, link in self._wired.enis.items():
            if self._names.known(link) in facts.trunks:
                self._spawn(self._declare_trunk(index))

    def _pods_say(self, written: tuple[BranchEni, ...]) -> None:
        # Anybody who may edit a pod may write there. So it names only a branch that is here by
        # itself, with that VLAN id and that MAC, and takes no name from another ENI.
        here = {(branch.vlan, branch.mac) for branch in self._branches()}
        for eni in written:
            if (eni.vlan, eni.mac) in here and not self._names.is_taken(eni.eni_id):
                self._names.learn({eni.mac: eni.eni_id})

    async def _declare_trunk(self, index: int) -> None:
        await self._on_netlink(lambda: self._wiring.add_trunk(index))

    def _branches(self) -> tuple[Branch, ...]:
        return (*self._wired.branches, *self._task_nets.branches)

    def _set_branches(self) -> None:
        self._pipeline.set_branches(self._branches(), self._names.id_of)
        self._watch.follow(self._pipeline.limits)

    # --- ENIs of tasks -----------------------------------------------------------------------

    def _paused(self, pid: int) -> None:
        """A pause container is there; its ENI is, or comes soon."""
        if self._nets is None:
            self._paused_early.append(pid)
            return
        self._spawn(self._on_task(lambda nets: nets.watch(pid)))

    def _unpaused(self, inode: int) -> None:
        events = self._readers.pop(inode, None)
        if events is not None:
            self._loop.remove_reader(events.socket)
        self._spawn(self._on_task(lambda nets: nets.unwatch(inode)))

    async def _read_allowances(self) -> None:
        """What the driver says of drops; it is asked in the thread, for the device may be slow."""
        while True:
            try:
                found = await self._on_netlink(self._wiring.allowances)
                if self._nets is not None:
                    found |= await self._on_netlink(self._nets.allowances)
                self._pipeline.allowances = found
            except SourceError as error:
                self._faults.failed("ethtool", str(error))
            await asyncio.sleep(_ALLOWANCES_S)

    async def _on_task(self, work: Callable[[TaskNets], None]) -> None:
        nets = self._nets
        if nets is not None:
            await self._on_netlink(lambda: work(nets))
            await self._tasks_changed()

    async def _tasks_changed(self) -> None:
        nets = self._nets
        if nets is None:
            return
        state = await self._on_netlink(lambda: nets.state)
        before, self._task_nets = self._task_nets, state
        self._wait_on(state.events)
        self._pipeline.present = self._wired.enis.keys() | state.enis.keys()
        for dev in before.enis.keys() - state.enis.keys():
            self._pipeline.retire_eni(dev, time.monotonic())
        for name, reason in state.failed.items():
            self._faults.attach_failed(name, reason)
        for branch in state.branches:
            await self._on_netlink(lambda branch=branch: self._wiring.add_branch(branch))  # type: ignore[misc]
        self._set_branches()
        for dev in state.enis.keys() - before.enis.keys():
            eni = state.enis[dev]
            self._workloads.eni_appeared((dev, 0), eni.netns)
            self._spawn(self._follow_late(eni.link, dev, f"net:[{eni.netns}]"))

    def _wait_on(self, events: Mapping[int, LinkEvents]) -> None:
        for inode in self._readers.keys() - events.keys():
            self._loop.remove_reader(self._readers.pop(inode).socket)
        for inode, ready in events.items():
            if inode not in self._readers:
                self._readers[inode] = ready
                self._loop.add_reader(ready.socket, self._task_stirred, inode)

    def _task_stirred(self, inode: int) -> None:
        # Until it has been read by the other thread, the socket would wake us without end.
        self._loop.remove_reader(self._readers.pop(inode).socket)
        self._spawn(self._on_task(lambda nets: nets.look(inode)))

    def _crossed(self) -> None:
        """The kernel wakes us: a window has reached a level, and does not wait for the tick."""
        for crossing in self._watch.read():
            self._pipeline.crossed(crossing.place, crossing.packets)
        self.on_crossing()

    # --- tick -------------------------------------------------------------------------------

    def tick(self, *, since_start: bool = False, last: bool = False) -> Snapshot:
        """Read the maps and put a snapshot together.

        Args:
            since_start: Rates over the whole time since attach (a one-shot), not since the last
                tick.
            last: No other tick will follow: nothing waits for its name any more.
        """
        now_s = time.monotonic()
        for dev in self._pipeline.take_retired(now_s):
            self._maps.remove_eni(dev)
        self._sources.tick()
        sample = self._maps.read()
        window_s, enis = self._pipeline.update(
            sample, self._wired.veths, since_start=since_start, last=last
        )
        self._watch.follow(self._pipeline.limits)  # of branches that were met, or got their id
        self._drops.update(enis)
        ledger = self._pipeline.ledger
        for index in self._tags.collect(
            sample,
            self._wired.veths,
            self._wired.enis.keys() | self._pipeline.devices,
            ledger.settled,
            sample.taken_at_ns / 1e9,
        ):
            self._workloads.forget_veth(index)
        self._remotes.collect(sample, ledger.settled, now_s)
        return Snapshot(
            node=socket.gethostname(),
            time_s=time.time(),
            window_s=round(window_s, 3) if since_start else 1.0,
            enis=enis,
            findings=(*eni_findings(enis, self._drops), *self._findings()),
            sent=self._pipeline.sent,
            health=self._health(sample),
            slot=sample.taken_at_ns // SLOT_NS,
            resolv_confs=self._resolv.confs,
            on_node=self._resolv.on_node,
            conntrack=self._conntrack.read(),
        )

    def _findings(self) -> tuple[Finding, ...]:
        found = []
        if not self._resolvers.vpc_plus_two_known:
            found.append(resolver_unknown(self._resolvers.addresses))
        if self._faults.spoken and not self._sources.any_runtime:
            found.append(
                Finding(
                    "no-runtime",
                    "info",
                    "Neither containerd nor Docker answers: containers go by their cgroup, and"
                    " ENIs of awsvpc tasks are not found",
                    remedy="mount the runtime's socket and name it with --docker-socket or"
                    " --containerd-socket; a host without containers needs neither",
                )
            )
        return tuple(found)

    def _health(self, sample: Sample) -> Health:
        return Health(
            errors=dict(self._faults.errors),
            sources_up=dict(self._faults.sources_up),
            stats=sample.stats,
            map_entries=self._maps.entries,
            tag_lost=self._pipeline.ledger.tag_lost,
            resolver_known=self._resolvers.vpc_plus_two_known,
            load_s=self._load_s,
            attach_s=self._attach_s,
            mode=self.mode,
        )

    def failed(self, stage: str, reason: str) -> None:
        """Count a failure outside that cost something."""
        self._faults.failed(stage, reason)
