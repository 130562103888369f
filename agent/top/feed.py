"""Snapshots fetched in a thread of their own, so that a slow agent never stops a key press."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import Eni53Error
from ..model import Snapshot

Fetch = Callable[[], Snapshot]


class Feed:
    """Calls *fetch* again and again and hands on what came of it.

    The thread is a daemon: a fetch that never returns must not keep a person from leaving.

    Args:
        fetch: May block, and may raise any `Eni53Error`.
        interval_s: Seconds from one answer to the next question.
        deliver: Gets each snapshot, or the error instead of it; called in the feed's thread.
    """

    def __init__(
        self,
        fetch: Fetch,
        interval_s: float,
        deliver: Callable[[Snapshot | Exception], None],
    ) -> None:
        self._fetch = fetch
        self._interval_s = interval_s
        self._deliver = deliver
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="top-feed", daemon=True)

    def start(self) -> None:
        """Ask for the first snapshot."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for no more; what a running fetch still brings is dropped."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            outcome = self._once()
            if self._ended.is_set():
                return
            self._deliver(outcome)
            if not isinstance(outcome, Snapshot | Eni53Error):
                return
            self._ended.wait(self._interval_s)

    def _once(self) -> Snapshot | Exception:
        try:
            return self._fetch()
        except Exception as error:  # noqa: BLE001 - a defect belongs in the app, not in this thread
            return error
