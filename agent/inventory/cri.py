"""A node's pods and containers, from the CRI API (runtime.v1) of containerd or CRI-O.

Every call blocks and belongs in a thread. Names are kept as they come, bounded; `names` makes a
workload of them. The field numbers are those of Kubernetes' public ``api.proto``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar

from ..errors import SourceError
from ..text import clean
from . import pod_eni, protobuf
from .grpc_unix import NOT_FOUND, GrpcClient, GrpcError
from .pod_eni import BranchEni

MAX_ADDRESSES = 64
MAX_INFO = 4 * 1024 * 1024
_SERVICE = "/runtime.v1.RuntimeService/"
_STATES = {0: "created", 1: "running"}  # 2 has exited, 3 is unknown to the runtime itself
_NODE = 2  # of the host's network namespace
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PodSandbox:
    """One pod.

    Attributes:
        ready: Whether its sandbox runs.
        branch_enis: Those it had when its sandbox was made; their ids are whatever was written on
            the pod.
    """

    id: str
    name: str
    namespace: str
    uid: str
    ready: bool
    branch_enis: tuple[BranchEni, ...] = ()


@dataclass(frozen=True, slots=True)
class CriContainer:
    """One container of a pod; *state* is ``created`` or ``running``, *name* its name in the pod."""

    id: str
    pod_id: str
    name: str
    state: str


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """Where a pod is on the network.

    Attributes:
        addresses: Empty for a pod on the host's network, and before and after it has one.
        host_network: Whether it has the host's network namespace.
        pid: Process id of its sandbox, in the runtime's namespace; None when it has none, or the
            runtime does not say.
    """

    addresses: tuple[str, ...]
    host_network: bool
    pid: int | None


class Cri:
    """One CRI runtime. Threads may call at once; all calls fail after `close`."""

    def __init__(self, path: str, timeout_s: float = 5.0) -> None:
        """Connect to nothing yet.

        Args:
            path: Its socket.
            timeout_s: Seconds for each whole answer.
        """
        self._who = f"CRI at {clean(path)}"
        self._client = GrpcClient(path, timeout_s, self._who)

    def pods(self) -> tuple[PodSandbox, ...]:
        """Every pod, also those that have ended and are not yet removed.

        Raises:
            SourceError: The runtime does not answer, or not as CRI does (`GrpcError` with status
                12: it has no CRI). So for every call here.
        """
        answer = self._client.unary(f"{_SERVICE}ListPodSandbox", b"")
        return self._read(lambda: tuple(map(_pod, _items(answer))))

    def containers(self) -> tuple[CriContainer, ...]:
        """Every container that runs or is about to."""
        answer = self._client.unary(f"{_SERVICE}ListContainers", b"")
        found = self._read(lambda: tuple(map(_container, _items(answer))))
        return tuple(container for container in found if container.state)

    def pod_network(self, pod_id: str) -> PodNetwork | None:
        """A pod's addresses and process; None when there is no such pod (any more)."""
        answer = self._status("PodSandboxStatus", pod_id)
        return None if answer is None else self._read(lambda: _network(answer))

    def container_pid(self, container_id: str) -> int | None:
        """Process id of a container's first process; None when it has none (any more)."""
        answer = self._status("ContainerStatus", container_id)
        if answer is None:
            return None
        return self._read(lambda: _pid(protobuf.decode(answer, (2,))))

    def close(self) -> None:
        """End every call, now and from now on; safe from any thread, and twice."""
        self._client.close()

    def _status(self, method: str, object_id: str) -> bytes | None:
        request = protobuf.encode_text(1, object_id) + protobuf.encode_number(2, True)
        try:
            return self._client.unary(f"{_SERVICE}{method}", request)
        except GrpcError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def _read(self, reading: Callable[[], _T]) -> _T:
        try:
            return reading()
        except ValueError as error:
            why = clean(str(error), 100)
            raise SourceError(f"{self._who}: what answers is not CRI: {why}") from None


def _items(answer: bytes) -> list[bytes]:
    return protobuf.messages(protobuf.decode(answer, (1,)), 1)


def _pod(item: bytes) -> PodSandbox:
    fields = protobuf.decode(item, (1, 2, 3, 6))
    written = protobuf.string_map(
        fields, 6, limit=1, first=(pod_eni.ANNOTATION,), max_text=pod_eni.MAX_TEXT
    )
    metadata = protobuf.message(fields, 2)
    return PodSandbox(
        id=_id(fields),
        name=protobuf.text(metadata, 1),
        namespace=protobuf.text(metadata, 3),
        uid=protobuf.text(metadata, 2),
        ready=protobuf.number(fields, 3) == 0,
        branch_enis=pod_eni.parse_pod_eni(written.get(pod_eni.ANNOTATION, "")),
    )


def _container(item: bytes) -> CriContainer:
    fields = protobuf.decode(item, (1, 2, 3, 6))
    return CriContainer(
        id=_id(fields),
        pod_id=protobuf.text(fields, 2),
        name=protobuf.text(protobuf.message(fields, 3), 1),
        state=_STATES.get(protobuf.number(fields, 6), ""),
    )


def _id(fields: protobuf.Fields) -> str:
    found = protobuf.text(fields, 1)
    if not found:
        raise ValueError("a pod or container without an id")
    return found


def _network(answer: bytes) -> PodNetwork:
    fields = protobuf.decode(answer, (1, 2))
    status = protobuf.message(fields, 1, (5, 6))
    network = protobuf.message(status, 5)
    more = (protobuf.decode(one) for one in protobuf.messages(network, 2)[:MAX_ADDRESSES])
    texts = [protobuf.text(network, 1), *(protobuf.text(one, 1) for one in more)]
    options = protobuf.message(protobuf.message(protobuf.message(status, 6), 1), 2)
    return PodNetwork(
        addresses=tuple(str(ip_address(text)) for text in texts if text)[:MAX_ADDRESSES],
        host_network=protobuf.number(options, 1) == _NODE,
        pid=_pid(fields),
    )


def _pid(fields: protobuf.Fields) -> int | None:
    """The pid in a verbose status; None when it is not told where containerd and CRI-O tell it."""
    info = protobuf.string_map(fields, 2, limit=1, first=("info",), max_text=MAX_INFO)
    try:
        found = json.loads(info.get("info", ""), object_pairs_hook=_pid_alone)
    except (ValueError, RecursionError):
        return None
    pid = found.get("pid") if isinstance(found, dict) else None
    return pid if type(pid) is int and pid > 0 else None


def _pid_alone(pairs: list[tuple[str, object]]) -> dict[str, object] | None:
    # A pod's author can put a hundred thousand variables in there, each an object of its own.
    return {key: value for key, value in pairs if key == "pid"} or None
