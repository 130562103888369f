"""A snapshot printed once, to a terminal or a pipe, as a screen or as JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import TextIO

from ..console import Printer
from ..model import Snapshot
from ..snapshot_json import dumps
from ..text import ascii_only
from .render import render
from .view import ViewState


def print_once(
    snapshot: Snapshot, view: ViewState, stream: TextIO, width: int | None = None
) -> None:
    """Print *snapshot* as *view* wants it, in as many lines as it takes and no more.

    A terminal gets at most a screenful, with colours unless NO_COLOR is set; a pipe gets every row
    and no escape sequence.

    Args:
        snapshot: What was measured.
        view: What to show of it.
        stream: Where to.
        width: Cells of a line; None for those of the terminal, or of ``COLUMNS``.
    """
    console = Printer(stream, width)
    view = replace(view, ascii_only=view.ascii_only or ascii_only(stream))
    height = max(10, console.height - 2) if console.is_terminal else None
    screen = render(snapshot, view, console.width, height)
    console.print(screen, end="\n", soft_wrap=True)


def write_json(snapshot: Snapshot, stream: TextIO) -> None:
    """Write *snapshot* as indented JSON and a newline."""
    stream.write(dumps(snapshot, indent=2) + "\n")
