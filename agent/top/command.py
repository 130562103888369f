"""`eni53 top`: choose a source, show it once or live."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from .. import log, presence
from ..config import Config
from ..errors import NeedError, SourceError
from ..model import Snapshot
from .live import TopApp
from .once import print_once, write_json
from .sources import AgentSource, OwnNode, measure
from .tape import INTERVAL_S, open_tape
from .terminal import drawn_on
from .view import ViewState


@dataclass(frozen=True, slots=True)
class TopOptions:
    """What the command line asked for.

    Attributes:
        once: Print and end; also without being asked where there is no terminal.
        as_json: Print JSON.
        seconds: How long to measure when no agent runs.
        sort: Order of the workloads.
        filter: Only workloads with this in them.
        replay: Play this recording instead; None for what is now.
        replayed: Only these of its ENIs, by label or interface; it may be of another node, so what
            is configured on this one does not matter. Empty for all.
    """

    once: bool
    as_json: bool
    seconds: float
    sort: str
    filter: str
    replay: Path | None = None
    replayed: tuple[str, ...] = ()


def run(config: Config, options: TopOptions) -> int:
    """Show who sends how much; returns 0.

    Raises:
        NeedError: There is no agent to ask, and this node cannot count by itself.
    """
    log.setup(level="error")
    if options.replay is not None:
        return _replay(options, options.replay)
    agent = presence.find(config.runtime_dir)
    source = AgentSource(agent, config.eni.interfaces) if agent is not None else None
    if options.once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        return _once(config, options, source)
    if source is not None:
        _ask(source.first)  # so that a failure is one line, before the screen is taken
        _live(source.fetch, options, source.name)
        return 0
    _end_cleanly_on_sigterm()
    with OwnNode(config).running() as own:
        _live(own.fetch, options, own.name)
    return 0


def _replay(options: TopOptions, path: Path) -> int:
    tape = open_tape(path, options.replayed)
    if options.once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        snapshot = tape.worst
        _print(snapshot, options, played=tape.told(snapshot))
    else:
        view = ViewState(sort=options.sort, filter=options.filter, played=tape.told(tape.fetch()))
        with drawn_on() as terminal:
            TopApp(tape.fetch, INTERVAL_S, view, tape=tape, terminal=terminal).run()
    return 0


def _once(config: Config, options: TopOptions, source: AgentSource | None) -> int:
    if source is not None:
        snapshot, name = _ask(source.first), source.name
    else:

        def attached() -> None:
            if not options.as_json:
                print(
                    f"eni53: no agent runs here; counting for {options.seconds:g} s",
                    file=sys.stderr,
                )

        snapshot, name = interruptible(measure(config, options.seconds, attached)), ""
    _print(snapshot, options, name)
    return 0


def _print(snapshot: Snapshot, options: TopOptions, name: str = "", played: str = "") -> None:
    if options.as_json:
        write_json(snapshot, sys.stdout)
    else:
        view = ViewState(sort=options.sort, filter=options.filter, source=name, played=played)
        print_once(snapshot, view, sys.stdout)


def _live(fetch: Callable[[], Snapshot], options: TopOptions, name: str) -> None:
    view = ViewState(sort=options.sort, filter=options.filter, source=name)
    with drawn_on() as terminal:
        TopApp(fetch, view=view, terminal=terminal).run()


def _ask(fetch: Callable[[], Snapshot]) -> Snapshot:
    try:
        return fetch()
    except SourceError as error:
        raise NeedError(str(error)) from error


def interruptible(work: object) -> Snapshot:
    """Run a coroutine so that SIGTERM and SIGINT end it through its own clean-up."""

    async def guarded() -> Snapshot:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        try:
            snapshot: Snapshot = await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        return snapshot

    return asyncio.run(guarded())


def _end_cleanly_on_sigterm() -> None:
    """Filters of clsact outlive a process that just dies; leave through the context managers."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
