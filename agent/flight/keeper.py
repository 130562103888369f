"""Freezes the minutes around what went wrong: on an ENI that exceeds, and on the driver's drops.

A first file is written at once, so that it is there even if the agent is not a minute later; when
the minute after is over it is written again, whole, under the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..alerts import drops
from ..log import get_logger
from ..model import Alert, Snapshot
from . import files
from .recorder import Recorder
from .recording import Recording

MOST_ENIS = 16
"""More do not fit into a file; to cut all 64 would take 27 MiB for a moment."""

BEFORE_SLOTS = 600
AFTER_SLOTS = 600
_QUIET_SLOTS = 600
"""Drops that follow others within this time are the same trouble."""
_MOST_WAITING = 4
"""Recordings that wait for a slow disk; more of them would be memory."""


@dataclass(frozen=True, slots=True)
class _Pending:
    name: str
    reason: str
    eni: str
    moment: int


class Keeper:
    """Remembers, and writes into *directory*; a disk that is slow or full stops no counting.

    Args:
        directory: Of the recordings; made when the first is written, within one that is there.

    Attributes:
        failed: Told the reason when a recording could not be written.
        written: Files, the first and the whole one of each.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.failed: Callable[[str], None] = lambda _: None
        self._recorder = Recorder()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recorder")
        self._writing: list[Future[Path]] = []
        self._pending: _Pending | None = None
        self._dropped: dict[str, int] = {}
        self._rose_at: dict[str, int] = {}
        self._log = get_logger()
        self.written = 0

    def update(self, snapshot: Snapshot, changed: Iterable[Alert]) -> None:
        """Take one snapshot in, with the alerts that it raised or cleared."""
        self._recorder.update(snapshot)
        self._reap()
        slot = self._recorder.slot
        if slot is None:
            return
        reasons = [*self._exceeded(changed), *self._drops(snapshot, slot)]
        pending = self._pending
        if pending is not None and slot >= pending.moment + AFTER_SLOTS:
            self._write(pending, slot)
            self._pending = pending = None
        if reasons and pending is None:
            reason, eni = reasons[0]
            name = files.name_for(snapshot.time_s, reason, eni)
            self._pending = _Pending(name, reason, eni, slot)
            self._write(self._pending, slot)
            self._log.warning(
                "eni53.recording", reason=reason, eni=eni, file=str(self._directory / name)
            )

    def stop(self) -> None:
        """Write what is not whole yet, as far as it goes."""
        if self._pending is not None and self._recorder.slot is not None:
            self._write(self._pending, self._recorder.slot)
            self._pending = None
        self._writer.shutdown(wait=True)
        self._reap()

    def _exceeded(self, changed: Iterable[Alert]) -> list[tuple[str, str]]:
        return [
            ("exceeded", alert.eni.label)
            for alert in changed
            if (alert.transition, alert.severity) == ("raised", "exceeded")
        ]

    def _drops(self, snapshot: Snapshot, slot: int) -> list[tuple[str, str]]:
        """ENIs whose driver began to drop; one that does not answer this time is not forgotten."""
        began = []
        labels = {usage.eni.label for usage in snapshot.enis}
        self._dropped = {k: count for k, count in self._dropped.items() if k in labels}
        self._rose_at = {k: at for k, at in self._rose_at.items() if k in labels}
        for usage in snapshot.enis:
            count, label = drops(usage), usage.eni.label
            if count is None:
                continue
            if count > self._dropped.get(label, count):
                last = self._rose_at.get(label)
                self._rose_at[label] = slot
                if last is None or slot - last > _QUIET_SLOTS:
                    began.append(("driver-drops", label))
            self._dropped[label] = count
        return began

    def _write(self, pending: _Pending, slot: int) -> None:
        if len(self._writing) >= _MOST_WAITING:
            self.failed(f"{pending.name}: those before it are not written yet")
            return
        first = pending.moment - BEFORE_SLOTS
        end = min(slot, pending.moment + AFTER_SLOTS)
        recording = self._recorder.cut(
            first, end, pending.reason, pending.eni, min(pending.moment, end), MOST_ENIS
        )
        self._writing.append(self._writer.submit(self._save, recording, pending.name))

    def _save(self, recording: Recording, name: str) -> Path:
        return files.write(self._directory, name, files.fitted(recording))

    def _reap(self) -> None:
        for future in [future for future in self._writing if future.done()]:
            self._writing.remove(future)
            error = future.exception()
            if error is None:
                self.written += 1
            else:  # a defect of ours is no reason to stop counting either
                self.failed(str(error) or type(error).__name__)
