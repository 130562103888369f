"""`eni53 record`: a recording by hand, from the running agent or from a count of its own."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from . import log, presence
from .config import Config
from .errors import NeedError, SourceError, UsageError
from .flight import files
from .flight.recorder import Recorder
from .flight.recording import Recording, without_names
from .flight.recording_json import dumps
from .model import Snapshot
from .rates import SLOT_S
from .text import clean
from .top.sources import AgentSource, OwnNode

_ASK_EVERY_S = 0.5
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What the command line asked for.

    Attributes:
        path: The file to write.
        seconds: How long to record.
        names: Leave the names of workloads, ENIs and node in.
        source: Take this recording instead of making one; None to make one.
    """

    path: Path
    seconds: float
    names: bool
    source: Path | None


def run(config: Config, options: RecordOptions) -> int:
    """Write one recording; returns 0.

    Raises:
        UsageError: The file is there already, or cannot be; the one to be read is no recording.
        NeedError: There is nothing to record from.
    """
    log.setup(level="error")
    _check(options.path)
    recording = _taken(options.source) if options.source else _record(config, options.seconds)
    if not options.names:
        recording = without_names(recording)
    _write(options.path, dumps(recording))
    print(f"eni53: {_told(recording, options.path)}", file=sys.stderr)
    return 0


def _told(recording: Recording, path: Path) -> str:
    seconds, enis = recording.slots * SLOT_S, len(recording.enis)
    if not enis:
        return f"{path}: no ENI sent anything that is counted in these {seconds:.1f} s"
    return (
        f"{seconds:.1f} s of {enis} ENI{'' if enis == 1 else 's'} in {path};"
        f" play it with `eni53 top --replay {path}`"
    )


def _check(path: Path) -> None:
    """Before recording for a minute: is there a place for it?"""
    shown = clean(str(path))
    try:
        if path.exists() or path.is_symlink():
            raise UsageError(f"{shown} is there already: name another file, or remove it")
        if not path.parent.is_dir():
            raise UsageError(f"cannot write {shown}: {clean(str(path.parent))} is no directory")
    except OSError as error:  # a name that is too long, a directory that is not ours to look into
        raise UsageError(f"cannot write {shown}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="ascii") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:  # half of one is none, and would be in the way of the next
                path.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UsageError(f"cannot write {clean(str(path))}: {error.strerror}") from error


def _taken(path: Path) -> Recording:
    try:
        return files.read(path)
    except SourceError as error:
        raise UsageError(f"{clean(str(path))}: {error}") from error


def _record(config: Config, seconds: float) -> Recording:
    agent = presence.find(config.runtime_dir)
    if agent is not None:
        source = AgentSource(agent, config.eni.interfaces)
        return _follow(source.first, source.fetch, seconds, "an agent runs here")
    own: AbstractContextManager[OwnNode] = OwnNode(config).running()
    with own as node:
        return _follow(node.fetch, node.fetch, seconds, "no agent runs here")


def _follow(
    first: Callable[[], Snapshot], fetch: Callable[[], Snapshot], seconds: float, by: str
) -> Recording:
    """Ask until there are *seconds* of slots, or a signal comes: what there is then is kept."""
    recorder = Recorder()
    try:
        recorder.update(first())
    except SourceError as error:
        raise NeedError(str(error)) from error
    begin = recorder.slot
    if begin is None:
        raise NeedError("the agent tells no slots: it is older than this command")
    end = begin + max(1, round(seconds / SLOT_S))
    left_s = seconds + _PATIENCE_S
    with _signals() as stopped:
        # Not before: what was sent by then is not in it, and a Ctrl-C would not be heeded.
        print(f"eni53: {by}; recording for {seconds:g} s", file=sys.stderr)
        while (recorder.slot or begin) < end and left_s > 0 and not stopped.wait(_ASK_EVERY_S):
            left_s -= _ASK_EVERY_S
            try:
                recorder.update(fetch())
            except SourceError as error:
                print(f"eni53: {error}; the recording ends here", file=sys.stderr)
                break
    return recorder.cut(begin, min(recorder.slot or begin, end))


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that is set by Ctrl-C or SIGTERM: a recording that is stopped is still written."""
    stopped = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stopped.set())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
