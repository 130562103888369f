"""The one place that wires the stages: kernel and inventory in, one `Snapshot` a tick out.

One event loop. Netlink has a thread of its own, since pyroute2's sockets block; Docker and the
metadata service are asked in threads too. Everything that reaches the loop is a frozen value.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from .alerts import EniState, Levels
from .assemble import EniView, eni_usage
from .attribution import Ladder
from .config import Config
from .errors import NeedError, SourceError
from .inventory.cgroups import CgroupTree, find_root
from .inventory.docker_shapes import DockerContainer
from .inventory.enis import eni_label
from .inventory.imds import Imds, ImdsFacts
from .inventory.links import LinkEvents, LinkTable, netns_inode
from .inventory.names import to_workload
from .inventory.resolvers import Resolvers, read_resolv_confs, resolver_addresses
from .inventory.runtime import DockerFollower
from .inventory.workloads import Container, Workloads
from .kernel import layout
from .kernel.loader import Loaded, load
from .kernel.maps import Maps
from .kernel.tags import TagPool
from .ledger import Ledger
from .log import OnChange, get_logger
from .model import Eni, Finding, Health, Sample, Snapshot, Workload
from .rates import WindowTracker
from .sent import SentLedger
from .wiring import Wired, Wiring, find_enis

_T = TypeVar("_T")
_RESYNC_S = 60.0
_DOCKER_WAIT_S = 1.5
_LOCK_NAME = b"\0eni53"  # an abstract socket: one to a network namespace, gone with its process


class Node:
    """Counts and attributes in the network namespace it is started in.

    Args:
        config: What the user wants.
        keep_memory: Remember in the runtime directory what must be cleaned after a kill -9; a
            one-shot `top` leaves nothing there.
    """

    def __init__(self, config: Config, *, keep_memory: bool = True) -> None:
        self._config = config
        self._log = OnChange(get_logger())
        self._runtime_dir = config.runtime_dir if keep_memory else None
        self._netlink = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._closers: list[Callable[[], object]] = []
        self._workloads = Workloads()
        self._cgroups = CgroupTree(find_root())
        self._ledger = Ledger(config.metrics.max_workloads, self._alive)
        self._sent = SentLedger()
        self._enis: dict[tuple[int, int], Eni] = {}
        self._trackers: dict[tuple[int, int], WindowTracker] = {}
        self._states: dict[tuple[int, int], EniState] = {}
        self._errors: Counter[tuple[str, str]] = Counter()
        self._sources_up: dict[str, bool] = {}
        self._reasons: dict[str, str] = {}
        self._ready = False
        self._wired = Wired({}, {}, {})
        self._imds: ImdsFacts | None = None
        self._resolvers = Resolvers((), False, "unknown")
        self._last_taken_ns = 0
        self._started_ns = 0
        self.load_s = 0.0
        self.attach_s = 0.0
        self.mode = ""

    # --- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load, attach, and learn who is here. On failure nothing is left behind.

        Raises:
            NeedError: This node lacks something, or another eni53 counts here already.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        self._take_lock()
        loop = asyncio.get_running_loop()
        self._loop = loop
        docker = DockerFollower(self._config.runtime.docker_socket, self)
        self._table = await self._on_netlink(LinkTable)
        self._closers.append(lambda: self._netlink.submit(self._table.close).result())
        # First, for it is the most common mistake and answers at once.
        await self._on_netlink(lambda: find_enis(self._table, self._config.eni.interfaces))
        docker.start()
        self._closers.append(docker.stop)
        loaded, self._imds = await asyncio.gather(
            asyncio.to_thread(load), asyncio.to_thread(self._ask_imds)
        )
        self._closers.append(loaded.close)
        self.load_s = loaded.load_s
        await self._attach(loaded)
        await asyncio.to_thread(docker.wait_listed, _DOCKER_WAIT_S)
        self._say_sources()
        self._resync_task = loop.create_task(self._resync_for_ever())

    async def _attach(self, loaded: Loaded) -> None:
        self._maps = Maps(loaded)
        self._tags = TagPool(
            self._maps,
            self._ledger.forget_sender,
            lambda cgroup_id: self._cgroups.path_of(cgroup_id) is not None,
        )
        self._maps.set_resolvers(())
        self._events = LinkEvents()  # before the first list: what comes after it is not missed
        self._closers.append(self._events.close)
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
        self._maps.set_resolvers(self._resolvers.addresses)
        self.mode = self._wiring.mode
        self._started_ns = self._last_taken_ns = time.monotonic_ns()
        self._rewired(await self._on_netlink(self._wiring.start))
        loop = asyncio.get_running_loop()
        loop.add_reader(self._events.socket, self._links_changed)
        self._closers.append(lambda: loop.remove_reader(self._events.socket))

    async def stop(self) -> None:
        """Take everything off again, in the reverse order."""
        task = getattr(self, "_resync_task", None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for close in reversed(self._closers):
            try:
                await asyncio.to_thread(close)
            except (OSError, NeedError) as error:
                self._failed("stop", str(error))
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

    # --- inventory --------------------------------------------------------------------------

    def _ask_imds(self) -> ImdsFacts | None:
        url = self._config.runtime.imds
        if not url:
            return None
        try:
            facts = Imds(url).lookup()
        except SourceError as error:
            self._source("imds", False, str(error))
            return None
        self._source("imds", True, "")
        return facts

    def _find_resolvers(self) -> Resolvers:
        cidrs = [e.vpc_cidr for e in self._imds.enis.values() if e.vpc_cidr] if self._imds else []
        enis = [link.index for link in find_enis(self._table, self._config.eni.interfaces)]
        return resolver_addresses(
            self._config.resolver.addresses,
            list(dict.fromkeys(cidrs)),
            read_resolv_confs(Path("/")),
            self._table.prefixes(enis),
        )

    def _links_changed(self) -> None:
        changes = self._events.read()
        if changes.lost:
            self._failed("netlink", "overrun")

        async def follow() -> None:
            try:
                self._rewired(await self._on_netlink(lambda: self._wiring.apply(changes)))
            except (OSError, NeedError) as error:
                self._failed("attach", type(error).__name__)

        self._loop.create_task(follow())

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_RESYNC_S)
            try:
                self._rewired(await self._on_netlink(self._wiring.resync))
            except (OSError, NeedError) as error:
                self._failed("attach", type(error).__name__)

    def _rewired(self, wired: Wired) -> None:
        for index in self._wired.veths.keys() - wired.veths.keys():
            self._workloads.veth_gone(index)
        for index, nsid in wired.veths.items():
            if self._wired.veths.get(index) != nsid:
                self._workloads.veth_appeared(index, nsid)
        for index, link in wired.enis.items():
            if (index, 0) not in self._enis:
                ids = {m: e.interface_id for m, e in self._imds.enis.items()} if self._imds else {}
                self._enis[index, 0] = Eni(
                    eni_label(link, ids), link.mac.lower(), link.name, "host", index
                )
        for index in self._wired.enis.keys() - wired.enis.keys():
            for place in [p for p in self._enis if p[0] == index]:
                self._forget_eni(place)
        for name, reason in wired.failed.items():
            self._log.changed(
                ("attach", name),
                reason,
                "eni53.attach_failed",
                level="warning",
                interface=name,
                reason=reason,
            )
        self.attach_s = max(self.attach_s, wired.attach_s)
        self._wired = wired

    def _forget_eni(self, place: tuple[int, int]) -> None:
        for table in (self._enis, self._trackers, self._states):
            table.pop(place, None)
        self._ledger.forget_eni(place)

    def _alive(self, workload: Workload) -> bool:
        if workload.kind == "host":
            return True
        return self._workloads.is_running(workload)

    # --- what Docker says, from its thread ----------------------------------------------------

    def listed(self, containers: tuple[DockerContainer, ...]) -> None:
        """All containers there are; those that ended unseen are ended now."""
        described = [self._describe(c) for c in containers if c.pid]

        def take() -> None:
            for gone in self._workloads.running - {c.id for c in described}:
                self._workloads.end(gone)
            for container in described:
                self._workloads.add(container)

        self._in_loop(take)

    def started(self, container: DockerContainer) -> None:
        """One has started."""
        described = self._describe(container)
        self._in_loop(lambda: self._workloads.add(described))

    def ended(self, container_id: str) -> None:
        """One has ended."""
        self._in_loop(lambda: self._workloads.end(container_id))

    def answered(self, up: bool, reason: str) -> None:
        """Docker answers, or does not."""
        self._in_loop(lambda: self._source("docker", up, reason))

    def _in_loop(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are stopping
            self._loop.call_soon_threadsafe(work)

    def _describe(self, container: DockerContainer) -> Container:
        """Learn what only a living container shows: its namespace and its cgroup."""
        pid = container.pid or 0
        netns = netns_inode(pid)
        host = netns is not None and netns == netns_inode(os.getpid())
        nsid = None
        if netns is not None and not host:
            with contextlib.suppress(RuntimeError):  # the thread has been shut down
                nsid = self._netlink.submit(nsid_of_process, self._table, pid).result()
        cgroup = self._cgroups.of_container(container.id, pid)
        return Container(
            id=container.id,
            workload=to_workload(container),
            netns=netns,
            netns_id=nsid,
            cgroup_id=cgroup[1] if cgroup else None,
            cgroup=cgroup[0] if cgroup else None,
            addresses=container.addresses,
            host_network=host,
        )

    # --- tick -------------------------------------------------------------------------------

    def tick(self, *, since_start: bool = False) -> Snapshot:
        """Read the maps and put a snapshot together.

        Args:
            since_start: Rates over the whole time since attach (a one-shot), not since the last
                tick.
        """
        sample = self._maps.read()
        now_s = sample.taken_at_ns / 1e9
        ladder = Ladder(
            {o.tag: o for o in sample.origins.values() if o.tag},
            self._wired.veths,
            self._workloads,
            self._cgroups,
        )
        self._ledger.update(sample, ladder, now_s)
        self._sent.update(sample.origins, self._workloads, now_s)
        for index in self._tags.collect(sample, self._wired.veths, self._ledger.settled, now_s):
            self._workloads.forget_veth(index)
        start_ns = self._started_ns if since_start else self._last_taken_ns
        window_s = max((sample.taken_at_ns - start_ns) / 1e9, 1e-3)
        self._last_taken_ns = sample.taken_at_ns
        enis = [
            eni_usage(
                self._view(place, eni, sample), self._ledger, window_s, since_start=since_start
            )
            for place, eni in self._all_enis(sample).items()
        ]
        return Snapshot(
            node=socket.gethostname(),
            time_s=time.time(),
            window_s=round(window_s, 3) if since_start else 1.0,
            enis=tuple(enis),
            findings=self._findings(),
            sent=dict(self._sent.sent),
            health=self._health(sample),
        )

    def _all_enis(self, sample: Sample) -> dict[tuple[int, int], Eni]:
        """Ours, and the branch ENIs that the kernel has met on a trunk."""
        for dev, vlan in sample.enis:
            trunk = self._enis.get((dev, 0))
            if vlan and trunk is not None and (dev, vlan) not in self._enis:
                label = f"{trunk.label}/vlan{vlan}"
                self._enis[dev, vlan] = Eni(label, "", trunk.interface, "host", dev, vlan)
        return self._enis

    def _view(self, place: tuple[int, int], eni: Eni, sample: Sample) -> EniView:
        config = self._config
        limit_pps = config.limit.per_eni.get(eni.label, config.limit.pps)
        alerts = config.alerts
        if place not in self._trackers:
            thresholds = {t: t * limit_pps for t in (alerts.warning, alerts.critical, 1.0)}
            first = self._started_ns // layout.SLOT_NS
            self._trackers[place] = WindowTracker(first, thresholds, config.limit.basis)
            levels = Levels(alerts.warning, alerts.critical, alerts.clear_below, alerts.clear_after)
            self._states[place] = EniState(levels)
        tracker = self._trackers[place]
        counters = sample.enis.get(place)
        windows = tracker.update(
            counters.slots if counters else (), sample.taken_at_ns // layout.SLOT_NS
        )
        state = self._states[place].update(
            windows.fresh_peak_pps[config.limit.basis] / limit_pps, sample.taken_at_ns / 1e9
        )
        return EniView(
            eni,
            limit_pps,
            config.limit.basis,
            windows,
            state,
            {t: n * layout.SLOT_NS / 1e9 for t, n in tracker.over_threshold_slots.items()},
            counters,
        )

    def _findings(self) -> tuple[Finding, ...]:
        if self._resolvers.vpc_plus_two_known:
            return ()
        return (
            Finding(
                "resolver-unknown",
                "warning",
                "The VPC's resolver address (VPC+2) is not known: queries to it count as"
                " dns_other, not against the limit",
                evidence={"resolvers": ", ".join(self._resolvers.addresses)},
                remedy="set [resolver] addresses, or let the agent reach the instance metadata",
            ),
        )

    def _health(self, sample: Sample) -> Health:
        return Health(
            errors=dict(self._errors),
            sources_up=dict(self._sources_up),
            stats=sample.stats,
            map_entries=self._maps.entries,
            tag_lost=self._ledger.tag_lost,
            resolver_known=self._resolvers.vpc_plus_two_known,
            load_s=self.load_s,
            attach_s=self.attach_s,
            mode=self.mode,
        )

    def failed(self, stage: str, reason: str) -> None:
        """Count a failure that cost something, and log it when it is a new one."""
        self._failed(stage, reason)

    def _failed(self, stage: str, reason: str) -> None:
        self._errors[stage, reason] += 1
        self._log.changed(
            ("failed", stage),
            reason,
            "eni53.stage_failed",
            level="warning",
            stage=stage,
            reason=reason,
        )

    def _source(self, name: str, up: bool, reason: str) -> None:
        if not up:
            self._errors["source", name] += 1
        self._sources_up[name] = up
        self._reasons[name] = reason
        if self._ready:
            self._say_source(name)

    def _say_sources(self) -> None:
        """From here on sources are spoken of; a start that fails says one line and no more."""
        self._ready = True
        for name in self._sources_up:
            self._say_source(name)

    def _say_source(self, name: str) -> None:
        up = self._sources_up[name]
        event = "eni53.source_up" if up else "eni53.source_down"
        fields = {"source": name} if up else {"source": name, "reason": self._reasons[name]}
        self._log.changed(("source", name), up, event, level="info" if up else "warning", **fields)


def nsid_of_process(table: LinkTable, pid: int) -> int | None:
    """Number by which *table*'s namespace knows a process's; None when gone or the same one."""
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return table.nsid_of(fd)
    finally:
        os.close(fd)
