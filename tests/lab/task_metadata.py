"""The task metadata endpoint, version 4, as a task on Fargate or with awsvpc sees it.

Run in the node's namespace, at 169.254.170.2, where a task's ``ecs-eth0`` leads::

    python -m tests.lab.task_metadata DIRECTORY

``DIRECTORY/<id>.json`` is what ``/v4/<id>/task`` says, read anew for each question. A file that
holds ``"hang"`` or ``"huge"`` makes it do that.
"""

from __future__ import annotations

import http.server
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import vpc
from .vpc import TaskEni

PORT = 80


def task(
    task_id: str, cluster: str, family: str, revision: int, eni: TaskEni, mode: str = "awsvpc"
) -> dict[str, Any]:
    """The answer for one task of two containers, in the shape of platform version 1.4."""
    network = {
        "NetworkMode": mode,
        "IPv4Addresses": [eni.ipv4],
        "AttachmentIndex": 0,
        "MACAddress": eni.mac,
        "IPv4SubnetCIDRBlock": vpc.SUBNET,
        "DomainNameServers": [vpc.RESOLVER],
        "DomainNameSearchList": ["eu-west-1.compute.internal"],
        "PrivateDNSName": f"ip-{eni.ipv4.replace('.', '-')}.eu-west-1.compute.internal",
        "SubnetGatewayIpv4Address": f"{vpc.GATEWAY}/24",
    }
    arn = "arn:aws:ecs:eu-west-1:123456789012"
    return {
        "Cluster": f"{arn}:cluster/{cluster}",
        "TaskARN": f"{arn}:task/{cluster}/{task_id}",
        "Family": family,
        "Revision": str(revision),
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "Limits": {"CPU": 0.25, "Memory": 512},
        "AvailabilityZone": "eu-west-1a",
        "LaunchType": "FARGATE",
        "Containers": [
            {"DockerId": f"{task_id}-{n}", "Name": name, "Type": "NORMAL", "Networks": [network]}
            for n, name in enumerate(("app", "eni53"))
        ],
    }


class _Handler(http.server.BaseHTTPRequestHandler):
    directory = Path()

    def do_GET(self) -> None:
        """``/v4/<id>/task``, or 404."""
        _, version, task_id, what, *rest = [*self.path.split("/"), "", "", ""]
        file = self.directory / f"{task_id}.json"
        if version != "v4" or what != "task" or any(rest) or not file.exists():
            self.send_error(404)
            return
        said = json.loads(file.read_text())
        if said == "hang":
            time.sleep(30)
        body = b"[" * 20_000_000 if said == "huge" else json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(argv: Sequence[str]) -> None:
    """Serve until killed."""
    _Handler.directory = Path(argv[0])
    server = http.server.ThreadingHTTPServer((vpc.ECS_CREDENTIALS, PORT), _Handler)
    server.daemon_threads = True
    (_Handler.directory / "ready").touch()
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
