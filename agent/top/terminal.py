"""The terminal that top draws on, which may go away at any time: a window closed, ssh cut off."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO


class Terminal:
    """A stream to a terminal that can be written to when the terminal is gone.

    textual writes from a thread that ends at the first error, and then waits for ever for room in
    that thread's queue, while its reader of keys turns round at an end of file that never ends
    (textual 8.2: issues 6690 and 6692 of its project). One closed window in four left a `top`
    that kept a processor busy and heard no signal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._watched = [one for one in (sys.__stdin__, stream) if one is not None and one.isatty()]
        self._failed = False

    @property
    def gone(self) -> bool:
        """Whether there was a terminal, to draw on or to read keys from, and is none any more."""
        # SIGHUP says so only to the session's leader and to what is in the foreground:
        # `docker exec -it` and a `sudo` with a terminal of its own swallow it.
        return self._failed or not all(one.isatty() for one in self._watched)

    def write(self, text: str) -> int:
        """Write; where nobody reads any more, nothing happens."""
        with self._forgiven():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, likewise."""
        with self._forgiven():
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._failed = True
            # What the stream still holds has to go somewhere, or Python ends with status 120.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def drawn_on() -> Iterator[Terminal]:
    """Have textual, which draws on Python's first stderr, draw on a `Terminal` instead."""
    stream = sys.__stderr__
    assert stream is not None  # noqa: S101 - top is only live where it has one
    terminal = Terminal(stream)
    sys.__stderr__ = terminal  # type: ignore[misc, assignment]
    try:
        yield terminal
    finally:
        sys.__stderr__ = stream  # type: ignore[misc]
