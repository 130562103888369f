"""Those who are told of alerts over HTTP: a webhook, and Alertmanager."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..model import Alert
from ..snapshot_json import alert_to_json, shares
from .post import post

_STAYS_S = 300.0
"""How long Alertmanager believes an alert that is not repeated; it is, every minute."""


class Webhook:
    """One POST for each alert."""

    name = "webhook"
    together = False

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, alerts: tuple[Alert, ...]) -> None:
        """Tell it.

        Raises:
            SourceError: It did not answer with 2xx.
        """
        for alert in alerts:
            post(self.name, self._url, alert_to_json(alert))


class Alertmanager:
    """Alertmanager's API, version 2."""

    name = "alertmanager"
    together = True

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/api/v2/alerts"

    def send(self, alerts: tuple[Alert, ...]) -> None:
        """Tell it.

        Raises:
            SourceError: It did not answer with 2xx.
        """
        post(self.name, self._url, [to_alertmanager(alert) for alert in alerts])


def to_alertmanager(alert: Alert) -> dict[str, Any]:
    """*alert* as Alertmanager takes it: who it is in labels, what may change in annotations."""
    body = alert_to_json(alert)
    raised = alert.transition == "raised"
    # The clock may have been set back since; Alertmanager refuses what ends before it began.
    ends_s = max(alert.began_s, alert.time_s + (_STAYS_S if raised else 0.0))
    dropped = alert.allowance_exceeded
    return {
        "labels": {
            "alertname": "Eni53LinkLocal",
            "severity": alert.severity,
            **{key: body[key] for key in ("node", "eni", "mac", "interface", "basis") if body[key]},
        },
        "annotations": {
            "summary": f"{body['eni']} on {body['node']}: {alert.peak_pps:.0f} of"
            f" {alert.limit_pps} packets a second ({alert.severity})",
            "workloads": ", ".join(shares(body)),
            **({} if dropped is None else {"allowance_exceeded": str(dropped)}),
        },
        "startsAt": _rfc3339(alert.began_s),
        "endsAt": _rfc3339(ends_s),
    }


def _rfc3339(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
