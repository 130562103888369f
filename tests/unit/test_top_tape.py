"""A recording that plays: its clock, its keys, and the command that opens it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eni53.cli import main
from eni53.errors import SourceError, UsageError
from eni53.flight.recording import Recording
from eni53.flight.recording_json import dumps
from eni53.top.keys import key_line
from eni53.top.live import TopApp
from eni53.top.tape import INTERVAL_S, LEAD_S, Tape, open_tape
from eni53.top.view import ViewState
from textual.pilot import Pilot

from tests.fixtures import snapshots
from tests.fixtures.driver import OFTEN_S, Steps, banner, drive, shown, until
from tests.fixtures.flights import recorded, recording

SLOTS = 600
FIRST_S, MOMENT_S, LAST_S = 2.0, 30.0, 60.0
"""Of the recording below: its first whole second, what it was made for, its last."""


def minute(**changes: Any) -> Recording:
    """A minute, with a second at each second: the packets rise, but for a burst at 45 s."""
    one = recorded(slots=SLOTS)
    counts = [None if at < 2 else at // 10 for at in range(SLOTS)]
    counts[445:450] = [500] * 5
    one = replace(one, linklocal=tuple(counts), dns=tuple(counts))
    second = replace(one, eni=replace(one.eni, label="eni-2", interface="ens6"))
    whole = recording(one, second, slots=SLOTS, moment=round(MOMENT_S * 10))
    return replace(whole, **changes)


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 5000.0

    def __call__(self) -> float:
        """As `time.monotonic`."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """One that stands still."""
    return Clock()


def at_s(tape: Tape) -> float:
    """Where it is, in seconds from the begin of the recording."""
    return round(tape.fetch().time_s - snapshots.NOON_S, 3)


class TestClock:
    """It runs, stands still, and goes where it is told."""

    def test_it_begins_shortly_before_the_moment_and_runs(self, clock: Clock) -> None:
        """A frame stands until the next one's time has come."""
        tape = Tape(minute(), clock)
        assert at_s(tape) == MOMENT_S - LEAD_S
        clock.now_s += 0.99
        assert at_s(tape) == MOMENT_S - LEAD_S
        clock.now_s += 0.02
        assert at_s(tape) == MOMENT_S - LEAD_S + 1
        clock.now_s += 20
        assert at_s(tape) == MOMENT_S + 11

    @pytest.mark.parametrize(("moment", "begin_s"), [(None, FIRST_S), (0, FIRST_S), (600, 50.0)])
    def test_where_it_begins(self, clock: Clock, moment: int | None, begin_s: float) -> None:
        """At the first whole second if there is no moment, or none ten seconds before it."""
        tape = Tape(minute(moment=moment), clock)
        assert at_s(tape) == begin_s
        clock.now_s += 1.01
        assert at_s(tape) == begin_s + 1

    def test_it_ends_at_the_last_frame_and_comes_back_from_there(self, clock: Clock) -> None:
        """An hour later a second back is a second back."""
        tape = Tape(minute(), clock)
        clock.now_s += 3600
        assert at_s(tape) == LAST_S
        tape.go(-1)
        assert at_s(tape) == LAST_S - 1
        clock.now_s += 1
        assert at_s(tape) == LAST_S

    def test_it_stands_still_and_goes_on_from_there(self, clock: Clock) -> None:
        """However long it stood; twice is once."""
        tape = Tape(minute(), clock)
        clock.now_s += 5
        for _ in range(2):
            tape.hold()
            clock.now_s += 100
            assert at_s(tape) == 25.0
        for _ in range(2):
            tape.play()
            clock.now_s += 2
        assert at_s(tape) == 29.0

    @pytest.mark.parametrize("held", [False, True])
    def test_it_goes_back_and_on_but_not_beyond_its_ends(self, clock: Clock, held: bool) -> None:
        """By seconds, from where it is, running or not."""
        tape = Tape(minute(), clock)
        if held:
            tape.hold()
        for seconds, found in (
            (1, 21.0), (-10, 11.0), (-86400, FIRST_S), (-1, FIRST_S), (1, 3.0), (86400, LAST_S),
            (10, LAST_S), (-10, 50.0),
        ):  # fmt: skip
            tape.go(seconds)
            assert at_s(tape) == found
        clock.now_s += 4.01
        assert at_s(tape) == (50.0 if held else 54.0)
        tape.go(-86400)
        clock.now_s += 3.01
        assert at_s(tape) == (FIRST_S if held else FIRST_S + 3)

    def test_it_says_where_it_is(self, clock: Clock) -> None:
        """Before and after the moment, or in the recording."""
        tape = Tape(minute(), clock)
        assert tape.told(tape.fetch()) == "replay, exceeded -10 s"
        tape.go(10)
        assert tape.told(tape.fetch()) == "replay, exceeded +0 s"
        tape.go(13)
        assert tape.told(tape.fetch()) == "replay, exceeded +13 s"
        tape = Tape(minute(moment=None, reason="requested"), clock)
        assert tape.told(tape.fetch()) == "replay, second 2"

    def test_the_worst_is_the_fullest_second(self, clock: Clock) -> None:
        """Wherever it stands."""
        assert round(Tape(minute(), clock).worst.time_s - snapshots.NOON_S, 3) == 45.0

    def test_without_a_whole_second_there_is_nothing_to_play(self) -> None:
        """And that is said."""
        for empty in (recording(recorded(slots=9), slots=9), replace(minute(), enis=())):
            with pytest.raises(SourceError, match="no whole second"):
                Tape(empty)


