"""The cgroup v2 tree: from the id the kernel counts by to a path, and from a path to a name.

A cgroup id is the inode of its directory. The tree is found by its mount, so it works on pure v2
(``/sys/fs/cgroup``) and on hybrid machines (``/sys/fs/cgroup/unified``) alike.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

from ..model import Workload

CONTAINER_ID = re.compile(r"(?:^|[-:/])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
"""A container's id in its cgroup path: ``docker-<id>.scope``, ``cri-containerd-<id>.scope``,
``<id>``."""

_UNITS = (".service", ".scope", ".mount", ".socket")
_PASSING = re.compile(r"session-[^/]+\.scope|run-[^/]+\.(?:scope|service)")
_WALK_EVERY_S = 1.0
_MAX_CGROUPS = 50_000
_MAX_GONE = 1024


def find_root(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path | None:
    """Where cgroup v2 is mounted, or None on a machine that has only v1."""
    try:
        lines = mountinfo.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


class CgroupTree:
    """Looks cgroups up under *root*, and remembers what it found.

    Args:
        root: Mount point of cgroup v2; None when there is none: then nothing is ever found.
        clock: Monotonic seconds.
        proc: Where procfs is mounted.
    """

    def __init__(
        self,
        root: Path | None,
        clock: Callable[[], float] = time.monotonic,
        proc: Path = Path("/proc"),
    ) -> None:
        self._root = root
        self._proc = proc
        self._clock = clock
        self._paths: dict[int, str] = {}
        self._walked_at = -_WALK_EVERY_S

    @property
    def available(self) -> bool:
        """Whether this machine has cgroup v2 at all."""
        return self._root is not None

    def path_of(self, cgroup_id: int) -> str | None:
        """Path of a cgroup, ``/`` being the root; None when it is not, or no longer, there.

        An unknown id costs a walk of the tree, so that is done at most once a second.
        """
        if cgroup_id not in self._paths and self._clock() - self._walked_at >= _WALK_EVERY_S:
            self._walk()
        return self._paths.get(cgroup_id)

    def id_of(self, path: str) -> int | None:
        """Id of the cgroup at *path*; None when it is not there."""
        if self._root is None:
            return None
        try:
            inode = (self._root / path.lstrip("/")).stat().st_ino
        except OSError:
            return None
        self._paths[inode] = path
        return inode

    def of_container(self, container_id: str, pid: int | None) -> tuple[str, int] | None:
        """(path, id) of a container's cgroup.

        From ``/proc/PID/cgroup`` where that can be believed: inside a private cgroup namespace it
        is relative (``/../..``), and then the id is looked for in the tree.
        """
        path = _unified_path(pid, self._proc) if pid else None
        if path is not None and container_id in path and "/.." not in path:
            inode = self.id_of(path)
            if inode is not None:
                return path, inode
        self._walk()
        for inode, known in list(self._paths.items()):  # another thread may walk
            if container_id in known.rpartition("/")[2]:
                return known, inode
        return None

    def exists(self, cgroup_id: int) -> bool:
        """Whether it is there now; `path_of` remembers also what is gone."""
        path = self.path_of(cgroup_id)
        return path is not None and self.id_of(path) == cgroup_id

    def containers(self) -> dict[str, int]:
        """Id and a process of each container that has one, by the names of their cgroups alone."""
        self._walk()
        found: dict[str, int] = {}
        for path in sorted(self._paths.values()):  # a container's own before those below it
            match = CONTAINER_ID.search(path)
            if match is None or match[1] in found or self._root is None:
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):  # gone, or nobody in it
                found[match[1]] = int(
                    (self._root / path[1:] / "cgroup.procs").read_text().split()[0]
                )
        return found

    def _walk(self) -> None:
        self._walked_at = self._clock()
        if self._root is None:
            return
        found: dict[int, str] = {}
        for path, inode in self._directories():
            found[inode] = path
            if len(found) >= _MAX_CGROUPS:
                break
        # What has gone keeps its path: its packets may not have been reported yet. An inode
        # number is not used again while the machine runs, so an old path is never a wrong one.
        gone = [(inode, path) for inode, path in list(self._paths.items()) if inode not in found]
        self._paths = dict(gone[-_MAX_GONE:]) | found

    def _directories(self) -> Iterator[tuple[str, int]]:
        assert self._root is not None  # noqa: S101
        try:
            yield "/", self._root.stat().st_ino
        except OSError:
            return
        stack = [(str(self._root), "")]
        while stack:
            directory, path = stack.pop()
            try:
                with os.scandir(directory) as entries:
                    below = [e for e in entries if e.is_dir(follow_symlinks=False)]
            except OSError:
                continue  # it ended while we looked
            for entry in below:
                yield f"{path}/{entry.name}", entry.inode()
                stack.append((entry.path, f"{path}/{entry.name}"))


def _unified_path(pid: int, proc: Path) -> str | None:
    try:
        text = (proc / str(pid) / "cgroup").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return None


def workload_of_path(path: str) -> Workload:
    """Who a cgroup is, when no runtime says more.

    A container by the short id that ``docker ps`` shows, a systemd unit by its name, anything
    else by its whole path. Units that come and go with a login or a command count as their slice:
    each would be a series that never comes back.
    """
    match = CONTAINER_ID.search(path)
    if match:
        return Workload("container", workload=match[1][:12])
    parts = [part for part in path.split("/") if part]
    lasting = list(takewhile(lambda part: not _PASSING.fullmatch(part), parts))
    units = [part for part in lasting if part.endswith(_UNITS)]
    if not units and len(lasting) < len(parts):
        units = lasting
    return Workload("host", workload=units[-1] if units else path)
