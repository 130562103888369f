"""Those who are told of alerts over HTTP: a webhook, and Alertmanager."""

from __future__ import annotations

import http.client
import json
import ssl
from datetime import UTC, datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..errors import SourceError
from ..model import Alert
from ..snapshot_json import alert_to_json
from ..text import clean

_TIMEOUT_S = 5.0
_STAYS_S = 300.0
"""How long Alertmanager believes an alert that is not repeated; it is, every minute."""


class Webhook:
    """One POST for each alert."""

    name = "webhook"

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
    ends_s = alert.time_s + (_STAYS_S if raised else 0.0)
    shares = [f"{row['workload'] or row['kind']} {row['share']:.0%}" for row in body["workloads"]]
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
            "workloads": ", ".join(shares),
            **({} if dropped is None else {"allowance_exceeded": str(dropped)}),
        },
        "startsAt": _rfc3339(alert.began_s),
        "endsAt": _rfc3339(ends_s),
    }


def _rfc3339(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")


def post(who: str, url: str, body: object, headers: dict[str, str] | None = None) -> None:
    """POST *body* as JSON.

    Raises:
        SourceError: No answer in time, or not 2xx.
    """
    parts = urlsplit(url)
    shown = f"{who} at {clean(parts.hostname or '')}"
    connection = _connect(parts)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        data = json.dumps(body).encode()
        connection.request(
            "POST", target, data, {"Content-Type": "application/json", **(headers or {})}
        )
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise SourceError(f"{shown}: {clean(str(error)) or type(error).__name__}") from error
    finally:
        connection.close()
    if not http.client.OK <= status < http.client.MULTIPLE_CHOICES:
        raise SourceError(f"{shown}: status {status}")


def _connect(parts: SplitResult) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, parts.port, timeout=_TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT_S)
