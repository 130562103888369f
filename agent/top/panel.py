"""One ENI on the screen: as one line among others, as a panel, or with the screen for itself."""

from __future__ import annotations

import math

from rich.cells import cell_len
from rich.text import Text

from ..model import BASIS_CLASSES, EniUsage
from . import cells
from .columns import SHORT_CLASSES
from .marks import STATE_STYLES, Marks, chart, heat, limit_bar, ratio_of

LABEL_CELLS = 8
_COMPACT_LABEL, _COMPACT_FACES, _COMPACT_NUMBERS = 21, 8, 23


def title(eni: EniUsage, width: int, marks: Marks, sign: str) -> Text:
    """Which ENI this is, and at the right its state."""
    state = eni.state.upper() if eni.state == "exceeded" else eni.state
    line = Text(f"{sign} ").append(
        cells.middle(cells.shown(eni.eni.label, marks), max(8, width // 2), marks), "bold"
    )
    room = width - cell_len(line.plain) - len(state) - 4
    if room > 4:
        line.append("  ").append(cells.middle(_where(eni, marks), room, marks))
    line.append(" " * max(1, width - cell_len(line.plain) - len(state)))
    return line.append(state, STATE_STYLES.get(eni.state, ""))


def now(eni: EniUsage, width: int, marks: Marks) -> Text:
    """The last second against the limit, with the peak of the last minute."""
    second, peak = _ratios(eni)
    numbers = Text("  ")
    rate = cells.rate(cells.known(eni.window_pps, eni.basis), marks)
    numbers.append(rate.rjust(4), f"bold {heat(second)}").append(f"/{eni.limit_pps} pps")
    numbers.append("  peak ", "dim")
    numbers.append(cells.rate(cells.known(eni.peak_pps, eni.basis), marks).rjust(4), heat(peak))
    numbers.append(f" ({cells.percent(peak, marks)})".rjust(8), heat(peak))
    line = Text("").append("  now".ljust(LABEL_CELLS), "dim")
    bar = limit_bar(second, peak, max(6, width - LABEL_CELLS - cell_len(numbers.plain)), marks)
    return line.append_text(bar).append_text(numbers)


def minute(eni: EniUsage, width: int, rows: int, marks: Marks) -> list[Text]:
    """The last sixty seconds as a chart of *rows* lines; a dash when nothing is known of them."""
    drawn = chart(eni.history_pps, eni.limit_pps, width - LABEL_CELLS - 6, rows, marks)
    lines = []
    for at, columns in enumerate(drawn):
        label = "  60 s" if at == rows - 1 else ""
        line = Text("").append(label.ljust(LABEL_CELLS), "dim")
        if eni.history_pps:
            line.append_text(columns)
        elif label:
            line.append(marks.unknown, "dim")
        if at == 0 and rows > 1:
            line.append(f" {eni.limit_pps}", "dim")
        lines.append(line)
    return lines


def classes(eni: EniUsage, width: int, marks: Marks) -> Text:
    """What the packets were, by rate; in parentheses what the limit does not count."""
    line = Text("").append("  sent".ljust(LABEL_CELLS), "dim")
    told = 0
    for name in sorted(eni.classes, key=lambda c: (-eni.classes[c].pps, c)):
        count = eni.classes[name]
        if not count.packets:
            continue
        counted = name in BASIS_CLASSES[eni.basis]
        word = SHORT_CLASSES.get(name, cells.shown(name, marks))
        rate = cells.rate(count.pps, marks)
        text = f"{word} {rate}" if counted else f"({word} {rate})"
        if cell_len(line.plain) + cell_len(text) + 2 > width:
            break
        line.append("  " if told else "").append(text, "" if counted else "dim")
        told += 1
    return line if told else line.append(marks.unknown, "dim")


def asked(eni: EniUsage, width: int, marks: Marks) -> Text:
    """What was asked for most, by whomever."""
    line = Text("").append("  asked".ljust(LABEL_CELLS), "dim")
    for at, name in enumerate(eni.names):
        gap = "  " if at else ""
        rate = f" {cells.shown(name.type, marks)} {cells.rate(name.pps, marks)}"
        room = width - cell_len(line.plain) - len(gap) - cell_len(rate)
        if room < 8 or (at and cell_len(name.name) > room):
            break
        line.append(gap + cells.middle(cells.shown(name.name, marks), room, marks))
        line.append(rate, "dim")
    return line if eni.names else line.append(marks.unknown, "dim")


def compact(eni: EniUsage, width: int, marks: Marks, sign: str) -> Text:
    """The whole ENI in one line, its parts under those of its neighbours."""
    second, peak = _ratios(eni)
    label = cells.middle(cells.shown(eni.eni.label, marks), _label_cells(width), marks)
    line = Text(f"{sign} ").append(label)
    _pad(line, 2 + _label_cells(width) + 1)
    if width >= 72:
        line.append(cells.middle(_interface(eni, marks), _COMPACT_FACES, marks), "dim")
        _pad(line, 2 + _label_cells(width) + _COMPACT_FACES + 2)
    room = width - cell_len(line.plain) - _COMPACT_NUMBERS - 11
    if room >= 6:
        line.append_text(limit_bar(second, peak, room, marks)).append(" ")
    rate = cells.rate(cells.known(eni.window_pps, eni.basis), marks)
    line.append(f"{rate:>5}", heat(second)).append(f"/{eni.limit_pps:<5}", "default")
    line.append("peak ", "dim")
    line.append(f"{cells.percent(peak, marks):>6}", heat(peak))
    state = cells.cut(eni.state, 8, marks)
    line.append(" " * max(1, width - cell_len(line.plain) - len(state)))
    return line.append(state, STATE_STYLES.get(eni.state, ""))


def class_table(eni: EniUsage, marks: Marks) -> list[Text]:
    """One line for each class this ENI sent, with a heading."""
    lines = [Text(f"  {'class':<16}{'pps':>8}  {'of limit':>8}  {'packets':>14}  counted", "dim")]
    for name in sorted(eni.classes, key=lambda c: (-eni.classes[c].pps, c)):
        count = eni.classes[name]
        if not count.packets:
            continue
        counted = name in BASIS_CLASSES[eni.basis]
        ratio = ratio_of(count.pps, eni.limit_pps) if counted else None
        line = Text("  " + cells.cut(cells.shown(name, marks), 15, marks))
        _pad(line, 18)
        line.append(f"{cells.rate(count.pps, marks):>8}", heat(ratio) if counted else "")
        line.append(f"  {cells.percent(ratio, marks) if counted else '':>8}")
        line.append(f"  {cells.count(count.packets):>14}")
        line.append("  towards the limit" if counted else "  no", "" if counted else "dim")
        lines.append(line)
    return lines if len(lines) > 1 else []


def facts(eni: EniUsage, marks: Marks) -> Text:
    """What a drilled-in ENI has to say besides: MAC, totals, the sum on the other basis."""
    line = Text("  ").append(cells.shown(eni.eni.mac, marks)[:20])
    line.append(f"  {cells.count(eni.packets)} packets")
    if eni.ended_packets:
        line.append(f" ({cells.count(eni.ended_packets)} by ended)")
    for basis, words in (("dns", "port 53"), ("linklocal", "link-local")):
        peak = cells.known(eni.peak_pps, basis)
        if basis != eni.basis and peak is not None:
            rate = cells.rate(cells.known(eni.window_pps, basis), marks)
            line.append(f"  {words} {rate} pps, peak {cells.rate(peak, marks)}")
    line.stylize("dim")
    return line


def _where(eni: EniUsage, marks: Marks) -> str:
    where = _interface(eni, marks)
    if eni.eni.netns != "host":
        where += f" in {cells.shown(eni.eni.netns, marks)}"
    return where


def _interface(eni: EniUsage, marks: Marks) -> str:
    name = cells.shown(eni.eni.interface, marks)
    return f"{name} vlan {eni.eni.vlan}" if eni.eni.vlan else name


def _ratios(eni: EniUsage) -> tuple[float | None, float | None]:
    second = ratio_of(cells.known(eni.window_pps, eni.basis), eni.limit_pps)
    known = math.isfinite(eni.utilization)
    peak = (
        eni.utilization if known else ratio_of(cells.known(eni.peak_pps, eni.basis), eni.limit_pps)
    )
    return second, peak


def _label_cells(width: int) -> int:
    return _COMPACT_LABEL if width >= 72 else 13


def _pad(line: Text, width: int) -> None:
    line.append(" " * max(0, width - cell_len(line.plain)))
