"""The task metadata endpoint, version 4: which task we are in, and what its network is.

It is the platform's, reached over a link of its own (169.254.170.2) that is no part of the ENI. It
may be down or slow, and what it says is cleaned all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from ..errors import SourceError
from ..inventory.docker_shapes import member
from ..inventory.local_http import asking
from ..inventory.names import ecs_workload
from ..model import Workload
from ..text import clean

VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"
_SERVICE = "task metadata"
_MAX_CONTAINERS = 64
_MAX_NETWORKS = 16
_MAX_NAMES = 8


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What it says.

    Attributes:
        workload: The task; packets cannot tell its containers apart, so ``container`` is empty.
        modes: Network modes of its containers: ``awsvpc`` where the ENI is the task's own.
        prefixes: IPv4 blocks of the subnets its ENIs are in.
        nameservers: What the platform gave it to ask.
    """

    workload: Workload
    modes: frozenset[str]
    prefixes: tuple[str, ...]
    nameservers: tuple[str, ...]


def lookup(url: str, timeout_s: float = 2.0) -> TaskFacts:
    """Ask, and wait for an answer.

    Args:
        url: What `VARIABLE` says.
        timeout_s: Seconds for connecting, and again for the whole answer.

    Raises:
        SourceError: No answer in time, or not a task.
    """
    with asking(_SERVICE, url, timeout_s) as get:
        answer = get("/task")
    try:
        return facts(answer)
    except ValueError as error:
        raise SourceError(f"{_SERVICE} at {clean(url)}: not a task: {clean(str(error))}") from None


def facts(answer: object) -> TaskFacts:
    """What the JSON of ``/task`` says; a network that makes no sense is left out.

    Raises:
        ValueError: It describes no task.
    """
    arn = member(answer, "TaskARN", str)
    if not arn:
        raise ValueError("no TaskARN")
    texts = (member(answer, name, str) for name in ("Cluster", "Family", "Revision"))
    cluster, family, revision = texts
    networks = list(_networks(answer))
    return TaskFacts(
        ecs_workload(arn, cluster, family, revision, ""),
        frozenset(clean(str(n.get("NetworkMode", "")), 32) for n in networks),
        tuple(dict.fromkeys(p for n in networks for p in _prefix(n))),
        tuple(dict.fromkeys(a for n in networks for a in _addresses(n)))[:_MAX_NAMES],
    )


def _networks(answer: object) -> Iterator[Mapping[str, Any]]:
    try:
        containers = member(answer, "Containers", list)
    except ValueError:
        return
    for container in containers[:_MAX_CONTAINERS]:
        networks = container.get("Networks") if isinstance(container, dict) else None
        for network in networks[:_MAX_NETWORKS] if isinstance(networks, list) else ():
            if isinstance(network, dict):
                yield network


def _prefix(network: Mapping[str, Any]) -> Iterator[str]:
    text = network.get("IPv4SubnetCIDRBlock")
    try:
        if isinstance(text, str):
            yield str(IPv4Network(text, strict=False))
    except ValueError:
        return


def _addresses(network: Mapping[str, Any]) -> Iterator[str]:
    servers = network.get("DomainNameServers")
    for server in servers[:_MAX_NAMES] if isinstance(servers, list) else ():
        try:
            if isinstance(server, str):
                yield str(IPv4Address(server))
        except ValueError:
            continue
