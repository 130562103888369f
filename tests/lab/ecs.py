"""What the ECS agent and the VPC CNI know of the lab's node, as introspection.py serves it."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import image, vpc
from .containers import Container
from .shell import LabError
from .vpc import Eni, TaskEni

ECS_PORT, CNI_PORT = 51678, 61679
SERVERS = ("ecs", "cni")
MODES = ("ok", "hang", "503", "garbage", "truncated", "huge")
_LABEL = "com.amazonaws.ecs."
_NEVER = "0001-01-01T00:00:00Z"


class Introspection:
    """The state of both servers: one file, which introspection.py reads at each request.

    Attributes:
        tasks: What /v1/tasks lists, in AWS's own words. After a change by hand: write().
    """

    def __init__(self, path: Path, enis: Sequence[Eni]) -> None:
        self.path = path
        self.tasks: list[dict[str, Any]] = []
        self._enis = enis
        self._task_enis: dict[str, TaskEni] = {}
        self._pods: dict[str, tuple[str, dict[str, Any]]] = {}
        self._prefixes: dict[str, str] = {}
        self._modes = dict.fromkeys(SERVERS, "ok")
        self._old_shape = False

    def set_mode(self, mode: str, *, server: str | None = None) -> None:
        """Make ``ecs``, ``cni`` or both go on in *mode*.

        ``ok``; ``hang`` (takes the request, never answers); ``503``; ``garbage`` (200 and no JSON);
        ``truncated`` (half of what its Content-Length says); ``huge`` (a body without an end).
        """
        if mode not in MODES or server not in (None, *SERVERS):
            raise LabError(f"modes are {', '.join(MODES)}; servers {', '.join(SERVERS)}")
        self._modes |= dict.fromkeys(SERVERS if server is None else [server], mode)
        self.write()

    def set_cni_shape(self, *, old: bool) -> None:
        """Whether /v1/enis is that of older CNIs, which did not sort ENIs by network card."""
        self._old_shape = old
        self.write()

    def plugged(self, task_id: str, eni: TaskEni) -> None:
        """From now on, containers of this task show the addresses of *eni*."""
        self._task_enis[task_id] = eni

    def started(self, container: Container, labels: Mapping[str, str]) -> None:
        """List *container*, unless it is one of ECS's own: the agent never tells of these."""
        name = labels[_LABEL + "container-name"]
        if name.startswith("~internal~"):
            return
        now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        entry: dict[str, Any] = {
            "DockerId": container.id,
            "DockerName": container.name,
            "Name": name,
            "Image": image.NAME,
            "ImageID": "sha256:" + hashlib.sha256(image.NAME.encode()).hexdigest(),
            "CreatedAt": now,
            "StartedAt": now,
        }
        eni = self._task_enis.get(container.task_id or "")
        if eni is not None:
            network = {"NetworkMode": "awsvpc", "IPv4Addresses": [eni.ipv4]}
            entry["Networks"] = [network | {"IPv6Addresses": [eni.ipv6]}]
        self._task(labels)["Containers"].append(entry)
        self.write()

    def stopped(self, task_id: str, *, wanted: bool) -> None:
        """Show a task as STOPPED; the agent lists it for hours. One it does not know is fine.

        When nobody *wanted* it to stop, the agent leaves DesiredStatus out.
        """
        for task in self._of(task_id):
            task["KnownStatus"] = "STOPPED"
            task["DesiredStatus"] = "STOPPED"
            if not wanted:
                del task["DesiredStatus"]
        self.write()

    def forget(self, task_id: str) -> None:
        """List a task no more."""
        gone = self._of(task_id)
        self.tasks = [task for task in self.tasks if task not in gone]
        self.write()

    def add_pod_ip(
        self, eni: Eni, ipv4: str, namespace: str, pod: str, *, prefix: str | None = None
    ) -> None:
        """Let the CNI say that *pod* has *ipv4* of *eni*, out of a *prefix* (a /28) if given."""
        cidr = f"{ipv4}/32" if prefix is None else prefix
        if prefix is not None:
            self._prefixes[prefix] = eni.eni_id
        address = {
            "Address": ipv4,
            # Newer CNIs clear the sandbox's id here.
            "IPAMKey": {"networkName": "aws-cni", "containerID": "", "ifName": ""},
            "IPAMMetadata": {"k8sPodNamespace": namespace, "k8sPodName": pod},
            "AssignedTime": datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z"),
            "UnassignedTime": _NEVER,
        }
        self._pods[ipv4] = (eni.eni_id, {"cidr": cidr, "address": address})
        self.write()

    def remove_pod_ip(self, ipv4: str) -> None:
        """Let the CNI say nothing of *ipv4*."""
        self._pods.pop(ipv4, None)
        self.write()

    def write(self) -> None:
        """Write the file, whole: a request never sees half of it."""
        if not self.path.parent.is_dir():
            return  # The lab is down.
        metadata = {
            "Cluster": "prod",
            "ContainerInstanceArn": "arn:aws:ecs:eu-west-1:123456789012:container-instance/prod/"
            + hashlib.sha256(vpc.INSTANCE_ID.encode()).hexdigest()[:32],
            "Version": "Amazon ECS Agent - v1.105.1 (8dfceca)",
        }
        card = self._card()
        state = {
            "ecs": {"mode": self._modes["ecs"], "metadata": metadata, "tasks": self.tasks},
            "cni": {"mode": self._modes["cni"], "enis": card if self._old_shape else {"0": card}},
        }
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(self.path)

    def _task(self, labels: Mapping[str, str]) -> dict[str, Any]:
        arn = labels[_LABEL + "task-arn"]
        for task in self.tasks:
            if task["Arn"] == arn:
                return task
        new: dict[str, Any] = {
            "Arn": arn,
            "DesiredStatus": "RUNNING",
            "KnownStatus": "RUNNING",
            "Family": labels[_LABEL + "task-definition-family"],
            "Version": labels[_LABEL + "task-definition-version"],
            "Containers": [],
        }
        self.tasks.append(new)
        return new

    def _of(self, task_id: str) -> list[dict[str, Any]]:
        return [task for task in self.tasks if task["Arn"].endswith("/" + task_id)]

    def _card(self) -> dict[str, Any]:
        """The ENIs of network card 0."""
        enis = {eni.eni_id: self._eni(eni) for eni in self._enis}
        cidrs = [cidr for eni in enis.values() for cidr in eni["AvailableIPv4Cidrs"].values()]
        return {
            "TotalIPs": sum(16 if cidr["IsPrefix"] else 1 for cidr in cidrs),
            "AssignedIPs": sum(len(cidr["IPAddresses"]) for cidr in cidrs),
            "ENIs": enis,
        }

    def _eni(self, eni: Eni) -> dict[str, Any]:
        cidrs = {cidr: _cidr(cidr) for cidr, owner in self._prefixes.items() if owner == eni.eni_id}
        for ipv4, (owner, held) in self._pods.items():
            if owner == eni.eni_id:
                cidr = cidrs.setdefault(held["cidr"], _cidr(held["cidr"]))
                cidr["IPAddresses"][ipv4] = held["address"]
        return {
            "ID": eni.eni_id,
            "IsPrimary": eni.device_number == 0,
            "IsTrunk": False,
            "IsEFA": False,
            "DeviceNumber": eni.device_number,
            "AvailableIPv4Cidrs": cidrs,
            "IPv6Cidrs": {},
            "IsExcludedForPodIPs": False,
            "RouteTableID": 254 if eni.table is None else eni.table,
            "SubnetID": vpc.SUBNET_ID,
        }


def _cidr(cidr: str) -> dict[str, Any]:
    base, _, bits = cidr.partition("/")
    mask = {"32": "/////w==", "28": "////8A=="}[bits]
    return {
        "Cidr": {"IP": base, "Mask": mask},
        "IPAddresses": {},
        "IsPrefix": bits != "32",
        "AddressFamily": "4",
    }
