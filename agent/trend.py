"""When an ENI will reach its limit, if its load goes on growing as it does. Pure."""

from __future__ import annotations

from collections import deque

_STEP_S = 10.0
_STEPS = 60  # ten minutes
_FEWEST = 18  # of steps: three minutes say enough of a growth that is steady
_STEADY = 0.8  # part of the variance that the line explains
_SMALLEST = 0.1  # of the limit: an idle ENI that doubles is no trend
_LONGEST_MIN = 24 * 60.0


class Trend:
    """Follows one ENI: the highest window of every ten seconds over the last ten minutes."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float]] = deque(maxlen=_STEPS)
        self._step_began_s: float | None = None
        self._highest = 0.0

    def update(self, peak_pps: float, now_s: float) -> None:
        """Take in the highest window since the last update.

        Args:
            peak_pps: Its packets.
            now_s: Monotonic seconds.
        """
        if self._step_began_s is None:
            self._step_began_s = now_s
        self._highest = max(self._highest, peak_pps)
        if now_s - self._step_began_s >= _STEP_S:
            self._steps.append((now_s, self._highest))
            self._highest = 0.0
            # A sleep longer than a step leaves a gap; it is not filled with what nobody saw.
            self._step_began_s = now_s

    def minutes_to(self, limit_pps: float) -> float | None:
        """Minutes until the limit at the present growth; None when that is not steady, or far."""
        count = len(self._steps)
        if count < _FEWEST or self._steps[-1][1] < _SMALLEST * limit_pps:
            return None
        # By the time it was, not by number: a step ends with a tick, and ticks are late at times.
        last_s = self._steps[-1][0]
        mean_x = sum(x for x, _ in self._steps) / count
        mean_y = sum(y for _, y in self._steps) / count
        spread_x = sum((x - mean_x) ** 2 for x, _ in self._steps)
        spread_y = sum((y - mean_y) ** 2 for _, y in self._steps)
        both = sum((x - mean_x) * (y - mean_y) for x, y in self._steps)
        if both <= 0 or not spread_y or both**2 < _STEADY * spread_x * spread_y:
            return None
        slope = both / spread_x  # packets a second, per second
        now = mean_y + slope * (last_s - mean_x)
        minutes = max(0.0, limit_pps - now) / slope / 60
        return minutes if minutes <= _LONGEST_MIN else None
