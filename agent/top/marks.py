"""The glyphs and colours of the top, and the bars and charts made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

WARNING, CRITICAL = 0.7, 0.9
"""Parts of the limit where colours change and ticks stand on a bar."""


@dataclass(frozen=True, slots=True)
class Marks:
    """One set of glyphs, each one cell wide except ``more``.

    Attributes:
        parts: A cell filled from nothing to full, rising from the left.
        steps: A cell filled a little to full, rising from the bottom.
        more: What stands for characters left out.
    """

    ascii_only: bool
    parts: str
    steps: str
    track: str
    tick: str
    peak: str
    beyond: str
    unknown: str
    more: str
    into: str
    open: str
    shut: str
    falling: str
    rising: str


UNICODE = Marks(
    ascii_only=False,
    parts=" ▏▎▍▌▋▊▉█",
    steps="▁▂▃▄▅▆▇█",
    track="─",
    tick="┼",
    peak="◆",
    beyond="▶",
    unknown="\N{EN DASH}",
    more="…",
    into="\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}",
    open="▾",
    shut="▸",
    falling="▾",
    rising="▴",
)
ASCII = Marks(
    ascii_only=True,
    parts=" #",
    steps="_.-=+*%#",
    track="-",
    tick="|",
    peak="!",
    beyond=">",
    unknown="-",
    more="..",
    into=">",
    open="v",
    shut=">",
    falling="v",
    rising="^",
)

STATE_STYLES = {
    "ok": "green",
    "warning": "bold yellow",
    "critical": "bold dark_orange",
    "exceeded": "bold white on red",
}


def marks_for(ascii_only: bool) -> Marks:
    """The glyphs for a terminal that shows ASCII only, or all of Unicode."""
    return ASCII if ascii_only else UNICODE


def heat(ratio: float | None) -> str:
    """The style of a rate that is *ratio* of its limit."""
    if ratio is None or not math.isfinite(ratio):
        return "dim"
    if ratio > 1:
        return "bold red"
    if ratio >= CRITICAL:
        return "dark_orange"
    return "yellow" if ratio >= WARNING else "green"


def ratio_of(pps: float | None, limit_pps: int) -> float | None:
    """*pps* as a part of *limit_pps*; None when either is unknown."""
    return None if pps is None or limit_pps <= 0 else pps / limit_pps


def limit_bar(value: float | None, peak: float | None, width: int, marks: Marks) -> Text:
    """A bar of *width* cells: *value* of the limit filled, *peak* marked, thresholds ticked.

    Args:
        value: The last second, as a part of the limit; None when unknown.
        peak: The highest second of the last minute, likewise.
        width: Cells.
        marks: Glyphs to draw with.
    """
    cells = [(marks.track, "dim")] * width
    for threshold, style in ((WARNING, "yellow"), (CRITICAL, "dark_orange")):
        cells[min(width - 1, int(threshold * width))] = (marks.tick, f"dim {style}")
    for at, part in enumerate(_filled(value or 0.0, width, marks)):
        style = "bold red" if value is not None and value > 1 else heat((at + 0.5) / width)
        cells[at] = (part, style)
    if peak is not None and peak > 0:
        at = min(width - 1, max(0, math.ceil(min(1.0, peak) * width) - 1))
        style = heat(peak)
        cells[at] = (marks.beyond if peak > 1 else marks.peak, f"bold {style}")
    return _join(cells)


def share_bar(share: float | None, width: int, marks: Marks, style: str) -> Text:
    """A plain bar of *width* cells with *share*, 0 to 1, of it filled."""
    filled = "".join(_filled(share or 0.0, width, marks))
    return Text(filled.ljust(width), style=style)


def chart(
    history: Sequence[float], limit_pps: int, width: int, rows: int, marks: Marks
) -> list[Text]:
    """One column a second (or few), the newest at the right, the limit at the top.

    Args:
        history: Packets per second, oldest first, at most 60 are drawn.
        limit_pps: What a full column means.
        width: Cells at most; where seconds share a column, it shows the highest.
        rows: Lines to draw.
        marks: Glyphs to draw with.

    Returns:
        *rows* lines of the same width, the top one first. Seconds not known are blank.
    """
    per_cell = max(1, math.ceil(60 / max(1, width)))
    wide = max(1, width // 60)
    values = list(history[-60:])
    groups = [values[max(0, end - per_cell) : end] for end in range(len(values), 0, -per_cell)]
    columns = [max(group) for group in reversed(groups)]
    blank = " " * (wide * (math.ceil(60 / per_cell) - len(columns)))
    lines = []
    for base in range((rows - 1) * 8, -1, -8):
        cells = [_column(value, limit_pps, rows, base, marks) for value in columns]
        lines.append(Text(blank) + _join([cell for cell in cells for _ in range(wide)]))
    return lines


def _column(pps: float, limit_pps: int, rows: int, base: int, marks: Marks) -> tuple[str, str]:
    ratio = ratio_of(pps if math.isfinite(pps) else None, limit_pps)
    if ratio is None:
        return " ", ""
    level = min(rows * 8, math.ceil(ratio * rows * 8)) - base
    if level <= 0:
        return (marks.steps[0], "dim") if base == 0 else (" ", "")
    return marks.steps[min(8, level) - 1], heat(ratio)


def _filled(share: float, width: int, marks: Marks) -> list[str]:
    """The cells of a bar from the left that hold anything; a little is never nothing."""
    fine = len(marks.parts) - 1
    share = max(0.0, min(1.0, share)) if math.isfinite(share) else 0.0
    units = max(1, round(share * width * fine)) if share > 0 else 0
    whole, part = divmod(units, fine)
    return [marks.parts[fine]] * whole + ([marks.parts[part]] if part else [])


def _join(cells: Sequence[tuple[str, str]]) -> Text:
    """*cells* as one text, neighbours of one style together."""
    line = Text()
    run, style = "", ""
    for glyph, wanted in cells:
        if wanted != style and run:
            line.append(run, style)
            run = ""
        run, style = run + glyph, wanted
    return line.append(run, style)
