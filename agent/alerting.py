"""From snapshots to those who are to be told: the log always, others as configured."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from .alerts import Transitions
from .config import Config
from .log import get_logger
from .model import Alert, Snapshot
from .sinks.delivery import Delivery, Receiver
from .snapshot_json import alert_to_json

_REPEAT_S = 60.0
_LEVELS = {"warning": "warning", "critical": "error", "exceeded": "error"}


class Alerting:
    """Raises and clears alerts, and has them delivered.

    Args:
        config: Whom to tell.
        clock: Monotonic seconds.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._log = get_logger()
        self._transitions = Transitions()
        self._repeated: list[Delivery] = []
        self._deliveries: list[Delivery] = []
        self._repeated_at_s = clock()
        alerts = config.alerts
        if alerts.webhook or alerts.alertmanager:
            from .sinks.receivers import Alertmanager, Webhook  # noqa: PLC0415 - ssl: 2 MiB

            if alerts.webhook:
                self._add(Webhook(alerts.webhook))
            if alerts.alertmanager:
                self._repeated.append(self._add(Alertmanager(alerts.alertmanager)))

    def _add(self, receiver: Receiver) -> Delivery:
        delivery = Delivery(receiver)
        self._deliveries.append(delivery)
        return delivery

    def start(self) -> None:
        """Begin to deliver."""
        for delivery in self._deliveries:
            delivery.start()

    def stop(self) -> None:
        """End; blocks for a moment when a receiver is slow."""
        for delivery in self._deliveries:
            delivery.stop()

    @property
    def results(self) -> dict[tuple[str, str], int]:
        """Alerts by (sink, result)."""
        total: Counter[tuple[str, str]] = Counter()
        for delivery in self._deliveries:
            total.update(delivery.results)
        return dict(total)

    def update(self, snapshot: Snapshot) -> tuple[Alert, ...]:
        """Tell what changed with *snapshot*; returns it."""
        changed = self._transitions.update(snapshot)
        for alert in changed:
            self._say(alert)
        if changed:
            for delivery in self._deliveries:
                delivery.put(changed)
        if self._clock() - self._repeated_at_s >= _REPEAT_S:
            self._repeated_at_s = self._clock()
            ongoing = self._transitions.ongoing(snapshot)
            for delivery in self._repeated if ongoing else ():
                delivery.put(ongoing)
        return changed

    def _say(self, alert: Alert) -> None:
        body = alert_to_json(alert)
        told = {
            key: body[key]
            for key in ("severity", "eni", "interface", "peak_pps", "limit_pps", "basis")
        }
        top = [f"{row['workload'] or row['kind']} {row['share']:.0%}" for row in body["workloads"]]
        if body["allowance_exceeded"] is not None:
            told["allowance_exceeded"] = body["allowance_exceeded"]
        level = _LEVELS[alert.severity] if alert.transition == "raised" else "info"
        getattr(self._log, level)(f"eni53.alert_{alert.transition}", **told, workloads=top)
