"""Where cgroups are mounted, and how a lab removes its own. Version 1, 2 and hybrid."""

from __future__ import annotations

import errno
import time
from pathlib import Path

from .processes import start_time


def roots() -> list[Path]:
    """Every mounted hierarchy; on a pure version 2 machine there is one."""
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(point) for _, point, kind, *_ in lines if kind in ("cgroup", "cgroup2")]


def unified() -> Path:
    """The version 2 hierarchy: its inode numbers are the kernel's cgroup ids."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(point)
    raise FileNotFoundError("no cgroup2 hierarchy is mounted")


def everywhere(cgroup: str) -> list[Path]:
    """The directory of *cgroup* ("/a/b") in every hierarchy, whether there or not."""
    return [root / cgroup.lstrip("/") for root in roots()]


def remove(cgroup: str) -> None:
    """Remove *cgroup* ("/a/b") and what is below it, where empty of processes."""
    if not cgroup.strip("/"):
        return
    for top in everywhere(cgroup):
        below = [path for path in top.rglob("*") if path.is_dir()]
        for path in [*reversed(below), top]:
            _rmdir(path)


def _rmdir(path: Path) -> None:
    """Remove *path*; a process that was just killed keeps it busy for some milliseconds."""
    for _ in range(50):
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or _has_living(path):
                return
            time.sleep(0.01)
        else:
            return


def _has_living(path: Path) -> bool:
    """Whether anything but a process on its way out is in the cgroup at *path*."""
    try:
        pids = (path / "cgroup.procs").read_text().split()
    except OSError:
        return False
    return any(start_time(int(pid)) is not None for pid in pids)
