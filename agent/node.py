"""The one place that wires the stages: kernel and inventory in, one `Snapshot` a tick out.

One event loop. Netlink has a thread of its own, since pyroute2's sockets block; the runtimes have
theirs, and what else is asked is asked in threads too. Everything that reaches the loop is a frozen
value.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from .config import Config
from .culprits import Culprits
from .diagnosis import of_snapshot
from .eni_names import EniNames
from .errors import NeedError
from .faults import Faults
from .findings import DropWatch, eni_findings, no_runtime, resolver_unknown
from .gather import Gather, Placer
from .interfaces import Interfaces
from .inventory.cgroups import CgroupTree, find_root
from .inventory.conntrack import ConntrackWatch
from .inventory.links import LinkEvents, LinkTable
from .inventory.workloads import Workloads
from .kernel.child import CompilerChild
from .kernel.layout import SLOT_NS
from .kernel.levels import Watch
from .kernel.loader import Loaded, load
from .kernel.maps import Maps
from .kernel.netlink import NetlinkError
from .kernel.remotes import RemotePool
from .kernel.tags import TagPool
from .known_resolvers import KnownResolvers
from .model import Finding, Health, Snapshot
from .pipeline import Pipeline
from .presence import take_lock
from .resolv_watch import ResolvWatch
from .sample import Sample
from .sources import Sources
from .tasknets import TaskNets
from .threads import Threads
from .wiring import Wiring, find_enis, has_cilium

_RUNTIME_WAIT_S = 1.5
_ALLOWANCES_S = 5.0


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
        self._threads = Threads()
        self._closers: list[Callable[[], object]] = []
        self._workloads = Workloads()
        self._cgroups = CgroupTree(find_root())
        self._drops = DropWatch()
        self._culprits = Culprits()
        self._conntrack = ConntrackWatch()
        self._names = EniNames(config.runtime.imds, self._faults)
        self._interfaces = Interfaces(
            self._threads,
            self._names,
            self._workloads,
            self._faults,
            self._veth_appeared,
            self._tell_kernel,
        )
        self._resolvers = KnownResolvers(config, self._names, self._threads)
        self._load_s = 0.0
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
        self._closers.append(take_lock().close)
        loop = asyncio.get_running_loop()
        self._loop = loop
        tasks = self._interfaces.tasks
        self._gather = Gather(self._workloads, tasks.paused, tasks.unpaused)
        placer = Placer(self._cgroups, self._nsid_of)
        self._sources = Sources(
            self._config,
            self._faults,
            self._cgroups,
            placer,
            self._gather,
            self._interfaces.cni_says,
            self._interfaces.pods_say,
        )
        self._resolv = ResolvWatch(lambda: self._gather.running, self._faults.failed)
        self._table = await self._threads.on_netlink(LinkTable)
        self._closers.append(lambda: self._threads.on_netlink_wait(self._table.close))
        # First, for it is the most common mistake and answers at once.
        await self._threads.on_netlink(lambda: find_enis(self._table, self._config.eni.interfaces))
        self._sources.start(loop)
        loaded, _ = await asyncio.gather(asyncio.to_thread(load, self._child), self._names.lookup())
        self._closers.append(loaded.close)
        self._load_s = loaded.load_s
        await self._attach(loaded)
        await asyncio.to_thread(self._sources.wait_listed, _RUNTIME_WAIT_S)
        self._faults.speak()
        self._threads.spawn(self._interfaces.resync_for_ever())
        # Who looks for a few seconds only must see them rise.
        every_s = _ALLOWANCES_S if self._runtime_dir is not None else 1.0
        self._threads.spawn(self._interfaces.read_allowances(every_s))
        self._threads.spawn(self._resolv.run())
        if self._names.configured and self._names.facts is None:
            self._threads.spawn(self._await_imds())

    async def _attach(self, loaded: Loaded) -> None:
        self._maps = Maps(loaded)
        self._closers.append(self._maps.close)
        events = LinkEvents()  # before the first list: what comes after it is not missed
        self._closers.append(events.close)
        alerts, limit = self._config.alerts, self._config.limit
        parts = (alerts.warning, alerts.critical)
        self._watch = Watch(loaded, self._maps, parts, limit.pps, limit.basis)
        self._closers.append(self._watch.close)
        wiring = await self._threads.on_netlink(
            lambda: Wiring(
                self._table,
                loaded,
                self._maps,
                self._config.attach,
                self._config.eni.interfaces,
                self._runtime_dir,
            )
        )
        self._closers.append(lambda: self._threads.on_netlink_wait(wiring.stop))
        await self._resolvers.find(self._table)
        # Before anything is attached: else Cilium's packets get tags of ours until we know of it.
        cilium = await self._threads.on_netlink(lambda: has_cilium(self._table.links().values()))
        self._resolvers.tell(self._maps, cilium=cilium)
        self.mode = wiring.mode
        self._pipeline = Pipeline(
            self._config, self._workloads, self._cgroups, time.monotonic_ns(), loaded.seed
        )
        self._tags = TagPool(
            self._maps,
            self._pipeline.ledger.forget_sender,
            self._cgroups.exists,
        )
        self._remotes = RemotePool(self._maps, self._pipeline.ledger.forget_sender)
        nets = await self._threads.on_netlink(
            lambda: TaskNets(loaded, self._maps, self._runtime_dir)
        )
        self._closers.append(lambda: self._threads.on_netlink_wait(nets.stop))
        await self._interfaces.start(events, wiring, nets, self._pipeline, self._watch, self._maps)
        self._loop.add_reader(self._watch.fd, self._crossed)
        self._reading = True

    async def stop(self) -> None:
        """Take everything off again, in the reverse order."""
        if self._reading:
            self._loop.remove_reader(self._watch.fd)
            self._reading = False
        self._interfaces.stop()
        if hasattr(self, "_sources"):
            await self._sources.stop()
        await self._threads.end_tasks()
        for close in reversed(self._closers):
            try:
                await asyncio.to_thread(close)
            except (OSError, NetlinkError, NeedError) as error:  # the rest must still be undone
                self._faults.failed("stop", str(error))
        self._closers.clear()
        self._threads.end_netlink()

    def _nsid_of(self, fd: int) -> int | None:
        """Number of a namespace; from any thread but the loop's and netlink's own."""
        with contextlib.suppress(RuntimeError):  # the thread has been shut down
            return self._threads.on_netlink_wait(lambda: self._table.nsid_of(fd))
        return None

    async def _veth_appeared(self, nsid: int) -> None:
        await self._sources.veth_appeared(nsid)

    async def _await_imds(self) -> None:
        await self._resolvers.await_imds(self._table)
        self._tell_kernel()

    def _tell_kernel(self) -> None:
        self._resolvers.tell(self._maps, cilium=self._interfaces.cilium)

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
            sample, self._interfaces.veths, since_start=since_start, last=last
        )
        self._interfaces.tidy(now_s)
        self._watch.follow(self._pipeline.limits)  # of branches that were met, or got their id
        slot = sample.taken_at_ns // SLOT_NS
        self._drops.update(enis, now_s)
        self._culprits.update(() if since_start else enis, slot)
        ledger = self._pipeline.ledger
        for index in self._tags.collect(
            sample,
            self._interfaces.veths,
            self._pipeline.devices.union(self._interfaces.enis),
            ledger.settled,
            sample.taken_at_ns / 1e9,
        ):
            self._workloads.forget_veth(index)
        self._remotes.collect(sample, ledger.settled, now_s)
        for key in self._pipeline.idle_servers:
            self._maps.forget_fallback(key)
        snapshot = Snapshot(
            node=socket.gethostname(),
            time_s=time.time(),
            window_s=round(window_s, 3) if since_start else 1.0,
            enis=enis,
            findings=(
                *eni_findings(enis, self._drops, None if since_start else self._culprits),
                *self._findings(),
            ),
            sent=self._pipeline.sent,
            health=self._health(sample),
            slot=slot,
            servers=self._pipeline.servers,
            resolv_confs=self._resolv.confs,
            on_node=self._resolv.on_node,
            conntrack=self._conntrack.read(),
        )
        # What is merely worth knowing is for who asks: `eni53 doctor`.
        standing = (found for found in of_snapshot(snapshot) if found.severity != "info")
        return replace(snapshot, findings=(*snapshot.findings, *standing))

    def _findings(self) -> tuple[Finding, ...]:
        found = []
        if not self._resolvers.found.vpc_plus_two_known:
            found.append(resolver_unknown(self._resolvers.found.addresses))
        if self._faults.spoken and not self._sources.any_runtime:
            found.append(no_runtime())
        return tuple(found)

    def _health(self, sample: Sample) -> Health:
        return Health(
            errors=dict(self._faults.errors),
            sources_up=dict(self._faults.sources_up),
            stats=sample.stats,
            map_entries=self._maps.entries,
            tag_lost=self._pipeline.ledger.tag_lost,
            resolver_known=self._resolvers.found.vpc_plus_two_known,
            load_s=self._load_s,
            attach_s=self._interfaces.attach_s,
            mode=self.mode,
        )

    def failed(self, stage: str, reason: str) -> None:
        """Count a failure outside that cost something."""
        self._faults.failed(stage, reason)
