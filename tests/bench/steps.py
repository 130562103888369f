"""Where a tick's time goes, in process: real maps filled with what a busy node has."""

from __future__ import annotations

import hashlib
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from eni53 import config
from eni53 import pipeline as pipeline_module
from eni53.inventory.cgroups import CgroupTree
from eni53.inventory.workloads import Container, Workloads
from eni53.kernel import bpf, layout
from eni53.kernel.loader import Loaded, load
from eni53.kernel.maps import Maps
from eni53.model import Eni, Snapshot, Workload
from eni53.pipeline import Pipeline
from eni53.sinks.metrics import render
from eni53.snapshot_json import dumps

from .page import Section

WORKLOADS, ENIS = 200, 15
WARM, TICKS, SCRAPE_EVERY = 75, 60, 5  # the windows remember 60 s, and so are full by then
READ, UPDATE = "read the maps", "update"
OF_READ = {
    "of it senders": "_senders",
    "of it origins": "_origins",
    "of it ENIs and their slots": "_enis",
    "of it sources": "_sources",
    "of it stats": "_stats",
}
LEDGER = "of it the ledger: whom each increase is charged to"
SENT = "of it what was sent at the veths"
WINDOWS = "of it windows and states"
USAGE = "of it putting the ENIs of the snapshot together"
OF_UPDATE = (LEDGER, SENT, WINDOWS, USAGE)
METRICS, JSON = "one scrape of `/metrics`", "one `/api/v1/snapshot`"
_FIRST_VETH = 1000
_RING_AT, _RING_SIZE = next(
    (at, size) for name, at, size in layout.ENI.offsets() if name == "slots"
)
"""Where the ring is in ``struct eni``, in bytes."""


class Busy:
    """Two hundred workloads in the maps and in the inventory, each on one of fifteen ENIs."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._now_ns = 10**15
        self.maps = Maps(loaded)
        self.workloads = Workloads()
        self.veths = {_FIRST_VETH + i: i for i in range(WORKLOADS)}
        for i in range(WORKLOADS):
            name = hashlib.sha256(str(i).encode()).hexdigest()
            task = Workload("ecs_task", "prod", f"service-{i}:42/{name[:32]}", "app")
            self.workloads.veth_appeared(_FIRST_VETH + i, i)
            self.workloads.add(
                Container(name, task, 5000 + i, i, 9000 + i, f"/ecs/{name[:32]}/{name}")
            )
        self.pipeline = Pipeline(
            config.load(None, {}, {}), self.workloads, CgroupTree(None), self._now_ns
        )
        for dev in range(1, ENIS + 1):
            self.maps.add_eni(dev)
            self.pipeline.add_eni(
                Eni(f"eni-{dev:017x}", f"02:53:00:00:00:{dev:02x}", f"ens{dev}", "host", dev)
            )
        self._count = 0

    def advance(self) -> None:
        """A second of traffic: every workload has sent five more."""
        self._count += 5
        self._now_ns += 10**9
        count = layout.U64.packer.pack(self._count)
        for i in range(WORKLOADS):
            tag, veth = i + 1, _FIRST_VETH + i
            key = layout.SENDER_KEY.packer.pack(0, 1 + i % ENIS, veth, 0, tag, 0, 0, 0)
            bpf.map_update(self._loaded.maps["senders"], key, count)
            key = layout.ORIGIN_KEY.packer.pack(9000 + i, veth, 0)
            value = layout.ORIGIN.packer.pack(self._count, 0, 0, 0, 0, tag, 0)
            bpf.map_update(self._loaded.maps["origins"], key, value)
        now = self._now_ns // layout.SLOT_NS
        ring = [0] * (layout.SLOTS * 5)
        for number in range(now - layout.SLOTS + 1, now + 1):
            at = number % layout.SLOTS * 5
            ring[at : at + 5] = [number, 7, 0, 7, 0]
        blank = bytearray(layout.ENI.packer.size)
        blank[_RING_AT : _RING_AT + _RING_SIZE] = struct.pack(f"={len(ring)}Q", *ring)
        value = bytes(blank)
        for dev in range(1, ENIS + 1):
            bpf.map_update(self._loaded.maps["enis"], layout.ENI_KEY.packer.pack(dev, 0), value)

    def tick(self) -> Snapshot:
        """What `Node.tick` does of it."""
        sample = replace(self.maps.read(), taken_at_ns=self._now_ns)
        _, enis = self.pipeline.update(sample, self.veths, since_start=False, last=False)
        return Snapshot("node", time.time(), 1.0, enis, sent=self.pipeline.sent)


Times = dict[str, list[float]]


def _watch(times: Times, holder: object, attribute: str, name: str) -> None:
    """From here on every call of ``holder.attribute`` is timed under *name*."""
    work: Callable[..., Any] = getattr(holder, attribute)

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.thread_time()
        try:
            return work(*args, **kwargs)
        finally:
            times[name][-1] += time.thread_time() - begin

    setattr(holder, attribute, timed)


def measure() -> Times:
    """Seconds of each step, tick by tick; a name that begins with "of it" is part of another."""
    names = (READ, *OF_READ, UPDATE, *OF_UPDATE, METRICS, JSON)
    times: Times = {name: [] for name in names}
    original = pipeline_module.eni_usage
    with load() as loaded:
        busy = Busy(loaded)
        for name, attribute in OF_READ.items():
            _watch(times, busy.maps, attribute, name)
        _watch(times, busy.maps, "read", READ)
        _watch(times, busy.pipeline.ledger, "update", LEDGER)
        _watch(times, busy.pipeline._sent, "update", SENT)
        _watch(times, busy.pipeline, "_view", WINDOWS)
        _watch(times, pipeline_module, "eni_usage", USAGE)
        _watch(times, busy.pipeline, "update", UPDATE)
        try:
            for tick in range(WARM + TICKS):
                busy.advance()
                for each in times.values():
                    each.append(0.0)
                snapshot = busy.tick()
                if tick % SCRAPE_EVERY == 0:
                    begin = time.thread_time()
                    render(lambda snapshot=snapshot: snapshot)
                    times[METRICS][-1] = time.thread_time() - begin
                    begin = time.thread_time()
                    dumps(snapshot)
                    times[JSON][-1] = time.thread_time() - begin
        finally:
            pipeline_module.eni_usage = original
    return {name: [t for t in each[WARM:] if t] for name, each in times.items()}


def section() -> Section:
    """The section, measured now."""
    times = {name: statistics.median(each) * 1000 for name, each in measure().items() if each}
    return Section(
        title="Where a tick's time goes",
        text=(
            f"Milliseconds of processor time in process, median of {TICKS} ticks, with {WORKLOADS}"
            f" workloads on {ENIS} ENIs, all of them sending and all windows full. A tick comes"
            " once a second, so 10 ms are 1 % of a core."
        ),
        header=["step", "ms"],
        rows=[[name, f"{ms:.2f}"] for name, ms in times.items()],
        notes=[
            "A scrape and a snapshot are paid for when somebody asks. What the process needs"
            " besides (event loop, waking up with cold caches) is in the table before this one.",
        ],
    )
