"""Docker's JSON as frozen values. Pure: `docker` fetches it, `names` says what it means.

Whoever starts a container chooses its name and labels; they are kept as they are, but no longer
and no more of them than an agent can hold for a node full of containers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import TypeVar

from .names import NAMING_LABELS

MAX_TEXT = 1024
MAX_LABELS = 64
MAX_ADDRESSES = 64
ACTIONS = ("create", "start", "die", "destroy")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DockerContainer:
    """One container.

    Attributes:
        pid: Process id of its first process, in the daemon's namespace; None when it has none.
        network_mode: ``default``, ``host``, ``none``, ``container:<id>``, or a network's name.
        labels: At most 64; those that name a workload are never the ones left out.
        cgroup_parent: Empty for Docker's default.
        addresses: IPv4 and IPv6 of each network; empty when Docker assigned none.
        started: Whether it runs now.
    """

    id: str
    name: str
    pid: int | None
    network_mode: str
    labels: Mapping[str, str]
    cgroup_parent: str
    addresses: tuple[str, ...]
    started: bool


@dataclass(frozen=True, slots=True)
class DockerEvent:
    """Something that happened to a container.

    Attributes:
        action: ``create``, ``start``, ``die`` or ``destroy``.
        about: What the event itself says of it: name and labels, no pid.
    """

    action: str
    id: str
    about: DockerContainer


def shaped(value: object, kind: type[_T]) -> _T:
    """*value*, if it is a *kind*.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{type(value).__name__} instead of {kind.__name__}")
    return value


def member(value: object, key: str, kind: type[_T]) -> _T:
    """``value[key]`` as a *kind*; absent and null are the kind's empty value.

    Raises:
        ValueError: *value* is no object, or holds something else.
    """
    found = shaped(value, dict).get(key)
    return kind() if found is None else shaped(found, kind)


def to_container(facts: object) -> DockerContainer:
    """The answer of ``/containers/<id>/json``.

    Raises:
        ValueError: It has another shape.
    """
    state, host = member(facts, "State", dict), member(facts, "HostConfig", dict)
    networks = member(member(facts, "NetworkSettings", dict), "Networks", dict)
    container_id = member(facts, "Id", str)
    if not container_id:
        raise ValueError("a container without an id")
    pid = member(state, "Pid", int)
    return DockerContainer(
        id=container_id[:MAX_TEXT],
        name=member(facts, "Name", str)[:MAX_TEXT],
        pid=int(pid) if pid > 0 else None,
        network_mode=member(host, "NetworkMode", str)[:MAX_TEXT],
        labels=_labels(member(member(facts, "Config", dict), "Labels", dict)),
        cgroup_parent=member(host, "CgroupParent", str)[:MAX_TEXT],
        addresses=_addresses(networks),
        started=member(state, "Running", bool),
    )


def _labels(labels: dict[str, object]) -> Mapping[str, str]:
    # Ours first: a hundred labels of its own must not let a container shed its task's name.
    keys = sorted(labels, key=lambda key: key not in NAMING_LABELS)[:MAX_LABELS]
    return MappingProxyType({key[:MAX_TEXT]: member(labels, key, str)[:MAX_TEXT] for key in keys})


def _addresses(networks: dict[str, object]) -> tuple[str, ...]:
    texts = [
        member(network, key, str)
        for network in networks.values()
        for key in ("IPAddress", "GlobalIPv6Address")
    ]
    return tuple(str(ip_address(text)) for text in texts if text)[:MAX_ADDRESSES]


def to_event(facts: object) -> DockerEvent | None:
    """One line of ``/events``; None for what is not an action of `ACTIONS` on a container.

    Raises:
        ValueError: It has another shape.
    """
    action, actor = member(facts, "Action", str), member(facts, "Actor", dict)
    if member(facts, "Type", str) != "container" or action not in ACTIONS:
        return None
    container_id = member(actor, "ID", str)[:MAX_TEXT]
    attributes = member(actor, "Attributes", dict)  # its labels, with `name` and `image` among them
    about = DockerContainer(
        id=container_id,
        name=member(attributes, "name", str)[:MAX_TEXT],
        pid=None,
        network_mode="",
        labels=_labels(attributes),
        cgroup_parent="",
        addresses=(),
        started=action == "start",
    )
    return DockerEvent(action, container_id, about)
