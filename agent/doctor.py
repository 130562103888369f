"""`eni53 doctor`: what there is to say of this node's DNS load, with evidence and a remedy each."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from . import log, presence
from .config import Config
from .diagnosis import findings
from .errors import NeedError, SourceError
from .model import Finding, Snapshot
from .snapshot_json import finding_to_json
from .text import clean
from .top.command import interruptible
from .top.sources import AgentSource, measure, watch
from .top_names import MOST_NAMES, with_names

_ORDER = ("critical", "warning", "info")
_STYLES = {"critical": "bold dark_orange", "warning": "yellow", "info": "cyan"}


def run(config: Config, *, seconds: float, as_json: bool, fail: bool) -> int:
    """Look for *seconds*, print what was found; 1 if that is a warning or worse and *fail* is set.

    Raises:
        NeedError: There is no agent to ask, and this node cannot count by itself.
    """
    log.setup(level="error")
    first, last = _look(config, seconds, as_json=as_json)
    found = sorted(findings(first, last), key=lambda f: (_ORDER.index(f.severity), f.code))
    if as_json:
        document = {"version": 1, "findings": [finding_to_json(finding) for finding in found]}
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        show(found, last, sys.stdout)
    return int(fail and any(finding.severity != "info" for finding in found))


def _look(config: Config, seconds: float, *, as_json: bool) -> tuple[Snapshot | None, Snapshot]:
    """The node at the begin and at the end; None for the first where it began with nothing."""
    if not as_json:
        print(f"eni53: looking for {seconds:g} s", file=sys.stderr)
    agent = presence.find(config.runtime_dir)
    if agent is None:
        return None, with_names(interruptible(measure(config, seconds)), MOST_NAMES)
    try:
        return watch(AgentSource(agent, config.eni.interfaces, MOST_NAMES), seconds)
    except SourceError as error:
        raise NeedError(str(error)) from error


def show(found: Sequence[Finding], snapshot: Snapshot, stream: TextIO) -> None:
    """Print them, the worst first: what, its evidence, what would help."""
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    for finding in found:
        line = Text(f"{finding.severity:<9}", _STYLES.get(finding.severity, ""))
        console.print(line.append(f"{clean(finding.code)}: {_plain(finding.summary)}", ""))
        evidence = ", ".join(f"{clean(k)} {clean(str(v))}" for k, v in finding.evidence.items())
        for label, text in (("evidence", evidence), ("helps", _plain(finding.remedy))):
            if text:
                told = Text(f"{label}: ", "dim").append(text, "")
                console.print(Padding(told, (0, 0, 0, 10)))
    if not found:
        enis = len(snapshot.enis)
        console.print(f"Nothing to report of {enis} ENI{'' if enis == 1 else 's'}.")


def _plain(text: str) -> str:
    return " ".join(clean(line, 2000) for line in text.split("\n"))
