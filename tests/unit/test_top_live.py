"""The live top under silence, failure and resizing, in textual's own terminal."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from eni53.errors import SourceError
from eni53.model import Snapshot
from eni53.top.canvas import Canvas
from eni53.top.keys import HelpScreen
from eni53.top.live import TopApp
from rich.cells import cell_len
from textual.pilot import Pilot

from tests.fixtures import snapshots
from tests.fixtures.driver import OFTEN_S, banner, drive, shown, until


def test_snapshots_arrive_while_the_help_is_open() -> None:
    """An answer or an error that comes meanwhile must not end the app."""
    answers = iter(range(10**9))

    def fetch() -> Snapshot:
        if next(answers) % 2:
            raise SourceError("busy")
        return snapshots.three_enis()

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        seen = next(answers)
        await until(pilot, lambda: next(answers) > seen + 30)
        await pilot.resize_terminal(70, 20)
        await pilot.pause(0.1)
        assert isinstance(app.screen, HelpScreen)

    drive(steps, fetch, interval_s=OFTEN_S)


def test_pause_holds_the_screen_and_go_on_shows_the_newest() -> None:
    """What a person reads must not change under the eyes."""
    numbers = iter(range(10**9))

    def fetch() -> Snapshot:
        return replace(snapshots.near_limit(), time_s=float(next(numbers)))

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("p")
        assert app.snapshot is not None
        held_s = app.snapshot.time_s
        await until(pilot, lambda: next(numbers) > held_s + 5)
        assert held_s == app.snapshot.time_s
        assert "PAUSED" in shown(app)
        await pilot.press("p")
        assert app.snapshot.time_s > held_s
        assert "PAUSED" not in shown(app)

    drive(steps, fetch, interval_s=OFTEN_S)


def test_an_agent_that_fails_leaves_the_last_snapshot_and_a_banner() -> None:
    """Numbers stay with their age told; the banner goes when answers come again."""
    now_s = [0.0]
    failing = threading.Event()

    def fetch() -> Snapshot:
        if failing.is_set():
            raise SourceError("connection refused\x1b[2J")
        return snapshots.three_enis()

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        failing.set()
        await until(pilot, lambda: banner(app) != "")
        now_s[0] += 3
        await until(pilot, lambda: " 3 s" in banner(app))
        assert banner(app) == "no answer from the agent for 3 s: connection refused\\x1b[2J"
        assert "eni-0ff1ce0ff1ce0ff1c" in shown(app)
        failing.clear()
        await until(pilot, lambda: banner(app) == "")

    drive(steps, fetch, lambda: now_s[0], OFTEN_S)


def test_an_agent_that_hangs_is_told_and_does_not_hold_the_exit() -> None:
    """A fetch that never returns costs neither keys nor the way out."""
    now_s = [0.0]
    first, release = threading.Event(), threading.Event()

    def fetch() -> Snapshot:
        if first.is_set():
            release.wait()
        first.set()
        return snapshots.three_enis()

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        now_s[0] += 30
        await pilot.press("s")
        assert banner(app) == "no answer from the agent for 30 s"
        assert app.view.sort == "share"
        await pilot.press("q")

    try:
        assert drive(steps, fetch, lambda: now_s[0], OFTEN_S).return_code == 0
    finally:
        release.set()


def test_a_defect_in_fetch_is_not_swallowed() -> None:
    """Only errors that are expected become a banner; a bug must be seen."""

    def fetch() -> Snapshot:
        raise ZeroDivisionError

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: False)

    with pytest.raises(ZeroDivisionError):
        drive(steps, fetch, interval_s=OFTEN_S)


def test_the_screen_follows_the_terminal() -> None:
    """After a resize every line fits the new width at once."""

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for width, height in ((120, 40), (60, 10), (30, 5)):
            await pilot.resize_terminal(width, height)
            await until(pilot, lambda: app.query_one(Canvas).size == (width, height - 1))  # noqa: B023
            lines = shown(app).split("\n")
            assert max(cell_len(line) for line in lines) <= width
            assert len(lines) <= height - 1

    drive(steps)
