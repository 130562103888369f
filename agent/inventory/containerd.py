"""containerd's own API: which tasks run, what a container is, and what happens to tasks.

It says a few milliseconds before a container's program starts that it will; neither CRI nor Docker
do. dockerd's containers are in its namespace ``moby``, those of pods in ``k8s.io``. Every call
blocks and belongs in a thread. The field numbers are those of containerd's public ``.proto`` files.
"""

from __future__ import annotations

import contextlib
import functools
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from ..errors import SourceError
from ..text import clean
from . import protobuf
from .grpc_unix import NOT_FOUND, GrpcClient, GrpcError
from .names import NAMING_LABELS

DEFAULT_SOCKETS = (
    "/run/containerd/containerd.sock",
    "/var/run/docker/containerd/containerd.sock",  # of a dockerd that starts its own
)
NAMESPACES = ("k8s.io", "moby")
KIND_LABEL = "io.cri-containerd.kind"
MAX_LABELS = 64
_SERVICES = "/containerd.services."
_LIVING = frozenset({1, 2, 4, 5})  # created, running, paused, pausing; 0 is unknown, 3 has stopped
_TOPICS = {"/tasks/create": 6, "/tasks/start": 2, "/tasks/exit": 3, "/tasks/delete": 2}
"""Where each event has its pid. The container's id is field 1 in all of them."""
_PROCESS = {"/tasks/exit": 2, "/tasks/delete": 5}
"""Where an event says which of the container's processes it is about."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something that happened to a container's first process.

    Attributes:
        namespace: containerd's, not the pod's.
        topic: ``create`` (its pid and network are there, its program is not), ``start``, ``exit``
            or ``delete``.
        id: The container's.
        pid: In containerd's namespace; 0 when the event does not say.
    """

    namespace: str
    topic: str
    id: str
    pid: int


def find_socket(candidates: Iterable[str] = DEFAULT_SOCKETS) -> str | None:
    """The first of *candidates* that is a socket; None when none is. Whether it answers is open."""
    for path in candidates:
        try:
            if stat.S_ISSOCK(Path(path).stat().st_mode):
                return path
        except (OSError, ValueError):
            continue
    return None


def kind(labels: Mapping[str, str]) -> str:
    """What a container of ``k8s.io`` is: ``sandbox``, ``container``, or empty when nobody says."""
    found = labels.get(KIND_LABEL, "")
    return found if found in ("sandbox", "container") else ""


class Containerd:
    """One containerd. Threads may call at once; after `close` all calls fail and events end."""

    def __init__(self, path: str, timeout_s: float = 5.0) -> None:
        """Connect to nothing yet.

        Args:
            path: Its socket.
            timeout_s: Seconds for each whole answer. The event stream may stay silent for ever.
        """
        self._who = f"containerd at {clean(path)}"
        self._client = GrpcClient(path, timeout_s, self._who)

    def version(self) -> str:
        """Its version, such as ``1.6.20``.

        Raises:
            SourceError: It does not answer, or not as containerd does. So for every call here.
        """
        answer = self._client.unary(f"{_SERVICES}version.v1.Version/Version", b"")
        return clean(self._read(lambda: protobuf.text(protobuf.decode(answer), 1)))

    def tasks(self, namespace: str) -> Mapping[str, int]:
        """Container id and pid of every task that has not ended; empty for a namespace unknown."""
        answer = self._client.unary(
            f"{_SERVICES}tasks.v1.Tasks/List", b"", [("containerd-namespace", namespace)]
        )
        return self._read(lambda: _tasks(answer))

    def container_labels(self, namespace: str, container_id: str) -> Mapping[str, str] | None:
        """A container's labels; None when there is no such container (any more).

        At most 64, and those that name a workload are never the ones left out.
        """
        try:
            answer = self._client.unary(
                f"{_SERVICES}containers.v1.Containers/Get",
                protobuf.encode_text(1, container_id),
                [("containerd-namespace", namespace)],
            )
        except GrpcError as error:
            if error.status == NOT_FOUND:
                return None
            raise
        return self._read(lambda: _labels(answer))

    def events(self, namespaces: Iterable[str] = NAMESPACES) -> Iterator[TaskEvent]:
        """Tasks as they come and go, until `close`.

        When this returns, containerd has read the request: list after it and before the first item.
        It keeps no past events.

        Raises:
            SourceError: Here or later; also when containerd ends the stream: ask again, list again.
        """
        filters = [f'namespace=="{namespace}",topic~="^/tasks/"' for namespace in namespaces]
        messages = self._client.stream(
            f"{_SERVICES}events.v1.Events/Subscribe", protobuf.encode_texts(1, filters)
        )
        return self._events(messages)

    def close(self) -> None:
        """End every call and stream, now and from now on; safe from any thread, and twice."""
        self._client.close()

    def _events(self, messages: Generator[bytes, None, None]) -> Iterator[TaskEvent]:
        with contextlib.closing(messages):  # not when an error's last holder lets go of it
            for envelope in messages:
                event = self._read(functools.partial(_event, envelope))
                if event is not None:
                    yield event

    def _read(self, reading: Callable[[], _T]) -> _T:
        try:
            return reading()
        except ValueError as error:
            why = clean(str(error), 100)
            raise SourceError(f"{self._who}: what answers is not containerd: {why}") from None


def _tasks(answer: bytes) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for item in protobuf.messages(protobuf.decode(answer, (1,)), 1):
        task = protobuf.decode(item, (1, 2, 3, 4))
        # Field 2 is the process, which for a task is the container; 1.6 to 2.x leave field 1 empty.
        container_id = protobuf.text(task, 1) or protobuf.text(task, 2)
        pid = protobuf.number(task, 3)
        if not container_id:
            raise ValueError("a task without an id")
        if protobuf.number(task, 4) in _LIVING and pid:
            found[container_id] = pid
    return MappingProxyType(found)


def _labels(answer: bytes) -> Mapping[str, str]:
    container = protobuf.message(protobuf.decode(answer, (1,)), 1, (2,))
    # Ours first: an image may bring labels of its own, and a hundred of them must not hide a pod.
    first = NAMING_LABELS | {KIND_LABEL}
    return MappingProxyType(protobuf.string_map(container, 2, limit=MAX_LABELS, first=first))


def _event(envelope: bytes) -> TaskEvent | None:
    """What an envelope holds; None for other topics, and for processes exec'ed in a container."""
    fields = protobuf.decode(envelope, (2, 3, 4))
    topic = protobuf.text(fields, 3)
    if topic not in _TOPICS:
        return None
    event = protobuf.message(protobuf.message(fields, 4, (2,)), 2)
    container_id = protobuf.text(event, 1)
    if not container_id:
        raise ValueError("an event without an id")
    process = protobuf.text(event, _PROCESS[topic]) if topic in _PROCESS else ""
    if process not in ("", container_id):
        return None
    return TaskEvent(
        namespace=protobuf.text(fields, 2),
        topic=topic.removeprefix("/tasks/"),
        id=container_id,
        pid=protobuf.number(event, _TOPICS[topic]),
    )
