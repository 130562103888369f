"""Hands alerts to those who are to be told, each in a thread of its own.

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
from typing import Protocol

from ..errors import SourceError
from ..log import OnChange, get_logger
from ..model import Alert

MAX_WAITING = 256
MAX_AGE_S = 900.0
"""An alert older than this helps nobody any more."""

_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 60.0


_Item = tuple[float, tuple[Alert, ...]]  # since when they wait, on the monotonic clock


class Receiver(Protocol):
    """Somebody to be told."""

    name: str

    def send(self, alerts: tuple[Alert, ...]) -> None:
        """Tell them; blocks.

        Raises:
            SourceError: They did not take it.
        """


class Delivery:
    """The queue of one receiver.

    Args:
        receiver: Who is told.
        wait: Waits so many seconds, or less when told to stop; returns whether it was.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        receiver: Receiver,
        wait: Callable[[float], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._receiver = receiver
        self._clock = clock
        self._waiting: queue.Queue[_Item | None] = queue.Queue(MAX_WAITING)
        self._stopping = threading.Event()
        self._wait = wait or self._stopping.wait
        self._log = OnChange(get_logger())
        self._log.assume(receiver.name, True)
        self.results: Counter[tuple[str, str]] = Counter(
            {(receiver.name, result): 0 for result in ("delivered", "retried", "dropped")}
        )
        self._thread = threading.Thread(target=self._run, name=receiver.name, daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def put(self, alerts: tuple[Alert, ...]) -> None:
        """Have *alerts* delivered; never blocks. With no room left the newest are dropped."""
        try:
            self._waiting.put_nowait((self._clock(), alerts))
        except queue.Full:
            self.results[self._receiver.name, "dropped"] += len(alerts)

    def stop(self) -> None:
        """End the thread; what still waits is tried once more."""
        self._stopping.set()
        with contextlib.suppress(queue.Full):  # then it has something to wake up for
            self._waiting.put_nowait(None)
        if self._thread.ident is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not (self._stopping.is_set() and self._waiting.empty()):
            found = self._waiting.get()
            if found is None:
                continue
            since_s, alerts = found
            self._deliver(since_s, alerts)

    def _deliver(self, since_s: float, alerts: tuple[Alert, ...]) -> None:
        name, retry_s = self._receiver.name, _FIRST_RETRY_S
        while True:
            try:
                self._receiver.send(alerts)
            except SourceError as error:
                self._log.changed(
                    name, False, "eni53.alerts_undelivered", level="warning", sink=name,
                    reason=str(error),
                )  # fmt: skip
            else:
                self.results[name, "delivered"] += len(alerts)
                self._log.changed(name, True, "eni53.alerts_delivered", sink=name)
                return
            too_late = self._clock() - since_s + retry_s > MAX_AGE_S
            if too_late or self._stopping.is_set() or self._wait(retry_s):
                self.results[name, "dropped"] += len(alerts)
                return
            self.results[name, "retried"] += len(alerts)
            retry_s = min(retry_s * 2, _LONGEST_RETRY_S)
