"""From snapshots to those who are to be told: the log always, others as configured."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from .alerts import Transitions
from .config import Config
from .errors import NeedError
from .log import get_logger
from .model import Alert, Snapshot
from .sinks.delivery import STOP_S, Delivery, Receiver
from .snapshot_json import alert_to_json, shares

_REPEAT_S = 60.0
_LEVELS = {"warning": "warning", "critical": "error", "exceeded": "error"}


class Alerting:
    """Raises and clears alerts, and has them delivered.

    Args:
        config: Whom to tell.
        clock: Monotonic seconds.

    Raises:
        NeedError: Somebody is to be told who cannot be from here.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._log = get_logger()
        self._transitions = Transitions()
        self._told: list[Delivery[Alert]] = []
        self._repeated: list[Delivery[Alert]] = []
        self._lines: Delivery[str] | None = None
        self._repeated_at_s = clock()
        alerts = config.alerts
        if alerts.webhook or alerts.alertmanager:
            from .sinks.receivers import Alertmanager, Webhook  # noqa: PLC0415 - ssl: 2 MiB

            if alerts.webhook:
                self._add(Webhook(alerts.webhook))
            if alerts.alertmanager:
                self._repeated.append(self._add(Alertmanager(alerts.alertmanager)))
        if alerts.kubernetes_events:
            from .sinks.kube_event import KubernetesEvents  # noqa: PLC0415 - ssl again

            self._add(KubernetesEvents(os.environ))
        if alerts.emf:
            from .sinks.emf import EmfLines, Lines  # noqa: PLC0415

            if sys.stdout is None:
                raise NeedError("[alerts] emf: standard output is closed: open it, or do without")
            self._emf = EmfLines()
            self._lines = Delivery(Lines(sys.stdout.fileno()))

    def _add(self, receiver: Receiver[Alert]) -> Delivery[Alert]:
        delivery = Delivery(receiver)
        self._told.append(delivery)
        return delivery

    @property
    def _deliveries(self) -> list[Delivery[Any]]:
        return [*self._told, *([] if self._lines is None else [self._lines])]

    def start(self) -> None:
        """Begin to deliver."""
        for delivery in self._deliveries:
            delivery.start()

    def stop(self) -> None:
        """End; blocks for `STOP_S` at most, however many receivers are slow."""
        deadline_s = time.monotonic() + STOP_S
        for delivery in self._deliveries:
            delivery.end()
        for delivery in self._deliveries:
            delivery.join(max(0.0, deadline_s - time.monotonic()))

    @property
    def results(self) -> dict[tuple[str, str], int]:
        """Alerts by (sink, result)."""
        return {key: n for delivery in self._deliveries for key, n in delivery.results.items()}

    def update(self, snapshot: Snapshot) -> tuple[Alert, ...]:
        """Tell what changed with *snapshot*; returns it."""
        changed = self._transitions.update(snapshot)
        for alert in changed:
            self._say(alert)
        if changed:
            for delivery in self._told:
                delivery.put(changed)
        now_s = self._clock()
        if self._lines is not None and (lines := self._emf.update(snapshot, changed, now_s)):
            self._lines.put(lines)
        if now_s - self._repeated_at_s >= _REPEAT_S:
            self._repeated_at_s = now_s
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
        if body["allowance_exceeded"] is not None:
            told["allowance_exceeded"] = body["allowance_exceeded"]
        level = _LEVELS[alert.severity] if alert.transition == "raised" else "info"
        getattr(self._log, level)(f"eni53.alert_{alert.transition}", **told, workloads=shares(body))
