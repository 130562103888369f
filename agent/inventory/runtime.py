"""Follows one container runtime in a thread: what runs, what ends, and whether it answers.

Docker for now. The runtime is a convenience: without it every packet is still counted, and named
by its cgroup.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..errors import SourceError
from .docker import DockerClient
from .docker_shapes import DockerContainer

_RETRY_S = 3.0
_OVERLAP_S = 2.0  # events are asked for from a little before the list, so none falls in between


class Listener(Protocol):
    """Who is told; called from the follower's thread."""

    def listed(self, containers: tuple[DockerContainer, ...]) -> None:
        """These and no others are there now."""

    def started(self, container: DockerContainer) -> None:
        """One has started."""

    def ended(self, container_id: str) -> None:
        """One has ended."""

    def answered(self, up: bool, reason: str) -> None:
        """The runtime answers, or *reason* why it does not."""


class DockerFollower:
    """Keeps a `Listener` up to date from the Docker API.

    Args:
        socket_path: Empty for the usual place.
        listener: Who is told.
        wall_clock: Seconds since the epoch, as the daemon's own clock tells them.
    """

    def __init__(
        self,
        socket_path: str,
        listener: Listener,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = DockerClient(socket_path)
        self._listener = listener
        self._wall_clock = wall_clock
        self._stop = threading.Event()
        self._listed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="docker", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def wait_listed(self, timeout_s: float) -> bool:
        """Wait until the first list was reported or could not be had."""
        return self._listed.wait(timeout_s)

    def stop(self) -> None:
        """End the thread; at most a moment later nothing more is reported."""
        self._stop.set()
        self._client.close()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (SourceError, OSError) as error:
                self._listener.answered(False, str(error))
            self._listed.set()
            self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        since_s = self._wall_clock() - _OVERLAP_S
        self._listener.listed(self._client.containers())
        self._listener.answered(True, "")
        self._listed.set()
        for event in self._client.events(since_s=since_s):
            if event.action == "start":
                container = self._client.inspect(event.id)
                if container is not None and container.pid:
                    self._listener.started(container)
            else:
                self._listener.ended(event.id)
