"""The names that an ENI was asked for, one by one, with what came back."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from ..model import EniUsage, NameRate
from . import cells
from .marks import Marks

_NUMBERS = 36
"""Cells of everything but the name."""
_LEAST_ROOM = 16

NAMES_SHOWN = 10
"""As many as an ENI has at most."""
LEAST_NAMES = 3
"""Fewer of several tell no more than the one line of `panel.asked`."""


def name_table(eni: EniUsage, width: int, most: int, marks: Marks) -> list[Text]:
    """At most *most* names in *width* cells, with a heading.

    Empty without names, or without room for as many as are worth a table.
    """
    most = min(most, NAMES_SHOWN, len(eni.names))
    room = width - _NUMBERS
    if room < _LEAST_ROOM or most < 1 or most < min(LEAST_NAMES, len(eni.names)):
        return []
    left_out = f" ({most} of {len(eni.names)})" if most < len(eni.names) else ""
    head = Text("  " + cells.cut(f"asked for{left_out}", room - 1, marks).ljust(room), "dim")
    lines = [head.append(f"{'type':<8}{'pps':>7}  {'TTL':>5}  answer")]
    for name in eni.names[:most]:
        line = Text("  ").append(cells.middle(cells.shown(name.name, marks), room - 1, marks))
        line.append(" " * max(1, room + 2 - cell_len(line.plain)))
        line.append(f"{cells.cut(cells.shown(name.type, marks), 7, marks):<8}")
        line.append(f"{cells.rate(name.pps, marks):>7}  {_ttl(name, marks):>5}  ")
        answer = cells.shown(name.answer.rcode, marks) if name.answer else "none seen"
        lines.append(line.append(cells.cut(answer, 10, marks), "dim"))
    return lines


def _ttl(name: NameRate, marks: Marks) -> str:
    if name.answer is None or name.answer.ttl_s is None:
        return marks.unknown
    seconds = name.answer.ttl_s
    if seconds < 3600:
        return f"{seconds}s"
    return f"{seconds // 3600}h" if seconds < 48 * 3600 else f"{seconds // 86400}d"
