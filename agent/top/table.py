"""The table of workloads: a heading, one line for each row, and what is said of rows left out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from ..model import EniUsage, WorkloadUsage
from . import cells
from .columns import GAP, INDENT, Column, columns
from .marks import Marks, marks_for
from .view import NAMELESS_KINDS, ViewState, rows


def table(
    eni: EniUsage, view: ViewState, width: int, height: int, names: bool = False
) -> list[Text]:
    """The workloads of *eni* that *view* wants: a heading and at most *height* - 1 lines.

    Args:
        eni: The ENI.
        view: Order and filter.
        width: Cells of a line.
        height: Lines at most, the heading included.
        names: Show under each workload what it asked for, if all of it fits.
    """
    marks = marks_for(view.ascii_only)
    wanted = rows(eni.workloads, view)
    across = columns(eni, view, width, marks)
    lines = [_heading(across, eni, len(wanted), view, marks)]
    room = max(0, height - 1)
    if not wanted:
        return [*lines, _nothing(view, marks)][: max(0, height)]
    full = len(wanted) <= room
    for usage in wanted if full else wanted[: max(0, room - 1)]:
        lines.append(_line(usage, across))
    if not full and room:
        lines.append(_rest(wanted[room - 1 :], marks))
    if names and len(wanted) + sum(bool(usage.names) for usage in wanted) <= room:
        return _with_names(lines, wanted, width, marks)
    return lines[: max(0, height)]


def height_of(eni: EniUsage, view: ViewState) -> int:
    """Lines that `table` needs to show all of *eni*'s workloads."""
    return 1 + max(1, len(rows(eni.workloads, view)))


def _line(usage: WorkloadUsage, across: Sequence[Column]) -> Text:
    line = _assemble([(column, column.draw(usage, column.width)) for column in across])
    if usage.workload.kind in NAMELESS_KINDS:
        line.stylize("dim italic")
    elif usage.workload.kind == "cache":
        line.stylize("italic")
    return line


def _heading(
    across: Sequence[Column], eni: EniUsage, found: int, view: ViewState, marks: Marks
) -> Text:
    titles = []
    for column in across:
        title = Text(column.title, style="dim")
        if column.sort == view.sort:
            falls = (view.sort not in {"name", "kind"}) != view.reverse
            title = Text(column.title + (marks.falling if falls else marks.rising), style="bold")
        if column is across[0] and view.filter:
            room = column.width - len(title.plain) - 1
            told = f"{found}/{len(eni.workloads)} with {cells.shown(view.filter, marks)}"
            title.append(" " + cells.cut(told, room, marks), "yellow")
        titles.append((column, title))
    return _assemble(titles)


def _assemble(parts: Sequence[tuple[Column, Text]]) -> Text:
    line = Text(" " * INDENT)
    for at, (column, text) in enumerate(parts):
        blank = " " * (column.width - cell_len(text.plain))
        line.append(" " * GAP if at else "")
        line = (
            line.append(blank).append_text(text)
            if column.right
            else line.append_text(text).append(blank)
        )
    return line


def _rest(left_out: Sequence[WorkloadUsage], marks: Marks) -> Text:
    together = cells.rate(sum(usage.pps for usage in left_out), marks)
    return Text(f"{' ' * INDENT}+{len(left_out)} more, {together} pps together", "dim italic")


def _nothing(view: ViewState, marks: Marks) -> Text:
    if not view.filter:
        return Text(
            f"{' ' * INDENT}no packets yet to the resolver or another service", "dim italic"
        )
    needle = cells.cut(cells.shown(view.filter, marks), 20, marks)
    return Text(f"{' ' * INDENT}nothing here has {needle} in it", "dim italic")


def _with_names(
    lines: list[Text], wanted: Sequence[WorkloadUsage], width: int, marks: Marks
) -> list[Text]:
    told = lines[:1]
    for line, usage in zip(lines[1:], wanted, strict=True):
        told.append(line)
        if usage.names:
            asked = "  ".join(
                f"{cells.shown(n.name, marks)} {cells.shown(n.type, marks)}"
                f" {cells.rate(n.pps, marks)}"
                for n in usage.names
            )
            told.append(Text("    asks " + cells.cut(asked, width - 9, marks), "dim"))
    return told