def played(steps: Steps, clock: Clock) -> None:
    """Drive a top that plays the minute."""
    tape = Tape(minute(), clock)
    drive(steps, tape.fetch, interval_s=OFTEN_S, tape=tape)


def moment(app: TopApp) -> float:
    """What the screen shows, in seconds from the begin of the recording."""
    assert app.snapshot is not None
    return round(app.snapshot.time_s - snapshots.NOON_S, 3)


class TestKeys:
    """Left, right, brackets, Home, End and Space."""

    def test_it_plays_by_itself(self, clock: Clock) -> None:
        """As live as what is live; the header says that it is not."""

        async def steps(app: TopApp, pilot: Pilot[None]) -> None:
            assert moment(app) == 20.0
            assert "replay, exceeded -10 s" in shown(app)
            clock.now_s += 12
            await until(pilot, lambda: moment(app) == 32.0)
            assert "replay, exceeded +2 s" in shown(app)
            assert banner(app) == ""

        played(steps, clock)

    def test_keys_wind_it(self, clock: Clock) -> None:
        """Where each leads is what the screen shows."""

        async def steps(app: TopApp, pilot: Pilot[None]) -> None:
            for key, found in (
                ("right", 21.0),
                ("left", 20.0),
                ("left_square_bracket", 10.0),
                ("left_square_bracket", FIRST_S),
                ("right_square_bracket", 12.0),
                ("end", LAST_S),
                ("right", LAST_S),
                ("home", FIRST_S),
                ("left", FIRST_S),
            ):
                await pilot.press(key)
                header = f"replay, exceeded {found - MOMENT_S:+.0f} s"
                await until(pilot, lambda at=found: moment(app) == at)  # type: ignore[misc]
                await until(pilot, lambda text=header: text in shown(app))  # type: ignore[misc]

        played(steps, clock)

    def test_it_stands_still_and_can_be_wound_meanwhile(self, clock: Clock) -> None:
        """Space; a second at a time through what happened; and on from there."""

        async def steps(app: TopApp, pilot: Pilot[None]) -> None:
            await pilot.press("space")
            clock.now_s += 7
            await pilot.pause(1.5 * OFTEN_S)
            assert moment(app) == 20.0
            await pilot.press("right", "right", "right")
            assert moment(app) == 23.0
            assert "PAUSED" in shown(app)
            await pilot.pause(1.5 * OFTEN_S)
            assert moment(app) == 23.0
            await pilot.press("space")
            assert moment(app) == 23.0
            assert "PAUSED" not in shown(app)
            clock.now_s += 2
            await until(pilot, lambda: moment(app) == 25.0)

        played(steps, clock)

    def test_other_keys_do_what_they_do(self, clock: Clock) -> None:
        """Typing a filter winds nothing; an ENI stays chosen."""

        async def steps(app: TopApp, pilot: Pilot[None]) -> None:
            await pilot.press("down", "slash", *"ab", "left", "home", "end", "space", "enter")
            assert app.view.filter == "ab "
            assert app.view.selected is not None
            assert moment(app) == 20.0
            await pilot.press("right")
            assert moment(app) == 21.0
            assert app.view.filter == "ab "

        played(steps, clock)

    def test_live_they_do_nothing(self) -> None:
        """There is no way back from now, and no error either."""

        async def steps(app: TopApp, pilot: Pilot[None]) -> None:
            before = shown(app)
            await pilot.press("left", "right", "home", "end", "left_square_bracket")
            await pilot.press("right_square_bracket")
            assert shown(app) == before
            assert app.view.played == ""

        drive(steps)

    def test_the_line_of_keys_has_them_only_then(self) -> None:
        """In ASCII as well."""
        assert "←→ second" in key_line(ViewState(), 80, tape=True).plain
        assert "left right second" in key_line(ViewState(ascii_only=True), 80, tape=True).plain
        assert "second" not in key_line(ViewState(), 80).plain


