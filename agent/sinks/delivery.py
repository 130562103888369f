"""Hands what is to be told to those who are to be told, each in a thread of its own.

Who is down or slow is tried again, ever less often; counting never waits for anybody. What could
not be delivered in the end is counted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..errors import SourceError
from ..log import OnChange, get_logger

MAX_WAITING = 256
MAX_AGE_S = 900.0
"""An alert older than this helps nobody any more."""

STOP_S = 5.0

_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 60.0

T = TypeVar("T")
_Item_contra = TypeVar("_Item_contra", contravariant=True)


class Receiver(Protocol[_Item_contra]):
    """Somebody to be told.

    Attributes:
        name: In metrics and log lines.
        together: Takes all that came at once at once. Who takes one at a time gets each by itself:
            one that fails must not have those before it sent a second time.
    """

    name: str
    together: bool

    def send(self, items: tuple[_Item_contra, ...]) -> None:
        """Tell them; blocks.

        Raises:
            SourceError: They did not take it.
        """


class Delivery(Generic[T]):
    """The queue of one receiver.

    Args:
        receiver: Who is told.
        wait: Waits so many seconds, or less when told to stop; returns whether it was.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        receiver: Receiver[T],
        wait: Callable[[float], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receiver = receiver
        self._clock = clock
        # Each with the moment since which it waits; None is only there to wake the thread up.
        self._waiting: queue.Queue[tuple[float, tuple[T, ...]] | None] = queue.Queue(MAX_WAITING)
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait
        self._log = OnChange(get_logger())
        self._log.assume(receiver.name, True)
        self._counting = threading.Lock()
        self._results = Counter(dict.fromkeys(("delivered", "retried", "dropped"), 0))
        self._thread = threading.Thread(target=self._run, name=receiver.name, daemon=True)

    @property
    def results(self) -> dict[tuple[str, str], int]:
        """How many by (receiver, result): delivered, retried (once each time) or dropped."""
        with self._counting:
            return {(self._receiver.name, result): n for result, n in self._results.items()}

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def put(self, items: tuple[T, ...]) -> None:
        """Have *items* delivered; never blocks. With no room left the newest are dropped."""
        now_s = self._clock()
        for part in [items] if self._receiver.together else [(item,) for item in items]:
            try:
                self._waiting.put_nowait((now_s, part))
            except queue.Full:
                self._count("dropped", part)

    def end(self) -> None:
        """Tell the thread to end; what still waits is tried once more."""
        self._stopping.set()
        with contextlib.suppress(queue.Full):  # then it has something to wake up for
            self._waiting.put_nowait(None)

    def join(self, within_s: float = STOP_S) -> None:
        """Wait for the end; who hangs is left behind, with what it holds."""
        if self._thread.ident is not None:
            self._thread.join(timeout=within_s)

    def _count(self, result: str, items: tuple[T, ...]) -> None:
        with self._counting:  # from the loop and from the thread
            self._results[result] += len(items)

    def _run(self) -> None:
        while not (self._stopping.is_set() and self._waiting.empty()):
            found = self._waiting.get()
            if found is not None:
                self._deliver(*found)

    def _deliver(self, since_s: float, items: tuple[T, ...]) -> None:
        name, retry_s = self._receiver.name, _FIRST_RETRY_S
        while True:
            try:
                self._receiver.send(items)
            except SourceError as error:
                self._log.changed(
                    name, False, "eni53.alerts_undelivered", level="warning", sink=name,
                    reason=str(error),
                )  # fmt: skip
            else:
                self._count("delivered", items)
                self._log.changed(name, True, "eni53.alerts_delivered", sink=name)
                return
            too_late = self._clock() - since_s + retry_s > MAX_AGE_S
            if too_late or self._stopping.is_set() or self._wait(retry_s):
                self._count("dropped", items)
                return
            self._count("retried", items)
            retry_s = min(retry_s * 2, _LONGEST_RETRY_S)
