"""Finds and ends processes that carry a lab's mark. Never by name, and never a reused pid."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from .shell import MARK


def start_time(pid: int) -> int | None:
    """When *pid* started, in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses of its own.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(pid: int, started: int) -> bool:
    """Whether *pid* still is the process that started at *started*."""
    return start_time(pid) == started


def marked(lab_id: str) -> list[int]:
    """The pids of every process of lab *lab_id*, containers' processes included."""
    mark = f"{MARK}={lab_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if mark in variables:
                found.append(int(entry.name))
    return found


def end(pids: Iterable[int], *, grace: float) -> None:
    """End *pids*: SIGTERM, up to *grace* seconds, then SIGKILL.

    A pidfd holds each process, so a pid that is given to another meanwhile is never hit.
    """
    held: list[int] = []
    for pid in pids:
        try:
            held.append(os.pidfd_open(pid))
        except ProcessLookupError:
            continue
    try:
        if grace > 0:
            _signal(held, signal.SIGTERM)
            _wait(held, grace)
        _signal(held, signal.SIGKILL)
        _wait(held, 5)
    finally:
        for fd in held:
            os.close(fd)


def end_marked(lab_id: str, *, grace: float = 2) -> None:
    """End everything of lab *lab_id*, also what was started while this ran."""
    for _ in range(5):
        pids = marked(lab_id)
        if not pids:
            return
        end(pids, grace=grace)
        grace = 0


def _signal(held: Iterable[int], number: signal.Signals) -> None:
    for fd in held:
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            continue


def _wait(held: Iterable[int], seconds: float) -> None:
    """Wait until every process behind *held* has ended, *seconds* at most."""
    waiting = set(held)
    deadline = time.monotonic() + seconds
    while waiting and (left := deadline - time.monotonic()) > 0:
        poller = select.poll()
        for fd in waiting:
            poller.register(fd, select.POLLIN)
        waiting -= {fd for fd, _ in poller.poll(left * 1000)}
