"""Which ways of wiring containers this node has, and what each of them needs from it.

What is looked at is what the agent itself goes by: devices, addresses, and Docker's containers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .check_caches import local_servers
from .check_item import Item
from .inventory.docker_shapes import DockerContainer
from .inventory.enis import workload_veths
from .inventory.links import Link
from .inventory.names import ECS, is_ecs_pause
from .text import clean

SYS_ADMIN = 21
"""Number of the capability that entering a task's network namespace takes."""

_CNI_VETH = re.compile(r"(?:eni|vlan)[0-9a-f]{11}")
_NODE_CACHE = "169.254.20.10/"
_CILIUM = frozenset({"cilium_host", "cilium_net"})


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is on this node.

    Attributes:
        links: All links of this namespace.
        enis: Indexes of the ENIs among them.
        prefixes: All addresses, with their prefix length.
        containers: Docker's; empty when it does not answer.
        containerd: Path of its socket, or None.
        cgroup2: Whether cgroup v2 is mounted.
    """

    links: Iterable[Link]
    enis: Collection[int]
    prefixes: Collection[str]
    containers: Collection[DockerContainer]
    containerd: str | None
    cgroup2: bool


def wirings(seen: Seen) -> Iterator[Item]:
    """One item for each way that is in use here."""
    found = [item for probe in _PROBES for item in probe(seen)]
    yield from found or [Item("wiring", "info", "no containers: host processes go by their cgroup")]


def _docker(seen: Seen) -> Iterator[Item]:
    tasks = [c for c in seen.containers if f"{ECS}task-arn" in c.labels]
    bridged = [c for c in seen.containers if _has_own_network(c)]
    if bridged:
        named = sum(c in tasks for c in bridged)
        detail = f"bridged containers: {len(bridged)}, of ECS tasks: {named}"
        mend = "" if seen.containerd else "without containerd the shortest-lived stay unnamed"
        yield Item("docker bridge", "ok" if not mend else "info", detail, mend)
    hosted = [c for c in seen.containers if c.network_mode == "host"]
    if hosted:
        detail = f"containers in the host's network: {len(hosted)}, told apart by cgroup"
        mend = "" if seen.cgroup2 else "cgroup v2 is not mounted: all of them are one"
        yield Item("host network", "warn" if mend else "ok", detail, mend)


def _awsvpc(seen: Seen) -> Iterator[Item]:
    pauses = [c for c in seen.containers if is_ecs_pause(c)]
    if not pauses:
        return
    detail = f"ECS tasks with an ENI of their own: {len(pauses)}"
    status = Path("/proc/self/status").read_text()
    capable = int(re.findall(r"^CapEff:\s*(\w+)", status, re.MULTILINE)[0], 16) >> SYS_ADMIN & 1
    visible = all(Path(f"/proc/{c.pid}").exists() for c in pauses if c.pid)
    mend = "" if capable else "their namespaces cannot be entered: CAP_SYS_ADMIN is missing"
    if not visible:
        mend = "their processes cannot be seen: run in the host's pid namespace (pidMode host)"
    yield Item("awsvpc", "warn" if mend else "ok", detail, mend)


def _trunks(seen: Seen) -> Iterator[Item]:
    vlans = [k for k in seen.links if k.kind == "vlan" and k.link in seen.enis]
    if vlans:
        detail = f"branch ENIs here: {len(vlans)}, counted at the trunk they leave by"
        yield Item("trunk", "ok", detail)


def _pods(seen: Seen) -> Iterator[Item]:
    veths = [k for k in workload_veths(seen.links, seen.enis) if _CNI_VETH.fullmatch(k.name)]
    if veths:
        mend = "" if seen.containerd else "pods have no names: mount containerd's socket"
        detail = f"veths of the VPC CNI: {len(veths)}"
        yield Item("vpc cni", "warn" if mend else "ok", detail, mend)
    if any(address.startswith(_NODE_CACHE) for address in seen.prefixes):
        detail = "169.254.20.10 is here: what it answers is no load, what it asks is"
        yield Item("nodelocal dns", "ok", detail)


def _cilium(seen: Seen) -> Iterator[Item]:
    devices = sorted(k.name for k in seen.links if k.name in _CILIUM)
    if devices:
        detail = f"{clean(', '.join(devices))}: packets get no tag of ours"
        mend = "pods are known by their veth; containers within one are not told apart"
        yield Item("cilium", "info", detail, mend)


def _cgroups(seen: Seen) -> Iterator[Item]:
    if not seen.cgroup2:
        detail = "cgroup v1 only: pods and tasks by their veth"
        mend = "containers within one, and processes of the host, are not told apart"
        yield Item("cgroup v1", "warn", detail, mend)


def _has_own_network(container: DockerContainer) -> bool:
    mode = container.network_mode
    return mode not in {"host", "none", ""} and not mode.startswith("container:")


_PROBES: tuple[Callable[[Seen], Iterator[Item]], ...] = (
    _docker,
    _awsvpc,
    _trunks,
    _pods,
    lambda seen: local_servers(cgroup2=seen.cgroup2),
    _cilium,
    _cgroups,
)
