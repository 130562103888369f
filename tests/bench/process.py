"""What the kernel tells of a process: memory, processor time, and how soon it has counted."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eni53.kernel import bpf, layout

from tests.lab.shell import LabError

SCRAPE_EVERY_S = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1024.0  # in KiB
_MAP_GET_FD_BY_ID = 14
_START_S = 60.0
_LOOK_S = 0.004


@dataclass(frozen=True, slots=True)
class Memory:
    """Mebibytes of one process; ``peak`` is the highest RSS of its life."""

    rss: float
    pss: float
    private: float
    peak: float

    @property
    def cells(self) -> list[str]:
        """As cells of a row."""
        return [f"{each:.1f}" for each in (self.rss, self.pss, self.private, self.peak)]


def memory(pid: int) -> Memory:
    """Of the process *pid*, now."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.M)}
    peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return Memory(
        kib["Rss"] / _MIB, kib["Pss"] / _MIB, private / _MIB, int(peak[1] if peak else 0) / _MIB
    )


def threads(pid: int) -> int:
    """How many it has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid: int) -> int:
    """How many it has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _said(pid: int) -> Iterator[dict[str, str]]:
    """What the kernel says of each descriptor."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                yield dict(re.findall(r"^(\w+):\s+(\S+)$", entry.read_text(), re.M))


def kernel_memory(pid: int) -> tuple[float, int]:
    """(MiB, number) of the maps that *pid* holds."""
    sizes = [int(said["memlock"]) for said in _said(pid) if "map_type" in said]
    return sum(sizes) / 1024 / 1024, len(sizes)


def _cpu_s(pid: int, *, children: bool = False) -> float:
    """User and system time of all threads of *pid* so far; of ended *children* too, if asked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if children else 13])) / _TICKS


@dataclass(frozen=True, slots=True)
class Cpu:
    """A part of one core, over some seconds."""

    percent: float
    seconds: float

    @property
    def cells(self) -> list[str]:
        """As cells of a row."""
        return [f"{self.percent:.2f}", f"{self.seconds:.0f}"]


def cpu(pid: int, seconds: float, meanwhile: Callable[[], object] | None = None) -> Cpu:
    """Watch *pid* for *seconds*; every 15 s of it *meanwhile* is done."""
    used, begin = _cpu_s(pid), time.monotonic()
    done = 0
    while (gone := time.monotonic() - begin) < seconds:
        if meanwhile is not None and gone >= done * SCRAPE_EVERY_S:
            meanwhile()
            done += 1
        time.sleep(0.1)
    return Cpu((_cpu_s(pid) - used) / gone * 100, gone)


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from the command on.

    Attributes:
        counted_s: The kernel had counted a packet at an ENI.
        announced_s: ``agent.json`` was there, and so the first snapshot.
        used_s: Processor time until then, of the agent and of the child that compiles.
    """

    counted_s: float
    announced_s: float
    used_s: float


def start(launch: Callable[[], subprocess.Popen[str]], ready: Path, log: Path) -> Start:
    """Start an agent, watch it, and stop it again. Somebody has to send meanwhile.

    Raises:
        LabError: It ended, or took too long.
    """
    begin = time.monotonic()
    process = launch()
    counted_s = announced_s = used_s = 0.0
    senders: int | None = None
    try:
        while not (counted_s and announced_s):
            time.sleep(_LOOK_S)
            gone = time.monotonic() - begin
            if process.poll() is not None or gone > _START_S:
                raise LabError(f"the agent did not start:\n{log.read_text()}")
            if senders is None:
                senders = _open_senders(process.pid)
            elif not counted_s and _has_entries(senders):
                counted_s = gone
            if not announced_s and ready.exists():
                announced_s, used_s = gone, _cpu_s(process.pid, children=True)
    finally:
        if senders is not None:
            os.close(senders)
        process.terminate()
        process.wait(30)
    return Start(counted_s, announced_s, used_s)


class _MapById(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("id", "next", "flags")]


def _open_senders(pid: int) -> int | None:
    """The map of the count at the ENIs, as the process has it; None while it has none."""
    size, room = layout.SENDER_KEY.packer.size, layout.SETTINGS["MAX_SENDERS"]
    for said in _said(pid):
        if said.get("key_size") == str(size) and said.get("max_entries") == str(room):
            return bpf.call(_MAP_GET_FD_BY_ID, _MapById(int(said["map_id"])))
    return None


def _has_entries(senders: int) -> bool:
    size, room = layout.SENDER_KEY.packer.size, layout.SETTINGS["MAX_SENDERS"]
    return any(len(keys) for keys, _ in bpf.map_items(senders, size, 8, room))
