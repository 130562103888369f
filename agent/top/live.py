"""The live top: `render` in a terminal, refreshed every second, with keys.

It owns the keys and the last snapshot; what the screen looks like is `render`'s business, and
where snapshots come from is the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.message import Message
from textual.widgets import Input, Static

from ..errors import Eni53Error
from ..model import Snapshot
from ..text import ascii_only
from .canvas import Canvas
from .feed import Feed, Fetch
from .keys import BINDINGS, HelpScreen, key_line, trouble_line
from .render import render
from .tape import Tape
from .terminal import Terminal
from .view import ViewState, focus, next_sort, select

HANG_UP_S = 10.0
"""How long top may take to end once its terminal is gone: detaching is a matter of a second."""

_FILTER_HINT = "only workloads with this in them; Enter keeps it, Esc shows all"


class TopApp(App[None]):
    """A node's ENIs, live.

    Args:
        fetch: The newest snapshot; called in a thread, may block, may raise `Eni53Error`.
        interval_s: Seconds between two calls.
        view: What to show first.
        clock: Seconds of a monotonic clock; a parameter for tests.
        tape: What `fetch` reads from, when it is a recording: then there are keys to wind it.
        terminal: What is drawn on: top ends when it is gone.
    """

    CSS = """
    Screen, #filter { background: ansi_default; }
    #screen { height: 1fr; }
    #banner, #filter { height: 1; border: none; padding: 0; display: none; }
    #keys { height: 1; }
    """
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    BINDINGS = BINDINGS

    class Arrived(Message):
        """What one fetch brought."""

        def __init__(self, outcome: Snapshot | Exception) -> None:
            super().__init__()
            self.outcome = outcome

    def __init__(
        self,
        fetch: Fetch,
        interval_s: float = 1.0,
        view: ViewState | None = None,
        clock: Callable[[], float] = time.monotonic,
        tape: Tape | None = None,
        terminal: Terminal | None = None,
    ) -> None:
        super().__init__(ansi_color=True)
        self._terminal, self._leaving = terminal, False
        view = view or ViewState()
        self.view = replace(view, ascii_only=view.ascii_only or ascii_only(sys.stdout))
        self.snapshot: Snapshot | None = None
        self._newest: Snapshot | None = None
        self._tape = tape
        self._failure = ""
        self._clock = clock
        self._answered_at_s = clock()
        self._patience_s = 2 * interval_s + 1
        # Held, not queried: textual 1.0 looks in the help page while that is open.
        self._canvas = Canvas(self._screen_at)
        self._banner, self._keys = Static(id="banner"), Static(id="keys")
        self._filter = Input(id="filter", placeholder=_FILTER_HINT, disabled=True)
        self._feed = Feed(fetch, interval_s, self._deliver)

    def compose(self) -> ComposeResult:
        """The screen, a line for trouble, a line for the filter, a line of keys."""
        yield from (self._canvas, self._banner, self._filter, self._keys)

    def on_mount(self) -> None:
        """Start asking, and look at the clock every second even if no answer comes."""
        # Otherwise SIGTERM would leave the terminal on the other screen, without a cursor.
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: a test
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, self.exit)
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        self.set_interval(1.0, self._look_round)
        self._feed.start()
        self._draw()

    def _look_round(self) -> None:
        if self._terminal is not None and self._terminal.gone:
            self._hung_up()
        else:
            self._draw_banner()

    def _hung_up(self) -> None:
        """The terminal is gone."""
        if self._leaving:
            return
        self._leaving = True
        # Whatever else textual may wait for: a top that nobody sees must not keep a processor busy.
        last_resort = threading.Timer(HANG_UP_S, os._exit, (1,))
        last_resort.daemon = True
        last_resort.start()
        self.exit()

    def on_unmount(self) -> None:
        """Stop asking."""
        self._feed.stop()

    def _deliver(self, outcome: Snapshot | Exception) -> None:
        """Called in the feed's thread; posting is the one thing that is safe there."""
        self.post_message(self.Arrived(outcome))

    @on(Arrived)
    def _arrived(self, message: Arrived) -> None:
        outcome = message.outcome
        if isinstance(outcome, Eni53Error):
            self._failure = str(outcome)
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            self._failure = ""
            self._answered_at_s = self._clock()
            self._newest = outcome
        self._draw()

    # --- keys ---------------------------------------------------------------------------------

    def action_sort(self, step: int) -> None:
        """Sort by the next key, or the one before."""
        self._show(next_sort(self.view, step))

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._show(replace(self.view, reverse=not self.view.reverse))

    def action_pause(self) -> None:
        """Let the screen stand still, or go on; a recording stands still with it."""
        if self._tape is not None:
            (self._tape.play if self.view.paused else self._tape.hold)()
        self._show(replace(self.view, paused=not self.view.paused))

    def action_wind(self, seconds: int) -> None:
        """Wind a recording on or back; it shows at once, also while it stands still."""
        if self._tape is not None:
            self._tape.go(seconds)
            self._newest = self.snapshot = self._tape.fetch()
            self._draw()

    def action_select(self, step: int) -> None:
        """Choose the next ENI."""
        if self.snapshot is not None:
            self._show(select(self.snapshot.enis, self.view, step))

    def action_open(self) -> None:
        """Give the chosen ENI the whole screen."""
        chosen = focus(self.snapshot.enis, self.view) if self.snapshot else None
        if chosen is not None:
            self._show(replace(self.view, selected=chosen.eni.label, drilled=True))

    def action_step_back(self) -> None:
        """One step back: help, filter, the ENI on the whole screen, the choice of an ENI."""
        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
        elif self._filter.display or self.view.filter:
            self._close_filter("")
        elif self.view.drilled:
            self._show(replace(self.view, drilled=False))
        else:
            self._show(replace(self.view, selected=None))

    def action_filter(self) -> None:
        """Ask for a filter."""
        self._filter.display, self._filter.disabled = True, False
        self._filter.value = self.view.filter
        self._filter.focus()

    def action_help(self) -> None:
        """Explain keys and signs."""
        self.push_screen(HelpScreen(self.view.ascii_only))

    @on(Input.Changed)
    def _filter_typed(self, event: Input.Changed) -> None:
        if self._filter.display:
            self._show(replace(self.view, filter=event.value))

    @on(Input.Submitted)
    def _filter_kept(self, event: Input.Submitted) -> None:
        self._close_filter(event.value)

    def _close_filter(self, kept: str) -> None:
        self._filter.display, self._filter.disabled = False, True
        self.set_focus(None)
        self._show(replace(self.view, filter=kept))

    # --- drawing ------------------------------------------------------------------------------

    def _show(self, view: ViewState) -> None:
        self.view = view
        self._draw()

    def _draw(self) -> None:
        if not self.view.paused or self.snapshot is None:
            self.snapshot = self._newest
        if self._tape is not None and self.snapshot is not None:
            self.view = replace(self.view, played=self._tape.told(self.snapshot))
        self._canvas.refresh()
        self._keys.update(key_line(self.view, max(1, self.size.width), tape=self._tape is not None))
        self._draw_banner()

    def _screen_at(self, width: int, height: int) -> Text:
        if self.snapshot is None:
            return Text("waiting for the first snapshot", style="dim italic")
        return render(self.snapshot, self.view, width, height)

    def trouble(self) -> Text:
        """What is wrong with the feed, as one line; empty when nothing is."""
        silent_s = self._clock() - self._answered_at_s
        if not self._failure and silent_s <= self._patience_s:
            return Text("")
        return trouble_line(self._failure, silent_s, self.view, max(1, self.size.width))

    def _draw_banner(self) -> None:
        told = self.trouble()
        self._banner.display = bool(told)
        self._banner.update(told)
