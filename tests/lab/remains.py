"""What a lab leaves on the machine: who owns it, and how all of it goes away.

A lab is one directory under /run/eni53-lab, one name prefix for namespaces, one mark on processes.
The owner's pid and start time are in state.json before anything else exists, so a lab killed at any
moment can be told from a living one and swept by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from . import cgroups
from .processes import alive, end_marked, start_time
from .shell import LabError, run

BASE = Path("/run/eni53-lab")
# What CNI remembers of each pod, in files; the place is compiled into containerd.
_CNI_RESULTS = Path("/var/lib/cni/results")
# Daemons make these outside the lab's directory, whatever they are told.
_SIDE_EFFECTS = (
    Path("/run/containerd/s"),
    Path("/run/containerd"),
    Path("/run/docker/plugins"),
    Path("/run/docker"),
    Path("/run/mount"),
    _CNI_RESULTS,
    _CNI_RESULTS.parent,
    Path("/etc/docker/key.json"),
)


def prefix(lab_id: str) -> str:
    """How the names of the lab's namespaces begin."""
    return f"eni53-{lab_id}-"


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the machine-wide lock of all labs: the base directory itself, so no file is left."""
    while True:
        BASE.mkdir(exist_ok=True)
        fd = os.open(BASE, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            # The last lab may have removed it while we waited.
            if not BASE.exists() or os.fstat(fd).st_ino != BASE.stat().st_ino:
                continue
            try:
                yield
            finally:
                # Under the lock, or a lab that is just being claimed would lose its base.
                with contextlib.suppress(OSError):
                    BASE.rmdir()
            return
        finally:
            os.close(fd)


def claim(lab_id: str) -> Path:
    """Make the directory of lab *lab_id*, owned by this process. Call it under the lock."""
    directory = BASE / lab_id
    if directory.exists():
        raise LabError(f"a lab named {lab_id} is up already")
    for path in (*_SIDE_EFFECTS, *cgroups.everywhere("/docker"), *cgroups.everywhere("/ecs")):
        if not path.exists():
            _note(path)
    directory.mkdir(mode=0o755)
    state = {"id": lab_id, "pid": os.getpid(), "start": start_time(os.getpid())}
    (directory / "state.json").write_text(json.dumps(state))
    return directory


def note_cgroup(lab_id: str, cgroup: str) -> None:
    """Write down that *cgroup* ("/a/b") is about to be made, so that it is removed at the end."""
    with locked():
        for parent in Path(cgroup).parents[:-1]:
            for path in cgroups.everywhere(str(parent)):
                if not path.exists():
                    _note(path)
        # One that is there is listed already, or it is not ours to remove.
        if not any(path.exists() for path in cgroups.everywhere(cgroup)):
            with (BASE / lab_id / "cgroups").open("a") as out:
                out.write(cgroup + "\n")


def owned_by_living(directory: Path) -> bool:
    """Whether the process that made the lab in *directory* still runs."""
    try:
        state = json.loads((directory / "state.json").read_text())
        return alive(state["pid"], state["start"])
    except (FileNotFoundError, ValueError, KeyError):
        return False


def labs() -> list[Path]:
    """The directories of all labs, dead ones too."""
    if not BASE.exists():
        return []
    return sorted(path for path in BASE.iterdir() if path.is_dir())


def sweep() -> list[str]:
    """Remove every lab whose owner is dead; the ids of those. Call it under the lock."""
    dead = [path for path in labs() if not owned_by_living(path)]
    for directory in dead:
        clear(directory.name)
    return [directory.name for directory in dead]


def clear(lab_id: str) -> None:
    """Remove all of lab *lab_id*, in whatever state it is. Call it under the lock."""
    directory = BASE / lab_id
    end_marked(lab_id)
    _unmount(directory)
    for name in namespaces(lab_id):
        run(["ip", "netns", "delete", name], check=False)
    _remove_cgroups(directory)
    _remove_cni_results(directory)
    shutil.rmtree(directory, ignore_errors=True)
    if not labs():
        _remove_noted()


def namespaces(lab_id: str) -> list[str]:
    """The names of the lab's namespaces that exist."""
    base = Path("/run/netns")
    if not base.exists():
        return []
    return sorted(path.name for path in base.iterdir() if path.name.startswith(prefix(lab_id)))


def _unmount(directory: Path) -> None:
    """Unmount all below *directory*: overlays of containers, and the namespace dockerd pins."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in mounts]
    for point in reversed([point for point in points if Path(point).is_relative_to(directory)]):
        if run(["umount", point], check=False).returncode:
            run(["umount", "--lazy", point], check=False)


def _remove_cgroups(directory: Path) -> None:
    containers = directory / "docker/data/containers"
    found = [f"/docker/{path.name}" for path in containers.glob("*")]
    with contextlib.suppress(FileNotFoundError):
        found += (directory / "cgroups").read_text().split()
    for cgroup in found:
        cgroups.remove(cgroup)


def _remove_cni_results(directory: Path) -> None:
    """Remove what CNI remembers of pods that it never got to delete."""
    for path in _CNI_RESULTS.glob("*"):
        # Each names the file of its pod's namespace, which is below the lab's directory.
        with contextlib.suppress(OSError):
            if f"{directory}/".encode() in path.read_bytes():
                path.unlink()


def _note(path: Path) -> None:
    with (BASE / "made").open("a") as out:
        out.write(f"{path}\n")


def _remove_noted() -> None:
    """Remove what the labs caused outside their directories; the last lab calls this."""
    noted = BASE / "made"
    if noted.exists():
        paths = {Path(line) for line in noted.read_text().splitlines()}
        for path in sorted(paths, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        noted.unlink()
