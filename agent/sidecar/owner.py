"""Whose the packets are: everything in a task's network namespace is the task's."""

from __future__ import annotations

import socket
from dataclasses import replace

from ..inventory.names import MAX_PART
from ..inventory.workloads import Owner, Workloads
from ..model import Workload
from ..text import clean


class OneTask(Workloads):
    """An inventory with one workload in it.

    Until the task's name is known, packets are charged to whatever has this host name: it is all
    that can be said, and they are nobody else's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._owner = Owner(Workload("container", workload=clean(socket.gethostname(), MAX_PART)))

    def learn(self, workload: Workload) -> None:
        """The task's name; what was charged before stays where it is."""
        self._owner = Owner(workload)

    def of_eni(self, place: tuple[int, int], cgroup_id: int) -> Owner | None:
        """The same whoever asks."""
        return self._owner

    def is_running(self, workload: Workload) -> bool:
        """Whether it is the one that counts now."""
        return replace(workload, container="") == self._owner.workload
