"""structlog, set up once: JSON lines for machines, plain lines for a person at a terminal.

Take loggers from here and not from structlog itself, or rich comes along with it. Events are
named ``eni53.something_happened``; what varies goes into the fields, never into the name.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

from .text import clean

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any


@contextmanager
def _rich_hidden() -> Iterator[None]:
    """Hide rich: structlog imports it where it can, 6 MiB in an agent that draws no table."""
    absent = object()
    held = sys.modules.get("rich", absent)
    sys.modules["rich"] = None  # type: ignore[assignment]  # `import rich` now fails at once
    try:
        yield
    finally:
        if held is absent:
            del sys.modules["rich"]
        else:
            sys.modules["rich"] = held  # type: ignore[assignment]


with _rich_hidden():
    import structlog
    from structlog.typing import FilteringBoundLogger

MAX_VALUE = 1000
"""Characters of one value on a terminal; the rest is cut."""


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object:
        """Take *text*."""

    def flush(self) -> object:
        """Let it out."""

    def isatty(self) -> bool:
        """Whether a person reads along."""


class _Unbreakable:
    """A stream whose reader may go away: a lost log line must not end the counting."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except (OSError, ValueError):  # ValueError: closed, or not writable in this encoding
            return

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


def setup(level: str = "info", stream: Stream | None = None) -> None:
    """Send every logger's lines to *stream*; call once, before the first line.

    Args:
        level: The lowest level written: debug, info, warning or error.
        stream: None means stderr.
    """
    out = cast(Stream, sys.stderr) if stream is None else stream
    last: list[structlog.typing.Processor] = (
        [
            _made_safe,
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback, pad_event_to=30
            ),
        ]
        if out.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast("Any", _Unbreakable(out))),
        cache_logger_on_first_use=True,
    )


def _made_safe(_logger: object, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    # JSON escapes control characters by itself; a terminal would obey them.
    return {k: clean(v, MAX_VALUE) if isinstance(v, str) else v for k, v in event.items()}


def get_logger(**fields: object) -> FilteringBoundLogger:
    """A logger that adds *fields* to each of its lines."""
    return cast(FilteringBoundLogger, structlog.get_logger(**fields))


class OnChange:
    """Logs a state when it changes, not each time it is seen: one line per outage, not per tick.

    The first state seen of a key counts as a change, unless `assume` said it already.
    """

    def __init__(self, logger: FilteringBoundLogger, max_keys: int = 4096) -> None:
        """Remember at most *max_keys* keys; the one changed longest ago is forgotten first."""
        self._logger = logger
        self._max_keys = max_keys
        self._states: dict[Hashable, object] = {}

    def changed(
        self, key: Hashable, state: object, event: str, *, level: str = "info", **fields: object
    ) -> bool:
        """Log *event* with *fields* if *state* differs from the last one of *key*.

        Returns:
            Whether it did.
        """
        if key in self._states and self._states[key] == state:
            return False
        self.assume(key, state)
        getattr(self._logger, level)(event, **fields)
        return True

    def assume(self, key: Hashable, state: object) -> None:
        """Take *state* as known without a line: what is normal at the start is no news."""
        self._states.pop(key, None)
        self._states[key] = state
        if len(self._states) > self._max_keys:
            del self._states[next(iter(self._states))]

    def forget(self, key: Hashable) -> None:
        """Drop *key*: what it stood for is gone."""
        self._states.pop(key, None)
