"""The state of an ENI: raised by one window, lowered only when it has been calm. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .model import STATES


@dataclass(frozen=True, slots=True)
class Levels:
    """Where the states begin, as parts of the limit, and when they end.

    Attributes:
        warning: Utilisation from which an ENI is close to its limit.
        critical: Utilisation from which it is about to lose packets.
        clear_below: Utilisation under which it counts as calm.
        clear_after_s: Seconds it must be calm.
    """

    warning: float = 0.7
    critical: float = 0.9
    clear_below: float = 0.6
    clear_after_s: float = 5.0

    def of(self, utilization: float) -> str:
        """The state that this utilisation alone would mean."""
        if utilization > 1.0:
            return "exceeded"
        if utilization >= self.critical:
            return "critical"
        return "warning" if utilization >= self.warning else "ok"


class EniState:
    """Follows one ENI; one call of `update` for each look at its windows."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._recent: deque[tuple[float, float]] = deque()
        self.state = "ok"

    def update(self, utilization: float, now_s: float) -> str:
        """The state after another look.

        Args:
            utilization: Of the highest window since the last look.
            now_s: Monotonic seconds.
        """
        self._recent.append((now_s, utilization))
        while self._recent[0][0] < now_s - self._levels.clear_after_s:
            self._recent.popleft()
        highest = max(value for _, value in self._recent)
        reached = self._levels.of(highest)
        if reached == "ok" and self.state != "ok" and highest >= self._levels.clear_below:
            reached = "warning"  # between the two marks: neither calm enough nor worse
        self.state = reached
        return self.state


def worst(states: list[str]) -> str:
    """The worst of *states*; ``ok`` when there are none."""
    return max(states, key=STATES.index, default="ok")
