"""Turns signals into exceptions while a lab is up, and holds them back while it is taken down."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """The process was told to end. Test runners let a KeyboardInterrupt through, so it is one."""


def _raise(number: int, _: FrameType | None) -> None:
    raise Terminated(signal.Signals(number).name)


def catch() -> list[signal.Signals]:
    """Make SIGTERM and SIGHUP raise Terminated where nobody handles them; which it changed.

    Their default ends Python without any clean-up.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    changed = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in changed:
        signal.signal(number, _raise)
    return changed


def release(changed: list[signal.Signals]) -> None:
    """Give back the signals that catch took."""
    for number in changed:
        signal.signal(number, signal.SIG_DFL)
    changed.clear()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Deliver signals only at the end: for steps of which half is worse than none.

    Start no process inside: it would inherit the mask and be deaf to SIGTERM.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *_ENDING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM inside: a clean-up that is cut short would leave things behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, *_ENDING)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
