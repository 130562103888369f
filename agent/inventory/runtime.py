"""Follows the container runtimes, each in a thread: what runs, what ends, and whether they answer.

Runtimes are a convenience: without them every packet is still counted, and named by its cgroup.
Each knows something of its own. containerd knows first, Docker knows names and labels, CRI knows
pods; what they say of one container is put together by `gather`.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ..errors import SourceError
from ..model import Workload
from .containerd import Containerd, TaskEvent, find_socket, kind
from .cri import Cri
from .docker import DEFAULT_SOCKET, DockerClient
from .docker_shapes import DockerContainer
from .grpc_unix import GrpcError
from .names import is_ecs_pause, pod_workload, to_workload
from .pod_eni import BranchEni

_RETRY_S = 3.0
_RELIST_S = 60.0
_NEW_PODS_S = 15.0
_OVERLAP_S = 2.0  # events are asked for from a little before the list, so none falls in between
_PODS = "k8s.io"
_DOCKER = "moby"
_UNIMPLEMENTED = 12  # a containerd without CRI, as dockerd's own


@dataclass(frozen=True, slots=True)
class Seen:
    """What one source says of one container, which may be half of what there is.

    Attributes:
        workload: None when this source does not know the name.
        pid: Of its first process; None when it has none, or the source does not say.
        addresses: Its own IP addresses, as far as the source knows them.
        pause: It holds the network namespace, and so the ENI, of an ECS awsvpc task.
    """

    id: str
    workload: Workload | None = None
    pid: int | None = None
    addresses: tuple[str, ...] = ()
    pause: bool = False


class Listener(Protocol):
    """Who is told; called from the followers' threads."""

    def listed(self, source: str, seen: tuple[Seen, ...]) -> None:
        """These and no others of this source are there now."""

    def seen(self, source: str, seen: Seen) -> None:
        """One has started, or more is known of it."""

    def ended(self, source: str, container_id: str) -> None:
        """One has ended."""

    def branches(self, enis: tuple[BranchEni, ...]) -> None:
        """Branch ENIs as they are written on the pods, by those who may write there."""

    def answered(self, source: str, up: bool, reason: str) -> None:
        """The source answers, or *reason* why it does not."""


class Follower(ABC):
    """A thread that follows one source, and begins again when that fails."""

    name: str

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._stop = threading.Event()
        self._listed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def wait_listed(self, timeout_s: float) -> bool:
        """Wait until the first list was reported or could not be had."""
        return self._listed.wait(timeout_s)

    def stop(self) -> None:
        """End the thread; at most a moment later nothing more is reported."""
        self._stop.set()
        self._close()
        if self._thread.ident is not None:  # a start that failed early never began
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (SourceError, OSError) as error:
                if not self._stop.is_set():
                    self._listener.answered(self.name, False, str(error))
            self._listed.set()
            self._stop.wait(_RETRY_S)

    @abstractmethod
    def _follow(self) -> None:
        """List, report, and follow events until that fails."""

    @abstractmethod
    def _close(self) -> None:
        """Wake up whoever waits for the source."""


