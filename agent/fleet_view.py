"""A fleet as two tables for a terminal or a pipe, or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TextIO

from rich.table import Table
from rich.text import Text

from .console import Printer
from .fleet import Fleet, FleetEni, FleetWorkload
from .model import Workload
from .text import ascii_only
from .top import cells
from .top.marks import Marks, heat, marks_for

_PIPE_WIDTH = 4000
_NAME_WIDTH = 60


def write_json(fleet: Fleet, stream: TextIO) -> None:
    """Write *fleet* as indented JSON and a newline; docs/fleet.md describes it."""
    document = {
        "version": 1,
        "time": _time(fleet.time_s),
        "agents": fleet.agents,
        "silent": {"count": fleet.silent_count, "nodes": list(fleet.silent)},
        "recorded": fleet.recorded,
        "enis": [_eni_json(one) for one in fleet.enis],
        "workloads": [_workload_json(one) for one in fleet.workloads],
    }
    stream.write(json.dumps(document, indent=2) + "\n")


def _time(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")


def _eni_json(one: FleetEni) -> dict[str, object]:
    document = asdict(one)
    document["busiest"] = one.busiest and _owner_json(one.busiest[0]) | {"pps": one.busiest[1]}
    return document


def _workload_json(one: FleetWorkload) -> dict[str, object]:
    document = asdict(one)
    del document["workload"]
    return _owner_json(one.workload) | document


def _owner_json(workload: Workload) -> dict[str, object]:
    """Without the container: what is summed over containers has none."""
    return {
        "kind": workload.kind,
        "namespace": workload.namespace,
        "workload": workload.workload,
    }


def print_table(fleet: Fleet, stream: TextIO) -> None:
    """Print *fleet*: cut to the width of a terminal, whole into a pipe; colours as `top` has."""
    marks = marks_for(ascii_only(stream))
    console = Printer(stream)
    if not console.is_terminal:
        console = Printer(stream, _PIPE_WIDTH)
    console.print(_head(fleet, marks))
    if fleet.silent_count:
        console.print(_silent(fleet, marks))
    console.print()
    if fleet.enis:
        console.print(_eni_table(fleet, marks))
    else:
        console.print("No ENI has sent a packet in the last minute.")
    console.print()
    if fleet.workloads:
        console.print(_workload_table(fleet, marks))
    else:
        console.print("No workload has sent a packet in the last five minutes.")


def _head(fleet: Fleet, marks: Marks) -> Text:
    word = "agent" if fleet.agents == 1 else "agents"
    text = Text(f"{fleet.agents} {word} at {_time(fleet.time_s)}")
    if not fleet.recorded:
        text.append("; no recording rules (deploy/prometheus/rules.yml): slow on many nodes", "dim")
    return text


def _silent(fleet: Fleet, marks: Marks) -> Text:
    names = ", ".join(cells.shown(name, marks) for name in fleet.silent)
    more = f" and {fleet.silent_count - len(fleet.silent)} more"
    return Text(
        f"{fleet.silent_count} without an answer: {names}"
        + (more if fleet.silent_count > len(fleet.silent) else ""),
        "yellow",
    )


def _table(*columns: tuple[str, bool]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title, number in columns:
        table.add_column(
            title, justify="right" if number else "left", no_wrap=True, overflow="ellipsis"
        )
    return table


def _eni_table(fleet: Fleet, marks: Marks) -> Table:
    table = _table(
        ("peak", True), ("pps", True), ("limit", True), ("5 min", True), ("drops 1 h", True),
        ("ENI", False), ("node", False), ("most of it", False), ("pps", True),
    )  # fmt: skip
    for one in fleet.enis:
        workload, pps = one.busiest or (None, None)
        table.add_row(
            Text(cells.percent(one.utilization, marks), heat(one.utilization)),
            cells.rate(one.peak_pps, marks),
            cells.rate(one.limit_pps, marks),
            cells.rate(one.pps, marks),
            Text(cells.rate(one.drops_1h, marks), "bold red" if one.drops_1h else ""),
            Text(cells.shown(one.eni, marks)),
            Text(cells.shown(one.node, marks)),
            Text(_name(workload, marks) if workload else marks.unknown),
            cells.rate(pps, marks),
        )
    return table


def _workload_table(fleet: Fleet, marks: Marks) -> Table:
    table = _table(
        ("5 min", True), ("workload", False), ("kind", False), ("nodes", True),
        ("most on", False), ("by", False),
    )  # fmt: skip
    for one in fleet.workloads:
        table.add_row(
            cells.rate(one.pps, marks),
            Text(_name(one.workload, marks)),
            Text(cells.shown(one.workload.kind, marks)),
            marks.unknown if one.nodes is None else str(one.nodes),
            Text(cells.shown(one.node or marks.unknown, marks)),
            Text(cells.shown(one.eni or marks.unknown, marks)),
        )
    return table


def _name(workload: Workload, marks: Marks) -> str:
    name = cells.owner(workload, _NAME_WIDTH, marks)
    return f"{cells.shown(workload.namespace, marks)}/{name}" if workload.namespace else name
