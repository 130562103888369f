"""A snapshot as a screen of text: pure, for any width and height, without terminal or clock.

The hottest or chosen ENI is a panel with its workloads, the others take a line each, or a panel
as well where there is room. `render` never returns a line wider than it was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.text import Text

from ..model import Finding, Snapshot
from . import cells
from .layout import drilled, overview
from .marks import Marks, marks_for
from .view import ViewState, focus

ENDLESS = 1_000_000
"""A height that holds anything: what a pipe has."""

_PART_GAP = 2
_HEADER_FRAME = len("eni53 ") + _PART_GAP
_BASIS_WORDS = {"linklocal": "limit on link-local", "dns": "limit on port 53"}
_SEVERITY_STYLES = {"critical": "bold dark_orange", "warning": "yellow"}


def render(snapshot: Snapshot, view: ViewState, width: int, height: int | None) -> Text:
    """*snapshot* as *view* wants it, in at most *height* lines of at most *width* cells.

    Args:
        snapshot: What was measured.
        view: What to show of it.
        width: Cells of a line.
        height: Lines; None for as many as everything takes.
    """
    marks = marks_for(view.ascii_only)
    room = ENDLESS if height is None else height
    lines = [_header(snapshot, view, width, marks)]
    finding = _finding(snapshot.findings, width, marks) if room >= 14 else []
    spacing = [Text("")] if room >= 16 else []
    left = room - len(lines) - len(finding) - len(spacing)
    chosen = focus(snapshot.enis, view)
    if chosen is None:
        body = [_no_eni(view, marks)]
    elif view.drilled:
        body = drilled(chosen, view, width, left)
    else:
        body = overview(snapshot.enis, chosen, view, width, left)
    lines += [*spacing, *body[: max(0, left)], *finding]
    return _joined(lines[: max(1, room)], width)


def _header(snapshot: Snapshot, view: ViewState, width: int, marks: Marks) -> Text:
    """Node, time and what the numbers mean; what matters least goes first when it is narrow.

    The first label of the node's name is kept, up to 18 cells of it.
    """
    moment = datetime.fromtimestamp(snapshot.time_s, UTC)
    number = len(snapshot.enis)
    bases = {usage.basis for usage in snapshot.enis}
    parts = (  # how soon it is kept, what, its style; in the order in which they are shown
        (0, "PAUSED" if view.paused else "", "bold black on yellow"),
        (1, cells.cut(cells.shown(view.played, marks), 36, marks), "bold reverse cyan"),
        (2, moment.strftime("%H:%M:%S UTC"), ""),
        (4, f"{number} ENI" + ("s" if number != 1 else ""), ""),
        (5, _BASIS_WORDS[bases.pop()] if len(bases) == 1 else "", "dim"),
        (3, cells.cut(cells.shown(view.source, marks), 28, marks), "dim"),
        (6, moment.strftime("%Y-%m-%d") if width >= 100 else "", "dim"),
    )
    node = cells.shown(snapshot.node, marks)
    least = min(18, cell_len(node.partition(".")[0]) + len(marks.more))
    kept: set[int] = set()
    left = width - _HEADER_FRAME - least + _PART_GAP  # the last part has no gap behind it
    for rank, text, _ in sorted(parts):
        if text and cell_len(text) + _PART_GAP <= left:
            kept.add(rank)
            left -= cell_len(text) + _PART_GAP
    right = Text(" " * _PART_GAP).join(
        Text(text, style=style) for rank, text, style in parts if rank in kept
    )
    room = width - cell_len(right.plain) - _HEADER_FRAME
    line = Text("eni53 ", style="").append(cells.cut(node, room, marks), "bold")
    line.stylize("bold cyan", 0, 5)
    line.append(" " * max(1, width - cell_len(line.plain) - cell_len(right.plain)))
    return line.append_text(right)


def _finding(findings: Sequence[Finding], width: int, marks: Marks) -> list[Text]:
    """The worst finding in one line."""
    order = ("critical", "warning", "info")
    if not findings:
        return []
    worst = min(findings, key=lambda f: order.index(f.severity) if f.severity in order else 9)
    more = f"  (+{len(findings) - 1}: eni53 doctor)" if len(findings) > 1 else ""
    text = f"{cells.shown(worst.code, marks)}: {cells.shown(worst.summary, marks)}"
    line = Text("! ").append(cells.cut(text, width - 2 - len(more), marks)).append(more)
    line.stylize(_SEVERITY_STYLES.get(worst.severity, "dim"))
    return [line]


def _no_eni(view: ViewState, marks: Marks) -> Text:
    if view.selected:
        return Text(f"  {cells.shown(view.selected, marks)} is gone; Esc goes back", "dim italic")
    return Text("  no ENI found on this node; `eni53 check` says why", "dim italic")


def _joined(lines: Sequence[Text], width: int) -> Text:
    whole = Text(no_wrap=True, overflow="crop", end="")
    for at, line in enumerate(lines):
        line.rstrip()
        if cell_len(line.plain) > width:
            line.truncate(width)
        whole.append("\n" if at else "").append_text(line)
    return whole
