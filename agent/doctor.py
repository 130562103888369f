"""`eni53 doctor`: what there is to say of this node's DNS load, with evidence and a remedy each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TextIO

from rich.text import Text

from . import log, presence
from .config import Config
from .console import Printer
from .diagnosis import findings
from .insight.look import seconds_between
from .model import Finding, Snapshot
from .sidecar.choice import wants_sidecar
from .snapshot_json import finding_to_json
from .snapshot_reader import MAX_SENTENCE
from .text import clean
from .top.cells import known
from .top.command import interruptible
from .top.sources import AgentSource, measure
from .top.view import by_heat
from .top_names import MOST_NAMES, with_names
from .two_looks import watch

_ORDER = ("critical", "warning", "info")
_STYLES = {"critical": "bold dark_orange", "warning": "yellow", "info": "cyan"}
_INDENT = 10
"""Cells before what is told: a finding begins in the first one, and nothing else does."""


def run(config: Config, *, seconds: float, as_json: bool, fail: bool) -> int:
    """Look for *seconds*, print what was found; 1 if that is a warning or worse and *fail* is set.

    Raises:
        NeedError: There is no agent to ask, and this node cannot count by itself; or there is one,
            and it does not answer, or stands still.
    """
    log.setup(level="error")
    agent = presence.find(config.runtime_dir)
    source = AgentSource(agent, config.eni.interfaces, MOST_NAMES) if agent is not None else None
    first, last = _look(config, source, seconds, _silent if as_json else _say)
    found = sorted(findings(first, last), key=lambda f: (_ORDER.index(f.severity), f.code))
    if as_json:
        document = {"version": 1, "findings": [finding_to_json(finding) for finding in found]}
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        show(found, last, sys.stdout, first=first, agent=source.name if source is not None else "")
    return int(fail and any(finding.severity != "info" for finding in found))


def _look(
    config: Config, source: AgentSource | None, seconds: float, say: Callable[[str], None]
) -> tuple[Snapshot | None, Snapshot]:
    """The node at the begin and at the end; None for the first where it began with nothing."""
    looking = f"looking for {seconds:g} s"
    if source is None:
        # Compiling takes seconds: without this line they would be taken for those of the look.
        if not wants_sidecar(config, os.environ):
            say("loading the programs")
        last = interruptible(measure(config, seconds, lambda: say(looking)))
        return None, with_names(last, MOST_NAMES)
    say(looking)
    return watch(source, seconds, lambda: say(f"the agent has begun anew: {looking} again"))


def _say(what: str) -> None:
    print(f"eni53: {what}", file=sys.stderr, flush=True)


def _silent(_what: str) -> None:
    """Who reads JSON is not told how it goes on."""


def show(
    found: Sequence[Finding],
    snapshot: Snapshot,
    stream: TextIO,
    *,
    first: Snapshot | None = None,
    agent: str = "",
) -> None:
    """Print who looked, and what was found, the worst first: what, its evidence, what would help.

    Args:
        found: In the order in which to print them.
        snapshot: What it was found in.
        stream: Where to.
        first: The look before; None where *snapshot* covers all of the time.
        agent: Which agent was asked; empty for a count of our own.
    """
    console = Printer(stream)
    looked_s = seconds_between(first, snapshot)
    moment = datetime.fromtimestamp(snapshot.time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    told_by = agent or "own count (no agent)"
    node = clean(snapshot.node)
    header = f"eni53 doctor  {node}  {moment}  looked for {_s(looked_s)}  {told_by}"
    console.print(Text(header), soft_wrap=True)
    console.print()
    before: Finding | None = None
    for finding in found:
        if before is not None:
            console.print()
        line = Text(finding.severity.ljust(_INDENT), _STYLES.get(finding.severity, ""))
        _print(console, line.append(f"{clean(finding.code)}: {_plain(finding.summary)}", ""))
        evidence = ", ".join(f"{clean(k)} {_plain(str(v))}" for k, v in finding.evidence.items())
        remedy = _plain(finding.remedy)
        if remedy and before and (before.code, before.remedy) == (finding.code, finding.remedy):
            remedy = "as above"
        for label, text in (("evidence", evidence), ("helps", remedy)):
            if text:
                told = Text(" " * _INDENT).append(f"{label}: ", "dim").append(text, "")
                _print(console, told)
        before = finding
    if not found:
        console.print(Text(_nothing(snapshot, looked_s, lately=bool(agent))), soft_wrap=True)


def _nothing(snapshot: Snapshot, looked_s: float, *, lately: bool) -> str:
    """That there is nothing, on how much, and how near to the limit the nearest was.

    *lately* when the peak is of the last minute and not of this look alone.
    """
    number = len(snapshot.enis)
    told = f"Nothing to report of {number} ENI{'' if number == 1 else 's'} in {_s(looked_s)}"
    if not number:
        return f"{told}."
    hottest = by_heat(snapshot.enis)[0]
    peak = known(hottest.peak_pps, hottest.basis)
    which = f" on {clean(hottest.eni.label)}" if number > 1 else ""
    when = " of the last minute" if lately else ""
    pps = "unknown," if peak is None else f"{peak:.0f}"
    return f"{told} (highest second{when}{which} {pps} of {hottest.limit_pps})."


def _print(console: Printer, text: Text) -> None:
    """*text*, what does not fit its first line below it and indented: it begins no finding."""
    begin, rest = text[:_INDENT], text[_INDENT:]
    # Console.print would fill lines up with blanks, or wrap them to the first column.
    for line in rest.wrap(console, max(_INDENT, console.width - _INDENT)):
        line.rstrip()
        console.print(begin + line, soft_wrap=True)
        begin = Text(" " * _INDENT)


def _s(seconds: float) -> str:
    return f"{round(seconds, 1):g} s"


def _plain(text: str) -> str:
    return " ".join(clean(line, MAX_SENTENCE) for line in text.split("\n"))
