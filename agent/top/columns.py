"""The columns of the table of workloads: which ones a width has room for, and what fills them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from rich.cells import cell_len
from rich.text import Text

from ..model import Count, EniUsage, WorkloadUsage
from . import cells
from .marks import Marks, heat, ratio_of, share_bar
from .view import ViewState

INDENT = 2
GAP = 2
NARROW, WIDE = 72, 108
_KIND_MOST, _NAMESPACE_MOST = 12, 20
SHORT_CLASSES = {"linklocal_other": "ll_other"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, the sort key it stands for, its cells, and how a row fills it."""

    title: str
    sort: str
    width: int
    draw: Callable[[WorkloadUsage, int], Text]
    right: bool = False


def columns(eni: EniUsage, view: ViewState, width: int, marks: Marks) -> list[Column]:
    """Every column but the first has a fixed width; the first takes what they leave."""
    kinds = [len(_kind(usage, marks)) for usage in eni.workloads]
    kind = Column("kind", "kind", min(_KIND_MOST, max([5, *kinds])), _draw_kind(marks))
    pps = Column("pps", "pps", 5, lambda u, _: _rate(u, eni.limit_pps, marks), right=True)
    packets = Column("packets", "packets", 11, lambda u, _: Text(cells.count(u.packets)), True)
    via = Column("via", "", 6, lambda u, w: _via(u, w, marks))

    def share(cells_wide: int) -> Column:
        draw = partial(_share, limit_pps=eni.limit_pps, marks=marks)
        return Column("share", "share", cells_wide, draw, right=True)

    def classes(cells_wide: int, numbers: bool) -> Column:
        draw = partial(_classes, marks=marks, numbers=numbers)
        return Column("classes", "", cells_wide, draw)

    cached = [via] if any(usage.via != "direct" for usage in eni.workloads) else []
    if width < NARROW:
        fixed = [kind, pps, packets if view.sort == "packets" else share(6), *cached]
    elif width < WIDE:
        third = packets if view.sort == "packets" else classes(11, numbers=False)
        fixed = [kind, pps, share(11), third, *cached]
    else:
        named = _namespace(eni, marks)
        fixed = [named, kind, pps, share(12), packets, classes(22, numbers=True), *cached]
    rest = width - INDENT - sum(column.width + GAP for column in fixed)
    with_namespace = width < WIDE
    first = Column(
        "workload", "name", max(8, rest), lambda u, w: _name(u, w, marks, with_namespace)
    )
    return [first, *fixed]


def _namespace(eni: EniUsage, marks: Marks) -> Column:
    def draw(usage: WorkloadUsage, width: int) -> Text:
        name = cells.shown(usage.workload.namespace, marks) or marks.unknown
        return Text(cells.middle(name, width, marks), style="dim")

    longest = [cell_len(cells.shown(usage.workload.namespace, marks)) for usage in eni.workloads]
    return Column("namespace", "", min(_NAMESPACE_MOST, max([9, *longest])), draw)


def _name(usage: WorkloadUsage, width: int, marks: Marks, namespace: bool) -> Text:
    """Workload, then container, then namespace: each as far as there is room."""
    workload = usage.workload
    container = cells.shown(workload.container, marks)
    arrow = f" {marks.into} "
    least = min(cell_len(container), max(6, width // 3))
    room = width - least - len(arrow) if container else width
    line = Text(cells.owner(workload, max(4, room), marks))
    if container:
        left = width - cell_len(line.plain) - len(arrow)
        if left >= 1:
            line.append(arrow, "dim").append(cells.middle(container, left, marks), "cyan")
    left = width - cell_len(line.plain) - GAP
    space = cells.shown(workload.namespace, marks)
    if namespace and space and left >= min(6, cell_len(space)):
        line.append(" " * GAP).append(cells.middle(space, left, marks), "dim")
    return line


def _kind(usage: WorkloadUsage, marks: Marks) -> str:
    kind = usage.workload.kind
    return marks.unknown if kind == "unattributed" else cells.shown(kind, marks)


def _draw_kind(marks: Marks) -> Callable[[WorkloadUsage, int], Text]:
    return lambda usage, width: _plain(_kind(usage, marks), width, "dim")


def _rate(usage: WorkloadUsage, limit_pps: int, marks: Marks) -> Text:
    style = heat(ratio_of(usage.pps, limit_pps))
    return Text(cells.rate(usage.pps, marks), style="" if style == "green" else style)


def _share(usage: WorkloadUsage, width: int, *, limit_pps: int, marks: Marks) -> Text:
    line = Text("")
    if width > 6:
        style = heat(ratio_of(usage.pps, limit_pps))
        line.append_text(share_bar(usage.share, width - 6, marks, style))
    return line.append(cells.percent(usage.share, marks).rjust(6))


def _classes(usage: WorkloadUsage, width: int, *, marks: Marks, numbers: bool) -> Text:
    return Text(class_words(usage.classes, width, marks, numbers))


def _via(usage: WorkloadUsage, width: int, marks: Marks) -> Text:
    return _plain(cells.shown(usage.via, marks), width, "dim" if usage.via == "direct" else "cyan")


def _plain(text: str, width: int, style: str) -> Text:
    return Text(cells.head(text, width), style=style)


def class_words(
    classes: Mapping[str, Count], width: int, marks: Marks, numbers: bool = True
) -> str:
    """The classes in *classes*, busiest first, as far as *width* cells go; then ``+N``."""
    order = sorted(classes, key=lambda c: (-classes[c].pps, -classes[c].packets, c))
    words = [SHORT_CLASSES.get(name, cells.shown(name, marks)) for name in order]
    if numbers:
        words = [
            f"{word} {cells.rate(classes[name].pps, marks)}"
            for word, name in zip(words, order, strict=True)
        ]
    for keep in range(len(words), 0, -1):
        left = f" +{len(words) - keep}" if keep < len(words) else ""
        if cell_len("  ".join(words[:keep]) + left) <= width:
            return "  ".join(words[:keep]) + left
    return cells.cut(words[0], width, marks) if words else marks.unknown
