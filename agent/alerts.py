"""The state of an ENI: raised by one window, lowered only when it has been calm; and what to tell.

Pure: no clock, no I/O.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .model import SEVERITIES, STATES, Alert, EniUsage, Snapshot

LINKLOCAL_DROPS = "linklocal_allowance_exceeded"
_TOP = 5


@dataclass(frozen=True, slots=True)
class Levels:
    """Where the states begin, as parts of the limit, and when they end.

    Attributes:
        warning: Utilisation from which an ENI is close to its limit.
        critical: Utilisation from which it is about to lose packets.
        clear_below: Utilisation under which a warning ends. The worse states end below marks that
            are as far below their own beginnings, in proportion.
        clear_after_s: Seconds it must have been below the mark.
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

    def holds(self, state: str, utilization: float) -> bool:
        """Whether *state*, once reached, goes on at this utilisation."""
        begins = {"ok": 0.0, "warning": self.warning, "critical": self.critical, "exceeded": 1.0}
        # By products alone: a mark that is a quotient would lie a little beside `clear_below`.
        return utilization * self.warning >= begins[state] * self.clear_below


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
        # Each state has two marks: around either of them it may wobble, and nothing comes and goes.
        left = STATES[: STATES.index(self.state) + 1]
        held = [state for state in left if self._levels.holds(state, highest)]
        self.state = worst([self._levels.of(highest), *held])
        return self.state


def worst(states: list[str]) -> str:
    """The worst of *states*; ``ok`` when there are none."""
    return max(states, key=STATES.index, default="ok")


@dataclass(frozen=True, slots=True)
class _Raised:
    since_s: float
    drops: int | None


class Transitions:
    """Turns snapshots into alerts: each severity of each ENI is raised once and cleared once."""

    def __init__(self) -> None:
        self._active: dict[tuple[str, str], _Raised] = {}
        self._last: dict[str, EniUsage] = {}

    @property
    def active(self) -> frozenset[tuple[str, str]]:
        """(eni label, severity) of what is raised."""
        return frozenset(self._active)

    def update(self, snapshot: Snapshot) -> tuple[Alert, ...]:
        """What changed: what is raised from mild to worst, what is cleared the worst first.

        An ENI that is gone is calm.
        """
        alerts = []
        usages = {usage.eni.label: usage for usage in snapshot.enis}
        for label, usage in usages.items():
            height = STATES.index(usage.state)
            for severity in SEVERITIES[:height]:
                if (label, severity) not in self._active:
                    self._active[label, severity] = _Raised(snapshot.time_s, drops(usage))
                    alerts.append(self._alert("raised", severity, usage, snapshot))
        for label, severity in sorted(
            self._active, key=lambda pair: SEVERITIES.index(pair[1]), reverse=True
        ):
            now = usages.get(label)
            if now is None or STATES.index(now.state) <= SEVERITIES.index(severity):
                usage = now or self._last[label]
                alerts.append(self._alert("cleared", severity, usage, snapshot))
                del self._active[label, severity]
        self._last = {label: usages.get(label) or self._last[label] for label, _ in self._active}
        return tuple(alerts)

    def ongoing(self, snapshot: Snapshot) -> tuple[Alert, ...]:
        """Everything that is raised, as it stands: for a receiver that forgets."""
        usages = {usage.eni.label: usage for usage in snapshot.enis}
        return tuple(
            self._alert("raised", severity, usages[label], snapshot)
            for label, severity in self._active
            if label in usages
        )

    def _alert(self, transition: str, severity: str, usage: EniUsage, snapshot: Snapshot) -> Alert:
        raised = self._active[usage.eni.label, severity]
        now = drops(usage)
        since = None if now is None or raised.drops is None else max(0, now - raised.drops)
        return Alert(
            transition=transition,
            severity=severity,
            time_s=snapshot.time_s,
            began_s=raised.since_s,
            node=snapshot.node,
            eni=usage.eni,
            basis=usage.basis,
            limit_pps=usage.limit_pps,
            window_pps=usage.window_pps[usage.basis],
            peak_pps=usage.peak_pps[usage.basis],
            allowance_exceeded=since,
            workloads=tuple(row for row in usage.workloads if row.packets)[:_TOP],
        )


def drops(usage: EniUsage) -> int | None:
    """Link-local packets that AWS dropped, as the driver counts; None where it does not."""
    return None if usage.allowances is None else usage.allowances.get(LINKLOCAL_DROPS)