class DockerFollower(Follower):
    """Keeps a `Listener` up to date from the Docker API.

    Args:
        socket_path: Empty for the usual place.
        listener: Who is told.
        wall_clock: Seconds since the epoch, as the daemon's own clock tells them.
    """

    name = "docker"

    def __init__(
        self,
        socket_path: str,
        listener: Listener,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(listener)
        self._configured = bool(socket_path)
        self._client = DockerClient(socket_path)
        self._wall_clock = wall_clock

    def _close(self) -> None:
        self._client.close()

    def _follow(self) -> None:
        if not self._configured and not Path(DEFAULT_SOCKET).exists():
            return  # a node without Docker, as all of EKS
        since_s = self._wall_clock() - _OVERLAP_S
        # Docker lists the newest first; of those that share a namespace the oldest made it.
        found = tuple(_of_docker(c) for c in reversed(self._client.containers()) if c.pid)
        self._listener.listed(self.name, found)
        self._listener.answered(self.name, True, "")
        self._listed.set()
        for event in self._client.events(since_s=since_s):
            if event.action == "create":
                # Its name, for one that is gone again before it can be inspected.
                self._listener.seen(self.name, _of_docker(event.about))
            elif event.action == "start":
                container = self._client.inspect(event.id)
                if container is not None:
                    self._listener.seen(self.name, _of_docker(container))
            else:
                self._listener.ended(self.name, event.id)


def _of_docker(container: DockerContainer) -> Seen:
    return Seen(
        container.id,
        to_workload(container),
        container.pid,
        container.addresses,
        is_ecs_pause(container),
    )


class ContainerdFollower(Follower):
    """Keeps a `Listener` up to date from containerd and its CRI: pods by name, others by pid.

    Args:
        socket_path: Empty for the usual places.
        listener: Who is told.
        clock: Monotonic seconds.
    """

    name = "containerd"

    def __init__(
        self, socket_path: str, listener: Listener, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(listener)
        self._configured = socket_path
        self._clock = clock
        self._clients: tuple[Containerd, Cri] | None = None
        self._lock = threading.Lock()
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._new_pods = False
        self._telling = threading.Lock()
        self._meanwhile: dict[str, Seen | None] = {}  # what events said since the list began

    def _close(self) -> None:
        with self._lock:
            for client in self._clients or ():
                client.close()

    def _follow(self) -> None:
        path = self._configured or find_socket()
        if path is None:
            return  # a node without containerd
        containerd, cri = Containerd(path), Cri(path)
        with self._lock:
            self._clients = containerd, cri
        if self._stop.is_set():
            self._close()  # `stop` came before there was anything to close
        over = threading.Event()
        relister = threading.Thread(target=self._relist, args=(containerd, cri, over), daemon=True)
        try:
            events = containerd.events()  # before the list: what comes after it is not missed
            self._list(containerd, cri)
            self._listener.answered(self.name, True, "")
            self._listed.set()
            relister.start()
            for event in events:
                self._take(containerd, event)
        finally:
            over.set()
            containerd.close()
            cri.close()

    def _take(self, containerd: Containerd, event: TaskEvent) -> None:
        if event.topic == "create":
            workload = self._name(containerd, event) if event.namespace == _PODS else None
            self._new_pods = self._new_pods or event.namespace == _PODS
            seen = Seen(event.id, workload, event.pid or None)
            self._tell(event.id, seen)
        elif event.topic in {"exit", "delete"}:
            self._tell(event.id, None)

    def _tell(self, container_id: str, seen: Seen | None) -> None:
        """Say what an event says; None: it has ended."""
        with self._telling:
            self._meanwhile[container_id] = seen
            if seen is not None:
                self._listener.seen(self.name, seen)
            else:
                self._listener.ended(self.name, container_id)

    @staticmethod
    def _name(containerd: Containerd, event: TaskEvent) -> Workload | None:
        labels = containerd.container_labels(event.namespace, event.id)
        if not labels or not labels.get("io.kubernetes.pod.name"):
            return None  # gone, or of no pod: `ctr -n k8s.io run` makes such
        return pod_workload(
            labels.get("io.kubernetes.pod.namespace", ""),
            labels.get("io.kubernetes.pod.name", ""),
            "" if kind(labels) == "sandbox" else labels.get("io.kubernetes.container.name", ""),
        )

    def _list(self, containerd: Containerd, cri: Cri) -> None:
        """Report all there is; pods come before their containers, which live in their namespace."""
        with self._telling:
            self._meanwhile.clear()
        seen = []
        pids = dict(containerd.tasks(_PODS))
        try:
            pods = {pod.id: pod for pod in cri.pods() if pod.ready}
            containers = cri.containers()
        except GrpcError as error:
            if error.status != _UNIMPLEMENTED:
                raise
            pods, containers = {}, ()
        for pod in pods.values():
            if pod.id not in self._addresses:
                network = cri.pod_network(pod.id)
                self._addresses[pod.id] = network.addresses if network else ()
            workload = pod_workload(pod.namespace, pod.name, "")
            addresses = self._addresses[pod.id]
            seen.append(Seen(pod.id, workload, pids.pop(pod.id, None), addresses))
        for gone in self._addresses.keys() - pods.keys():
            del self._addresses[gone]
        for container in containers:
            of = pods.get(container.pod_id)
            if of is not None:
                workload = pod_workload(of.namespace, of.name, container.name)
                pid = pids.pop(container.id, None)
                seen.append(Seen(container.id, workload, pid, self._addresses[of.id]))
        seen += [Seen(container_id, None, pid) for container_id, pid in pids.items()]
        seen += [Seen(i, None, pid) for i, pid in containerd.tasks(_DOCKER).items()]
        with self._telling:
            # Events came from another thread while this list was made. They are newer: it must
            # not end what has begun since, nor bring back what has ended.
            found = {one.id: one for one in seen}
            for container_id, now in self._meanwhile.items():
                if now is None:
                    found.pop(container_id, None)
                else:
                    found[container_id] = replace(found.get(container_id, now), pid=now.pid)
            self._listener.listed(self.name, tuple(found.values()))
        self._listener.branches(tuple(eni for pod in pods.values() for eni in pod.branch_enis))

    def _relist(self, containerd: Containerd, cri: Cri, over: threading.Event) -> None:
        """Now and then the whole truth: addresses of new pods soon, and what was missed."""
        listed_s = self._clock()
        while not over.wait(_NEW_PODS_S):
            if not self._new_pods and self._clock() - listed_s < _RELIST_S:
                continue
            self._new_pods = False
            listed_s = self._clock()
            try:
                self._list(containerd, cri)
            except (SourceError, OSError) as error:
                if over.is_set() or self._stop.is_set():
                    return
                # One that hangs keeps the stream of events open and silent: only this tells.
                self._new_pods = True
                self._listener.answered(self.name, False, str(error))
            else:
                self._listener.answered(self.name, True, "")
