"""A snapshot as a screen of text: pure, for any width and height, without terminal or clock.

The hottest or chosen ENI is a panel with its workloads, the others take a line each, or a panel
as well where there is room. `render` never returns a line wider than it was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.text import Text

from ..model import EniUsage, Finding, Snapshot
from . import cells, panel
from .marks import Marks, marks_for
from .table import height_of, table
from .view import ViewState, by_heat, focus

ENDLESS = 1_000_000
"""A height that holds anything: what a pipe has."""

_BASIS_WORDS = {"linklocal": "limit on link-local", "dns": "limit on port 53"}
_SEVERITY_STYLES = {"critical": "bold dark_orange", "warning": "yellow"}
_LEAST_ROWS = 4


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
        body = _drilled(chosen, view, width, left, marks)
    else:
        body = _overview(snapshot.enis, chosen, view, width, left, marks)
    lines += [*spacing, *body[: max(0, left)], *finding]
    return _joined(lines[: max(1, room)], width)


def _header(snapshot: Snapshot, view: ViewState, width: int, marks: Marks) -> Text:
    """Node, time and what the numbers mean; what matters least goes first when it is narrow."""
    moment = datetime.fromtimestamp(snapshot.time_s, UTC)
    number = len(snapshot.enis)
    bases = {usage.basis for usage in snapshot.enis}
    parts = [
        ("PAUSED", "bold black on yellow") if view.paused else ("", ""),
        (moment.strftime("%H:%M:%S UTC"), ""),
        (f"{number} ENI" + ("s" if number != 1 else ""), ""),
        (_BASIS_WORDS[bases.pop()] if len(bases) == 1 else "", "dim"),
        (cells.cut(cells.shown(view.source, marks), 28, marks), "dim"),
        (moment.strftime("%Y-%m-%d") if width >= 100 else "", "dim"),
    ]
    kept: list[tuple[str, str]] = []
    for part in parts:
        if part[0] and sum(cell_len(text) + 2 for text, _ in [*kept, part]) <= width - 26:
            kept.append(part)
    right = Text("  ").join(Text(text, style=style) for text, style in kept)
    room = width - cell_len(right.plain) - 8
    line = Text("eni53 ", style="").append(
        cells.cut(cells.shown(snapshot.node, marks), room, marks), "bold"
    )
    line.stylize("bold cyan", 0, 5)
    line.append(" " * max(1, width - cell_len(line.plain) - cell_len(right.plain)))
    return line.append_text(right)


def _overview(
    enis: Sequence[EniUsage], chosen: EniUsage, view: ViewState, width: int, room: int, marks: Marks
) -> list[Text]:
    """The chosen ENI as a panel, every other as one line, in order of heat."""
    ordered = by_heat(enis)
    rows = _head_rows(room)
    least = _heads(rows) + min(height_of(chosen, view), 1 + _LEAST_ROWS)
    others = max(0, min(len(ordered) - 1, room - least))
    if others < len(ordered) - 1 and others:
        others -= 1
    shown = _around(ordered, chosen, others)
    spare = room - others - (others < len(ordered) - 1) - _heads(rows)
    tables = {chosen.eni.label: max(2, min(height_of(chosen, view), spare))}
    spare -= tables[chosen.eni.label]
    for eni in shown:
        if eni is not chosen:
            full = height_of(eni, view)
            if spare < _heads(rows) + min(full, 1 + _LEAST_ROWS):
                break
            tables[eni.eni.label] = min(full, spare - _heads(rows))
            spare -= _heads(rows) + tables[eni.eni.label]
    lines: list[Text] = []
    for at, eni in enumerate(shown):
        opened = tables.get(eni.eni.label)
        if spare > 0 and at and (opened or shown[at - 1].eni.label in tables):
            lines.append(Text(""))
            spare -= 1
        if opened:
            lines += _panel(eni, width, rows, marks)
            lines += table(eni, view, width, opened)
        else:
            lines.append(panel.compact(eni, width, marks, marks.shut))
    if len(shown) < len(ordered):
        lines.append(Text(f"  +{len(ordered) - len(shown)} more ENIs", "dim italic"))
    return lines


def _around(ordered: Sequence[EniUsage], chosen: EniUsage, others: int) -> list[EniUsage]:
    """*chosen* and its *others* hottest neighbours, in order."""
    at = ordered.index(chosen)
    start = max(0, min(at - others, len(ordered) - others - 1) if at > others else 0)
    return list(ordered[start : start + others + 1])


def _head_rows(room: int) -> tuple[bool, int, bool]:
    """What a panel shows above its table in *room* lines: bar, lines of chart, classes."""
    charted = 0 if room < 8 else 3 if room >= 34 else 1
    return room >= 4, charted, room >= 12


def _heads(rows: tuple[bool, int, bool]) -> int:
    return 1 + rows[0] + rows[1] + rows[2]


def _panel(eni: EniUsage, width: int, rows: tuple[bool, int, bool], marks: Marks) -> list[Text]:
    """One ENI without its table."""
    bar, charted, classes = rows
    lines = [panel.title(eni, width, marks, marks.open)]
    if bar:
        lines.append(panel.now(eni, width, marks))
    if charted:
        lines += panel.minute(eni, width, charted, marks)
    if classes:
        lines.append(panel.classes(eni, width, marks))
    return lines


def _drilled(eni: EniUsage, view: ViewState, width: int, room: int, marks: Marks) -> list[Text]:
    """One ENI with the screen for itself: a higher chart, its classes one by one, more rows."""
    charted = 0 if room < 8 else 1 if room < 16 else 2 if room < 26 else 5
    lines = _panel(eni, width, (room >= 4, charted, 12 <= room < 18), marks)
    if room >= 18:
        lines += [panel.facts(eni, width, marks), *panel.class_table(eni, width, marks)]
    if room >= 26:
        lines.append(Text(""))
    return lines + table(eni, view, width, room - len(lines), names=True)


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
