"""Numbers and names as they fit into the cells of a terminal, wide and hostile ones included.

Every name shown anywhere in the top passes through `shown`.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping

from rich.cells import cell_len

from ..model import Workload
from ..text import clean
from .marks import Marks

_MARKS_ON_LETTERS = {"Mn", "Me"}
_ID_TAILS = (8, 4)


def shown(name: str, marks: Marks) -> str:
    r"""*name* safe to draw: one line, every character one or two cells, ASCII where it must be.

    A combining mark that does not melt into its letter is shown as ``\xNN``: terminals do not agree
    on its width, and a tower of them would draw over the rows above.
    """
    text = "".join(
        f"\\x{ord(c):02x}" if unicodedata.category(c) in _MARKS_ON_LETTERS else c
        for c in unicodedata.normalize("NFC", clean(name))
    )
    return text.encode("ascii", "backslashreplace").decode() if marks.ascii_only else text


def head(text: str, width: int) -> str:
    """The longest start of *text* that fits *width* cells."""
    kept = text[:width]
    while kept and cell_len(kept) > width:
        kept = kept[:-1]
    return kept


def tail(text: str, width: int) -> str:
    """The longest end of *text* that fits *width* cells."""
    kept = text[-width:] if width > 0 else ""
    while kept and cell_len(kept) > width:
        kept = kept[1:]
    return kept


def cut(text: str, width: int, marks: Marks) -> str:
    """*text* in at most *width* cells, its end cut off where it must be."""
    if cell_len(text) <= width:
        return text
    return head(text, width - len(marks.more)) + marks.more[: max(0, width)]


def middle(text: str, width: int, marks: Marks) -> str:
    """*text* in at most *width* cells, cut in the middle: both ends of a name tell most."""
    if cell_len(text) <= width:
        return text
    room = width - len(marks.more)
    if room < 2:
        return cut(text, width, marks)
    end = tail(text, room // 2)
    return head(text, room - cell_len(end)) + marks.more + end


def owner(workload: Workload, width: int, marks: Marks) -> str:
    """Who *workload* is, without its container and namespace, in at most *width* cells."""
    if workload.kind == "unattributed":
        label = "(pending: name not known yet)" if workload.workload else "(unattributed)"
        return cut(label, width, marks)
    if workload.kind == "other" and not workload.workload:
        return cut("(others, summed up)", width, marks)
    if not workload.workload:
        return marks.unknown
    name = shown(workload.workload, marks)
    if workload.kind == "ecs_task" and "/" in name:
        return _task(name, width, marks)
    return middle(name, width, marks)


def _task(name: str, width: int, marks: Marks) -> str:
    """A task as ``family:revision/…end of its id``; the id gives way first, then the family."""
    definition, _, task_id = name.rpartition("/")
    end = ""
    for keep in _ID_TAILS:
        end = task_id if cell_len(task_id) <= keep + 1 else marks.more + tail(task_id, keep)
        if cell_len(f"{definition}/{end}") <= width:
            return f"{definition}/{end}"
    family, colon, revision = definition.rpartition(":")
    rest = f"{colon}{revision}/{end}"
    room = width - cell_len(rest)
    return cut(family, room, marks) + rest if colon and room >= 4 else middle(name, width, marks)


def rate(pps: float | None, marks: Marks) -> str:
    """Packets per second: whole from ten on, one decimal below; unknown is a dash."""
    if pps is None or not math.isfinite(pps):
        return marks.unknown
    if 0 < pps < 0.05:
        return "<0.1"
    return f"{pps:.1f}" if 0 < pps < 9.95 else f"{pps:.0f}"


def percent(ratio: float | None, marks: Marks) -> str:
    """A ratio as whole per cent; more than 9999 is shown as that, unknown as a dash."""
    if ratio is None or not math.isfinite(ratio):
        return f"{marks.unknown} %"
    if 0 < ratio < 0.005:
        return "<1 %"
    return f"{min(9999, ratio * 100):.0f} %"


def count(packets: int) -> str:
    """Packets with thin grouping; from ten digits on in millions."""
    return f"{packets:,}" if packets < 10**9 else f"{packets / 1e6:,.0f}M"


def known(values: Mapping[str, float], key: str) -> float | None:
    """``values[key]``, or None where it is missing or not a finite number: unknown, never zero."""
    value = values.get(key)
    return None if value is None or not math.isfinite(value) else value
