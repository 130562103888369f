"""Which ENI gets how many lines of the screen: a panel with its table, or one line."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ..model import EniUsage
from . import panel
from .asked import name_table
from .marks import Marks, marks_for
from .table import height_of, table
from .view import ViewState, by_heat

_LEAST_ROWS = 4
_Head = tuple[bool, int, bool, bool]
"""What a panel shows above its table: bar, lines of chart, classes, names asked for."""


def overview(
    enis: Sequence[EniUsage], chosen: EniUsage, view: ViewState, width: int, room: int
) -> list[Text]:
    """The chosen ENI as a panel, every other as one line, in order of heat."""
    ordered, marks = by_heat(enis), marks_for(view.ascii_only)
    rows = _head_rows(room, asked=any(eni.names for eni in enis))
    least = _heads(rows) + min(height_of(chosen, view), 1 + _LEAST_ROWS)
    others = max(0, min(len(ordered) - 1, room - least))
    if others < len(ordered) - 1 and others:
        others -= 1
    shown = _around(ordered, chosen, others)
    spare = room - len(shown) + 1 - (len(shown) < len(ordered))
    tables = _opened(shown, chosen, view, spare, rows)
    blanks = spare - sum(_heads(rows) + height for height in tables.values()) + len(tables) - 1
    lines: list[Text] = []
    for at, eni in enumerate(shown):
        height = tables.get(eni.eni.label)
        if blanks > 0 and at and (height or shown[at - 1].eni.label in tables):
            lines.append(Text(""))
            blanks -= 1
        if height:
            lines += _panel(eni, width, rows, marks)
            lines += table(eni, view, width, height)
        else:
            lines.append(panel.compact(eni, width, marks, marks.shut))
    if len(shown) < len(ordered):
        lines.append(Text(f"  +{len(ordered) - len(shown)} more ENIs", "dim italic"))
    return lines


def _opened(
    shown: Sequence[EniUsage], chosen: EniUsage, view: ViewState, spare: int, rows: _Head
) -> dict[str, int]:
    """Lines for the table of each ENI that gets a panel: the chosen one, then by heat."""
    heads = _heads(rows)
    roomy = spare >= 16 and len(shown) > 1
    heights = {chosen.eni.label: max(2, min(height_of(chosen, view), spare - heads - roomy))}
    spare -= heads + heights[chosen.eni.label] + roomy
    for eni in shown:
        if eni is chosen:
            continue
        wanted = height_of(eni, view)
        if spare < heads + min(wanted, 1 + _LEAST_ROWS):
            break
        heights[eni.eni.label] = min(wanted, spare - heads)
        spare -= heads + heights[eni.eni.label]
    return heights


def _around(ordered: Sequence[EniUsage], chosen: EniUsage, others: int) -> list[EniUsage]:
    """*chosen* and its *others* hottest neighbours, in order."""
    at = ordered.index(chosen)
    start = max(0, min(at - others, len(ordered) - others - 1) if at > others else 0)
    return list(ordered[start : start + others + 1])


def _head_rows(room: int, *, asked: bool) -> _Head:
    """What a panel shows above its table in *room* lines; *asked* when names are known at all."""
    charted = 0 if room < 8 else 3 if room >= 34 else 1
    return room >= 4, charted, room >= 12, asked and room >= 16


def _heads(rows: _Head) -> int:
    return 1 + rows[0] + rows[1] + rows[2] + rows[3]


def _panel(eni: EniUsage, width: int, rows: _Head, marks: Marks) -> list[Text]:
    """One ENI without its table."""
    bar, charted, classes, asked = rows
    lines = [panel.title(eni, width, marks, marks.open)]
    if bar:
        lines.append(panel.now(eni, width, marks))
    if classes:
        lines.append(panel.classes(eni, width, marks))
    if asked:
        lines.append(panel.asked(eni, width, marks))
    if charted:
        lines += panel.minute(eni, width, charted, marks)
    return lines


def drilled(eni: EniUsage, view: ViewState, width: int, room: int) -> list[Text]:
    """One ENI with the screen for itself: a higher chart, its classes one by one, more rows."""
    marks = marks_for(view.ascii_only)
    charted = 0 if room < 8 else 1 if room < 16 else 2 if room < 26 else 5
    lines = _panel(eni, width, (room >= 4, 0, 12 <= room < 18, False), marks)
    asked_at = len(lines)
    if room >= 18:
        lines.append(panel.facts(eni, marks))
    lines += panel.minute(eni, width, charted, marks) if charted else []
    if room >= 18:
        lines += panel.class_table(eni, marks)
    gap = [Text("")] if room >= 26 else []
    # Names get what workloads leave: a row that gave way to one would hide who asks for it.
    spare = room - len(lines) - len(gap) - height_of(eni, view)
    around = 2 if gap else 3  # its heading, a blank before that, and one behind the last name
    told = name_table(eni, width, spare - around, marks)
    if told:
        lines += [Text(""), *told]
        gap = [Text("")]
    elif eni.names and room >= 16:
        lines.insert(asked_at, panel.asked(eni, width, marks))
    lines += gap
    return lines + table(eni, view, width, room - len(lines), names=True)