class TestCommand:
    """`eni53 top --replay FILE`, into a pipe."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A recording."""
        path = tmp_path / "x.json"
        path.write_text(dumps(minute()))
        return path

    def refused(self, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
        """The one line of a command that ends with exit code 2."""
        assert main(["top", "--once", *argv]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        [line] = told.err.splitlines()
        assert line.startswith("eni53: ")
        assert line.isprintable()
        return line

    def test_once_prints_the_fullest_second(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As a screen and as JSON; no agent is asked and no root is needed."""
        assert main(["top", "--replay", str(path)]) == 0
        screen = capsys.readouterr().out
        assert "replay, exceeded +15 s" in screen
        assert "checkout-api:42" in screen
        assert main(["top", "--json", "--replay", str(path)]) == 0
        told = json.loads(capsys.readouterr().out)
        assert [eni["window_pps"] for eni in told["enis"]] == [2500 + 5 * 44] * 2

    @pytest.mark.parametrize("wanted", ["eni-2", "ens6"])
    def test_only_the_eni_that_is_wanted(
        self, path: Path, capsys: pytest.CaptureFixture[str], wanted: str
    ) -> None:
        """By label or interface; what is wound to is of it too."""
        assert main(["top", "--json", "--replay", str(path), "--eni", wanted]) == 0
        assert [e["eni"] for e in json.loads(capsys.readouterr().out)["enis"]] == ["eni-2"]
        tape = open_tape(path, [wanted])
        tape.go(5)
        assert [usage.eni.label for usage in tape.fetch().enis] == ["eni-2"]

    def test_what_is_configured_here_is_of_this_node_and_not_of_the_file(
        self, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may have come from another one."""
        monkeypatch.setenv("ENI53_ENI_INTERFACES", "eth7")
        assert main(["top", "--json", "--replay", str(path)]) == 0
        assert len(json.loads(capsys.readouterr().out)["enis"]) == 2

    def test_an_eni_that_is_not_in_it(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The line says which are."""
        line = self.refused(capsys, "--replay", str(path), "--eni", "eth9")
        assert [w for w in ("eth9", "ens5", "ens6 (eni-2)", path.name) if w not in line] == []

    @pytest.mark.parametrize(
        "content", [None, b"", b"\x00\xff", b"{}", b"[" * 100_000, "empty", "snapshot"]
    )
    def test_what_is_no_recording(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | str | None
    ) -> None:
        """One line: which file, why, and where recordings come from."""
        path = tmp_path / "x\x1b[2J\n.json"
        if content == "empty":
            content = dumps(replace(minute(), enis=())).encode()
        elif content == "snapshot":
            content = b'{"version": 1, "node": "x"}'
        if isinstance(content, bytes):
            path.write_bytes(content)
        line = self.refused(capsys, "--replay", str(path))
        assert "x\\x1b[2J\\x0a.json: " in line
        assert "eni53 record" in line

    @pytest.mark.parametrize("path", ["/dev/zero", "/", "/proc/self/mem/x", "y" * 5000])
    def test_what_is_no_file(self, capsys: pytest.CaptureFixture[str], path: str) -> None:
        """At once."""
        self.refused(capsys, "--replay", path)

    def test_from_a_program(self, tmp_path: Path) -> None:
        """The error is the caller's words' fault."""
        with pytest.raises(UsageError, match="No such file"):
            open_tape(tmp_path / "absent")
        assert INTERVAL_S < 1
