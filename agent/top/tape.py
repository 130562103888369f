"""A recording as a source of snapshots: it runs by the clock, stands still, and goes where told."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from ..errors import SourceError, UsageError
from ..flight import files
from ..flight.recording import Recording
from ..flight.replay import Frames
from ..model import Snapshot
from ..rates import SLOT_S
from ..text import clean

LEAD_S = 10.0
INTERVAL_S = 0.25


class Tape:
    """Plays one recording, from shortly before what it was made for.

    Args:
        recording: What is played.
        clock: Monotonic seconds.

    Raises:
        SourceError: There is not one whole second in it.
    """

    def __init__(self, recording: Recording, clock: Callable[[], float] = time.monotonic) -> None:
        self._recording = recording
        self._clock = clock
        self._frames = Frames(recording)
        if not self._frames:
            raise SourceError("recording: it holds no whole second of any ENI")
        self._times_s = self._frames.times_s
        moment = recording.moment
        lead_s = self._times_s[0] if moment is None else self._moment_s - LEAD_S
        self._held_s: float | None = self._within(lead_s)
        self._began_s = 0.0
        self.play()

    @property
    def _moment_s(self) -> float:
        return self._recording.begin_s + (self._recording.moment or 0) * SLOT_S

    @property
    def worst(self) -> Snapshot:
        """The fullest second."""
        return self._frames.frame(self._frames.worst())

    def fetch(self) -> Snapshot:
        """The snapshot of now."""
        return self._frames.frame(max(0, bisect_right(self._times_s, self._now_s) - 1))

    def play(self) -> None:
        """Go on from where it stands."""
        if self._held_s is not None:
            self._began_s = self._clock() - self._held_s
            self._held_s = None

    def hold(self) -> None:
        """Stand still."""
        self._held_s = self._now_s

    def go(self, seconds: float) -> None:
        """Go on or back by so many seconds, to the first or the last at most."""
        to_s = self._within(self._now_s + seconds)
        if self._held_s is None:
            self._began_s = self._clock() - to_s
        else:
            self._held_s = to_s

    def told(self, snapshot: Snapshot) -> str:
        """Where *snapshot* is in the recording, in a few words."""
        if self._recording.moment is None:
            return f"replay, second {snapshot.time_s - self._recording.begin_s:.0f}"
        return f"replay, {self._recording.reason} {snapshot.time_s - self._moment_s:+.0f} s"

    @property
    def _now_s(self) -> float:
        held_s = self._held_s  # looked at once: another thread may let it go meanwhile
        return self._within(self._clock() - self._began_s if held_s is None else held_s)

    def _within(self, time_s: float) -> float:
        return min(max(time_s, self._times_s[0]), self._times_s[-1])


def open_tape(path: Path, wanted: Collection[str] = ()) -> Tape:
    """The recording in the file *path*.

    Args:
        path: The file.
        wanted: Labels or interface names of the ENIs to keep; empty for all.

    Raises:
        UsageError: It cannot be read, is no recording, or has none of the ENIs that are wanted.
    """
    shown = clean(str(path))
    try:
        recording = files.read(path)
        there = [one.eni for one in recording.enis]
        kept = tuple(
            one
            for one in recording.enis
            if not wanted or {one.eni.label, one.eni.interface} & set(wanted)
        )
        if there and not kept:
            names = ", ".join(f"{eni.interface} ({eni.label})" for eni in there)
            raise UsageError(f"{shown}: no ENI {', '.join(wanted)} in it; there: {names}")
        return Tape(replace(recording, enis=kept))
    except SourceError as error:
        raise UsageError(
            f"{shown}: {error}; `eni53 record` makes recordings, and the agent keeps its own in"
            f" RUNTIME_DIR/{files.DIRECTORY}"
        ) from error
