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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pyroute2.netlink.exceptions import NetlinkError

from .config import Config
from .errors import NeedError, SourceError
from .faults import Faults
from .inventory.cgroups import CgroupTree, find_root
from .inventory.docker_shapes import DockerContainer
from .inventory.enis import eni_label
from .inventory.imds import Imds, ImdsFacts
from .inventory.links import Changes, LinkEvents, LinkTable, netns_inode
from .inventory.names import to_workload
from .inventory.resolvers import Resolvers, read_resolv_confs, resolver_addresses
from .inventory.runtime import DockerFollower
from .inventory.workloads import Container, Workloads
from .kernel.loader import Loaded, load
from .kernel.maps import Maps
from .kernel.tags import TagPool
from .model import Eni, Finding, Health, Sample, Snapshot
from .pipeline import Pipeline
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
        self._faults = Faults()
        self._runtime_dir = config.runtime_dir if keep_memory else None
        self._netlink = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._closers: list[Callable[[], object]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._workloads = Workloads()
        self._cgroups = CgroupTree(find_root())
        self._wired = Wired({}, {}, {})
        self._imds: ImdsFacts | None = None
        self._resolvers = Resolvers((), False, "unknown")
        self._load_s = 0.0
        self._attach_s = 0.0
        self._reading = False
        self.mode = ""

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
        self._load_s = loaded.load_s
        await self._attach(loaded)
        await asyncio.to_thread(docker.wait_listed, _DOCKER_WAIT_S)
        self._faults.speak()
        self._tasks.add(loop.create_task(self._resync_for_ever()))

    async def _attach(self, loaded: Loaded) -> None:
        self._maps = Maps(loaded)
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
        self._pipeline = Pipeline(self._config, self._workloads, self._cgroups, time.monotonic_ns())
        self._tags = TagPool(
            self._maps,
            self._pipeline.ledger.forget_sender,
            self._cgroups.exists,
        )
        self._rewired(await self._on_netlink(self._wiring.start))
        self._loop.add_reader(self._events.socket, self._links_changed)
        self._reading = True

    async def stop(self) -> None:
        """Take everything off again, in the reverse order."""
        if self._reading:
            self._loop.remove_reader(self._events.socket)
            self._reading = False
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

    # --- inventory --------------------------------------------------------------------------

    def _ask_imds(self) -> ImdsFacts | None:
        url = self._config.runtime.imds
        if not url:
            return None
        try:
            facts = Imds(url).lookup()
        except SourceError as error:
            self._faults.source("imds", False, str(error))
            return None
        self._faults.source("imds", True, "")
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
        try:
            changes = self._events.read()
        except OSError as error:
            self._faults.failed("netlink", error.strerror or type(error).__name__)
            changes = Changes(lost=True)
        if changes.lost:
            self._faults.failed("netlink", "overrun")
        task = self._loop.create_task(self._rewire(lambda: self._wiring.apply(changes)))
        self._tasks.add(task)  # a task that nobody holds may be collected before it has run
        task.add_done_callback(self._tasks.discard)

    async def _rewire(self, work: Callable[[], Wired]) -> None:
        try:
            self._rewired(await self._on_netlink(work))
        except (OSError, NetlinkError, NeedError) as error:
            self._faults.failed("attach", str(error) or type(error).__name__)

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_RESYNC_S)
            await self._rewire(self._wiring.resync)

    def _rewired(self, wired: Wired) -> None:
        for index in self._wired.veths.keys() - wired.veths.keys():
            self._workloads.veth_gone(index)
        for index, nsid in wired.veths.items():
            if self._wired.veths.get(index) != nsid:
                self._workloads.veth_appeared(index, nsid)
        ids = {m: e.interface_id for m, e in self._imds.enis.items()} if self._imds else {}
        for index, link in wired.enis.items():
            label = eni_label(link, ids)
            self._pipeline.add_eni(Eni(label, link.mac.lower(), link.name, "host", index))
        for index in self._wired.enis.keys() - wired.enis.keys():
            self._pipeline.remove_eni(index)
        for name, reason in wired.failed.items():
            self._faults.attach_failed(name, reason)
        self._attach_s = max(self._attach_s, wired.attach_s)
        self._wired = wired

    # --- what Docker says, from its thread ----------------------------------------------------

    def listed(self, containers: tuple[DockerContainer, ...]) -> None:
        """All containers there are; those that ended unseen are ended now."""
        # Docker lists the newest first; of those that share a namespace the oldest made it.
        described = [self._describe(c) for c in reversed(containers) if c.pid]

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
        self._in_loop(lambda: self._faults.source("docker", up, reason))

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

    def tick(self, *, since_start: bool = False, last: bool = False) -> Snapshot:
        """Read the maps and put a snapshot together.

        Args:
            since_start: Rates over the whole time since attach (a one-shot), not since the last
                tick.
            last: No other tick will follow: nothing waits for its name any more.
        """
        sample = self._maps.read()
        window_s, enis = self._pipeline.update(
            sample, self._wired.veths, since_start=since_start, last=last
        )
        ledger = self._pipeline.ledger
        for index in self._tags.collect(
            sample,
            self._wired.veths,
            self._wired.enis,
            ledger.settled,
            sample.taken_at_ns / 1e9,
        ):
            self._workloads.forget_veth(index)
        return Snapshot(
            node=socket.gethostname(),
            time_s=time.time(),
            window_s=round(window_s, 3) if since_start else 1.0,
            enis=enis,
            findings=self._findings(),
            sent=self._pipeline.sent,
            health=self._health(sample),
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
