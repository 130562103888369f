"""Kubernetes Events on the Node, by the service account of the agent's own pod."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import NeedError, SourceError
from ..model import Alert
from ..snapshot_json import alert_to_json, shares
from ..text import clean
from .post import post

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NAMESPACE = "default"  # where Events of what has no namespace belong; the server insists on it
_MAX_MESSAGE = 1000  # the server takes 1024
_CONFLICT = 409
_PORT = re.compile(r"\d{1,5}", re.ASCII)


class KubernetesEvents:
    """One Event for each alert.

    Args:
        environ: Where Kubernetes says which address its API has, and NODE_NAME what this node is
            called there; without it, the host name.
        account: Directory of the service account.

    Raises:
        NeedError: This is no pod with a service account.
    """

    name = "kubernetes_events"
    together = False

    def __init__(self, environ: Mapping[str, str], account: Path = ACCOUNT) -> None:
        host = environ.get("KUBERNETES_SERVICE_HOST", "")
        port = environ.get("KUBERNETES_SERVICE_PORT", "443")
        missing = [str(account / name) for name in ("token", "ca.crt")
                   if not (account / name).is_file()]  # fmt: skip
        if not host or not _PORT.fullmatch(port):
            missing.insert(0, "variable KUBERNETES_SERVICE_HOST or _PORT")
        if missing:
            raise NeedError(
                f"[alerts] kubernetes_events: no service account of a pod here ({missing[0]}):"
                " let the pod have one (in the chart kubernetesEvents.enabled), or turn this off"
            )
        shown = f"[{host}]" if ":" in host else host
        self._url = f"https://{shown}:{port}/api/v1/namespaces/{_NAMESPACE}/events"
        self._account = account
        self._node = environ.get("NODE_NAME") or socket.gethostname().lower()

    def send(self, alerts: tuple[Alert, ...]) -> None:
        """Write them.

        Raises:
            SourceError: The API did not take one.
        """
        try:
            # Each time anew: the kubelet replaces both while the pod runs.
            token = (self._account / "token").read_text("ascii").strip()
            context = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise SourceError(f"the service account cannot be read: {reason}") from None
        for alert in alerts:
            post(
                self.name,
                self._url,
                to_event(alert, self._node),
                headers={"Authorization": f"Bearer {token}"},
                context=context,
                also={_CONFLICT},  # it is there: the answer to the first attempt was lost
            )


def to_event(alert: Alert, node: str) -> dict[str, Any]:
    """*alert* as an Event of the core API, version 1, on the Node *node*."""
    body = alert_to_json(alert)
    raised = alert.transition == "raised"
    moment = datetime.fromtimestamp(int(alert.time_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # The same alert has the same name however often it is sent.
    parts = (node, body["eni"], alert.severity, alert.transition, f"{alert.time_s:.3f}")
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()
    calmed = "" if raised else ", over for now"
    who = ", ".join(shares(body)) or "nobody"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"eni53-{digest[:32]}", "namespace": _NAMESPACE},
        # uid is the name, as the kubelet has it: `kubectl describe node` looks for that too.
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "type": "Warning" if raised else "Normal",
        "reason": f"Eni53{alert.severity.title()}{'' if raised else 'Cleared'}",
        "message": clean(
            f"{body['eni']} ({body['interface']}): {alert.peak_pps:.0f} of {alert.limit_pps}"
            f" packets a second to link-local services{calmed}; {who}",
            _MAX_MESSAGE,
        ),
        "source": {"component": "eni53", "host": node},
        "reportingComponent": "eni53",
        "reportingInstance": node,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
