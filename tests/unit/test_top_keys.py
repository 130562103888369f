"""What the keys of the live top do, in textual's own terminal without a terminal."""

from __future__ import annotations

import pytest
from eni53.top.keys import HelpScreen, help_page, key_line
from eni53.top.live import TopApp
from eni53.top.marks import ASCII, UNICODE, Marks
from eni53.top.view import SORT_KEYS, ViewState
from rich.cells import cell_len
from textual.pilot import Pilot
from textual.widgets import Input

from tests.fixtures.driver import drive, shown, until


def test_keys_change_order_and_come_back() -> None:
    """``s`` walks forward, ``S`` back, ``r`` turns round."""

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("s")
        assert SORT_KEYS[1] == app.view.sort
        await pilot.press("S", "S")
        assert SORT_KEYS[-1] == app.view.sort
        await pilot.press("r")
        assert app.view.reverse
        assert "kind▾" in shown(app)

    drive(steps)


def test_filter_is_typed_kept_and_cleared() -> None:
    """Letters that are keys elsewhere are text here; Enter keeps the filter, Esc ends it."""

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"qps")
        assert app.view.filter == "qps"
        assert "nothing here has qps in it" in shown(app)
        await pilot.press("escape")
        assert app.view.filter == ""
        assert not app.query_one("#filter").display
        await pilot.press("f", *"web", "enter")
        assert app.view.filter == "web"
        assert not app.query_one("#filter", Input).has_focus
        await pilot.press("s")
        assert ("web", SORT_KEYS[1]) == (app.view.filter, app.view.sort)
        await pilot.press("escape")
        assert app.view.filter == ""

    drive(steps)


def test_an_eni_is_chosen_opened_and_left() -> None:
    """Tab and arrows choose, Enter gives it the screen, Esc goes back one step at a time."""

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("down")
        assert app.view.selected == "eni-0a1b2c3d4e5f60718"
        await pilot.press("tab", "up")
        assert app.view.selected == "eni-0a1b2c3d4e5f60718"
        await pilot.press("enter")
        assert app.view.drilled
        assert "towards the limit" in shown(app)
        assert "eni-0ff1ce0ff1ce0ff1c" not in shown(app)
        await pilot.press("escape")
        assert (app.view.drilled, app.view.selected) == (False, "eni-0a1b2c3d4e5f60718")
        await pilot.press("escape")
        assert app.view.selected is None

    drive(steps)


def test_enter_opens_the_hottest_when_none_was_chosen() -> None:
    """The quickest way to the trouble is one key."""

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        assert (app.view.selected, app.view.drilled) == ("eni-0ff1ce0ff1ce0ff1c", True)

    drive(steps)


def test_help_lies_over_the_screen_until_any_key() -> None:
    """The key that closes the help does nothing else."""

    async def steps(app: TopApp, pilot: Pilot[None]) -> None:
        for key in ("q", "escape", "question_mark", "s"):
            await pilot.press("question_mark")
            assert isinstance(app.screen, HelpScreen)
            await pilot.press(key)
            await until(pilot, lambda: not isinstance(app.screen, HelpScreen))
        assert ViewState() == app.view

    drive(steps)


@pytest.mark.parametrize("marks", [UNICODE, ASCII], ids=["unicode", "ascii"])
def test_help_explains_every_sign_within_80x24(marks: Marks) -> None:
    """A page that does not fit hides its last lines, for there is no scrolling in it."""
    page = help_page(marks).plain.splitlines()

    assert (
        f"  TTL  answer    how long to keep the last answer ({marks.unknown}: not at all);"
        in "".join(page)
    )
    assert max(map(cell_len, page)) <= 78, "80 less its padding"
    assert len(page) <= 24
    assert marks.ascii_only <= "".join(page).isascii()


@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_keys_fit_80_columns_in_every_state(ascii_only: bool) -> None:
    """A line of keys that is cut off hides the keys."""
    for sort in SORT_KEYS:
        for drilled in (False, True):
            view = ViewState(sort=sort, drilled=drilled, paused=drilled, ascii_only=ascii_only)
            line = key_line(view, 80).plain

            assert cell_len(line) <= 80
            assert line.endswith("go on" if drilled else "pause")
            assert cell_len(key_line(view, 20).plain) <= 20
