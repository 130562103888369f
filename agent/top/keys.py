"""The keys of the live top, and what it says besides the screen: in a line, and on ``?``."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from . import cells
from .marks import Marks, marks_for
from .view import ViewState

BINDINGS: list[BindingType] = [
    Binding("q", "quit"),
    Binding("ctrl+c", "quit", priority=True),
    Binding("s", "sort(1)"),
    Binding("S", "sort(-1)"),
    Binding("r", "reverse"),
    Binding("f,slash", "filter"),
    Binding("tab,down", "select(1)", priority=True),
    Binding("shift+tab,up", "select(-1)", priority=True),
    Binding("enter", "open"),
    Binding("escape", "step_back", priority=True),
    Binding("p,space", "pause"),
    Binding("left", "wind(-1)"),
    Binding("right", "wind(1)"),
    Binding("left_square_bracket", "wind(-10)"),
    Binding("right_square_bracket", "wind(10)"),
    Binding("home", "wind(-86400)"),
    Binding("end", "wind(86400)"),
    Binding("question_mark", "help"),
]
"""The actions are `TopApp`'s; priority: also while the filter is being typed."""


def key_line(view: ViewState, width: int, *, tape: bool = False) -> Text:
    """The keys in one line of at most *width* cells; the last ones go first when it is narrow.

    *tape* when it is a recording that plays.
    """
    marks = marks_for(view.ascii_only)
    arrows, enter = ("Tab", "Enter") if view.ascii_only else ("↑↓", "⏎")
    sideways = "left right" if view.ascii_only else "←→"
    keys = [
        ("q", "quit"),
        ("?", "help"),
        *([(sideways, "second"), ("[ ]", "10 s")] if tape else []),
        ("s", f"sort:{view.sort}"),
        ("r", "turn"),
        ("/", "filter"),
        (arrows, "ENI"),
        ("Esc", "back") if view.drilled else (enter, "open"),
        ("p", "go on" if view.paused else "pause"),
    ]
    line = Text(no_wrap=True)
    for key, word in keys:
        if cell_len(line.plain) + cell_len(f"{key} {word}") + 2 > width:
            break
        line.append("  " if line.plain else "").append(key, "bold cyan").append(f" {word}", "dim")
    line.truncate(max(1, width))
    return line if line.plain else Text(marks.more)


def trouble_line(failure: str, silent_s: float, view: ViewState, width: int) -> Text:
    """That nothing has come for *silent_s* seconds, and why, if *failure* says so."""
    marks = marks_for(view.ascii_only)
    why = f": {cells.shown(failure, marks)}" if failure else ""
    told = cells.cut(f"no answer from the agent for {silent_s:.0f} s{why}", width, marks)
    return Text("", no_wrap=True).append(told, "bold red")


class HelpScreen(ModalScreen[None]):
    """A page over the screen that any key closes."""

    CSS = """
    HelpScreen { align: center middle; background: ansi_default; }
    #help { width: auto; height: auto; max-width: 100%; max-height: 100%; padding: 0 1; }
    """

    def __init__(self, ascii_only: bool) -> None:
        super().__init__()
        self._marks = marks_for(ascii_only)

    def compose(self) -> ComposeResult:
        """The page."""
        yield Static(help_page(self._marks), id="help")

    def on_key(self, event: events.Key) -> None:
        """Close on any key, and let it do nothing else."""
        event.stop()
        self.dismiss()


def help_page(marks: Marks) -> Text:
    """All keys and signs, for 80x24."""
    full = marks.parts[-1]
    rows = (
        ("Keys", ""),
        ("q", "quit"),
        ("s  S  r", "next sort key, the one before, turn the order round"),
        ("/  f", "show only workloads with a text in them (Esc: all)"),
        ("Tab  up  down", "choose an ENI"),
        ("Enter  Esc", "one ENI on the whole screen, and back"),
        ("p  Space", "let the screen stand still, and go on"),
        ("left  right", "a recording: a second back or on; [ and ]: ten; Home, End"),
        ("Signs", ""),
        (full * 3, "packets in the last full second, as a part of the limit"),
        (f"{marks.peak}  {marks.beyond}", "highest second of the last minute; beyond the limit"),
        (marks.tick, "70 % and 90 % of the limit"),
        ("60 s", "the last minute, second by second; a full column is the limit"),
        ("sent", "packets/s by class; in (parentheses): not under the limit"),
        ("share", "part of what the limit counts on this ENI"),
        ("via cache", "sent by a cache on this node that asked on its behalf"),
        (
            "TTL  answer",
            f"how long to keep the last answer ({marks.unknown}: not at all); its code",
        ),
        (marks.unknown, "not known, which is not the same as zero"),
    )
    page = Text()
    for key, words in rows:
        if words:
            page.append(f"  {key.ljust(15)}", "cyan").append(f"{words}\n")
        else:
            page.append(f"{key}\n", "bold")
    return page.append("\nany key closes this page", "dim italic")
