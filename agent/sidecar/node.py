"""The node's stand-in inside a task: the same life and the same snapshots, without BPF.

One event loop and no thread of its own; what blocks is asked in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ..config import Config
from ..culprits import Culprits
from ..errors import NeedError, SourceError
from ..faults import Faults
from ..findings import DropWatch, eni_findings, resolver_unknown
from ..inventory.cgroups import CgroupTree
from ..inventory.ethtool import Ethtool
from ..inventory.resolvers import Resolvers, read_resolv_confs, resolver_addresses
from ..kernel.layout import SLOT_NS
from ..model import Eni, Finding, Health, Snapshot
from ..pipeline import Pipeline
from ..sample import Sample
from . import metadata
from .findings import sidecar_findings
from .heard import UDP_COUNTERS, Counter
from .interface import Interface, find_interface
from .metadata import TaskFacts
from .owner import OneTask
from .packet import PacketCounter
from .tally import Tally
from .udp import UdpCounter

_LOOK_S = 0.05
_SETTLE_NS = 10_000_000  # between a packet's time and its record, on a processor that was held up
_RETRY_S = 15.0
_ALLOWANCES_S = 5.0


class Sidecar:
    """Counts and attributes the ENI of the network namespace it is started in.

    Args:
        config: What the user wants.
        url: Where the task's metadata is; empty where there is none.
    """

    def __init__(self, config: Config, url: str) -> None:
        self._config = config
        self._url = url
        self._faults = Faults()
        self._owner = OneTask()
        self._facts: TaskFacts | None = None
        self._drops = DropWatch()
        self._culprits = Culprits()
        self._tasks: set[asyncio.Task[None]] = set()
        self._counter: Counter | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.mode = ""
        self.on_crossing: Callable[[], None] = lambda: None

    # --- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Learn where we are, and count. On failure nothing is left behind.

        Raises:
            NeedError: There is no ENI, or not even its packets may be counted.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        began_s = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._interface = find_interface(self._config.eni.interfaces)
        if self._url:
            await self._ask()
        self._refuse_a_node()
        self._resolvers = find_resolvers(self._config, self._interface, self._facts)
        started_ns = time.monotonic_ns()
        self._counter = open_counter(self._config.attach, self._interface, self._resolvers)
        self.mode = self._counter.mode
        self._pipeline = Pipeline(self._config, self._owner, CgroupTree(None), started_ns)
        eni = self._interface
        label = f"mac:{eni.mac}"
        netns = f"net:[{Path('/proc/self/ns/net').stat().st_ino}]"
        self._pipeline.present = {eni.index}
        self._pipeline.add_eni(Eni(label, eni.mac, eni.name, netns, eni.index))
        alerts, limit = self._config.alerts, self._config.limit
        self._tally = Tally(
            eni.index,
            (alerts.warning, alerts.critical),
            limit.per_eni.get(label, limit.pps),
            limit.basis,
        )
        self._load_s = time.monotonic() - began_s
        self._faults.speak()
        self._timer = self._loop.call_later(_LOOK_S, self._look)
        self._spawn(self._read_allowances())
        if self._url and self._facts is None:
            self._spawn(self._await_metadata())

    def _refuse_a_node(self) -> None:
        """In another mode than awsvpc the namespace is the instance's, or a bridge's."""
        modes = self._facts.modes - {"", "awsvpc"} if self._facts else frozenset[str]()
        if modes and self._config.attach == "auto":
            raise NeedError(
                f"this task is in network mode {min(modes)}, so its network interface is no ENI of"
                ' its own: run the task "privileged" to count the node\'s with BPF, or in network'
                " mode awsvpc"
            )

    async def stop(self) -> None:
        """Stop counting."""
        if self._timer is not None:
            self._timer.cancel()
        for task in (*self._tasks,):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._counter is not None:
            self._counter.close()
            self._counter = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # a task that nobody holds may be collected before it has run
        task.add_done_callback(self._tasks.discard)

    # --- what others say --------------------------------------------------------------------

    async def _ask(self) -> None:
        try:
            self._facts = await asyncio.to_thread(metadata.lookup, self._url)
        except SourceError as error:
            self._faults.source("task_metadata", False, str(error))
            return
        self._faults.source("task_metadata", True)
        self._owner.learn(self._facts.workload)

    async def _await_metadata(self) -> None:
        """It did not answer at the start; a task's name does not change, so once is enough."""
        while self._facts is None:
            await asyncio.sleep(_RETRY_S)
            await self._ask()
        self._resolvers = find_resolvers(self._config, self._interface, self._facts)
        if self._counter is not None:
            self._counter.set_resolvers(self._resolvers.addresses)

    async def _read_allowances(self) -> None:
        """What the driver says of drops, where it is one that says so."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            ethtool = Ethtool(control)
            while True:
                try:
                    found = await asyncio.to_thread(ethtool.allowances, self._interface.name)
                    self._pipeline.allowances = {self._interface.index: found} if found else {}
                except SourceError as error:
                    self._faults.failed("ethtool", str(error))
                await asyncio.sleep(_ALLOWANCES_S)

    # --- counting ---------------------------------------------------------------------------

    def _look(self) -> None:
        """Take in what has come, and wake the agent if a window has reached a level."""
        self._timer = self._loop.call_later(_LOOK_S, self._look)
        try:
            self._take()
        except OSError as error:
            self._faults.failed("count", error.strerror or str(error))
            return
        packets = self._tally.crossed(time.monotonic_ns() // SLOT_NS)
        if packets:
            self._pipeline.crossed((self._interface.index, 0), packets)
            self.on_crossing()

    def _take(self) -> None:
        if self._counter is not None:
            self._tally.add(self._counter.read())

    def tick(self, *, since_start: bool = False, last: bool = False) -> Snapshot:
        """Take in what has come and put a snapshot together.

        Args:
            since_start: Rates over the whole time since the start (a one-shot), not since the last
                tick.
            last: No other tick will follow.

        Raises:
            OSError: The kernel does not say.
        """
        taken_at_ns = time.monotonic_ns() - _SETTLE_NS
        self._take()
        stats = self._counter.stats if self._counter is not None else {}
        sample = self._tally.sample(taken_at_ns, taken_at_ns // SLOT_NS, stats)
        window_s, enis = self._pipeline.update(sample, (), since_start=since_start, last=last)
        slot = taken_at_ns // SLOT_NS
        self._drops.update(enis, taken_at_ns / 1e9)
        self._culprits.update(() if since_start else enis, slot)
        return Snapshot(
            node=socket.gethostname(),
            time_s=time.time(),
            window_s=round(window_s, 3) if since_start else 1.0,
            enis=enis,
            findings=(
                *eni_findings(enis, self._drops, None if since_start else self._culprits),
                *self._findings(sample),
            ),
            health=self._health(sample),
            slot=slot,
        )

    def _findings(self, sample: Sample) -> tuple[Finding, ...]:
        unknown = not self._resolvers.vpc_plus_two_known and self.mode != UDP_COUNTERS
        return (
            *((resolver_unknown(self._resolvers.addresses),) if unknown else ()),
            *sidecar_findings(self.mode, f"mac:{self._interface.mac}", sample),
        )

    def _health(self, sample: Sample) -> Health:
        return Health(
            errors=dict(self._faults.errors),
            sources_up=dict(self._faults.sources_up),
            stats=sample.stats,
            resolver_known=self._resolvers.vpc_plus_two_known,
            load_s=self._load_s,
            mode=self.mode,
        )

    def failed(self, stage: str, reason: str) -> None:
        """Count a failure outside that cost something."""
        self._faults.failed(stage, reason)


def find_resolvers(config: Config, interface: Interface, facts: TaskFacts | None) -> Resolvers:
    """By resolv.conf and what the platform says, where an address proves itself Amazon's."""
    servers = "".join(f"nameserver {a}\n" for a in facts.nameservers) if facts else ""
    return resolver_addresses(
        config.resolver.addresses,
        (),
        (*read_resolv_confs(Path("/")), servers),
        (*interface.prefixes, *(facts.prefixes if facts else ())),
    )


def open_counter(attach: str, interface: Interface, resolvers: Resolvers) -> Counter:
    """The best counter there may be; *attach* may insist on one.

    Raises:
        NeedError: It may not be had.
    """
    if attach != "udp":
        try:
            return PacketCounter(interface.name, resolvers.addresses)
        except OSError as error:
            if attach == "packet" or not isinstance(error, PermissionError):
                raise NeedError(
                    f"packets of {interface.name} may not be counted"
                    f" ({error.strerror or os.strerror(error.errno or 0)}): run as root with"
                    " CAP_NET_RAW, or with ENI53_ATTACH=udp for an upper bound"
                ) from error
    try:
        return UdpCounter()
    except OSError as error:
        raise NeedError(f"the namespace's UDP counters cannot be read: {error}") from error
