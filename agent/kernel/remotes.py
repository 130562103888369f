"""When the id of a client on another node may be given to another one.

Anybody who can reach a resolver on this node chooses these addresses, so there is a bound on them
and an end to each.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable

from ..sample import Sample, SenderKey
from . import layout
from .maps import Maps

_SWEEP_EVERY_S = 10.0
_SILENT_NS = 60_000_000_000
_REST_S = 15.0  # longer than a question waits (bpf/asks.h, ASK_WAIT_NS): none carries the id then


class RemotePool:
    """Keeps ids for remote clients in circulation.

    Args:
        maps: Where clients, ids and rows live.
        forgotten: Told of every row of the count that was removed.
    """

    def __init__(self, maps: Maps, forgotten: Callable[[SenderKey], None]) -> None:
        self._maps = maps
        self._forgotten = forgotten
        self._resting: deque[tuple[int, float]] = deque()
        self._swept_at_s = 0.0
        ids = range(1, layout.SETTINGS["REMOTE_IDS"] + 1)
        maps.free_remotes(layout.REMOTE_BIT | number for number in ids)

    def collect(self, sample: Sample, settled: Callable[[SenderKey], bool], now_s: float) -> None:
        """Forget clients that have not asked for a minute, with their rows.

        Args:
            sample: The counters as last read.
            settled: Whether everything a row has counted is charged to somebody for good.
            now_s: Monotonic seconds.
        """
        if now_s - self._swept_at_s < _SWEEP_EVERY_S:
            return
        self._swept_at_s = now_s
        while self._resting and now_s - self._resting[0][1] > _REST_S:
            self._maps.free_remotes([self._resting.popleft()[0]])
        silent = {
            number: remote.address
            for number, remote in sample.remotes.items()
            if sample.taken_at_ns - remote.asked_ns > _SILENT_NS
        }
        if not silent:
            return
        rows: dict[int, list[SenderKey]] = defaultdict(list)
        for key in sample.senders:
            rows[key.asker].append(key)
        for number, address in silent.items():
            # The same id twice in circulation would be two clients in one.
            if not all(map(settled, rows[number])) or not self._maps.forget_remote(address):
                continue
            for key in rows[number]:
                self._maps.forget_sender(key)
                self._forgotten(key)
            self._resting.append((number, now_s))
