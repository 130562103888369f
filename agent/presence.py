"""How a running agent is found, and that it is alone.

RUNTIME_DIR/agent.json has its pid, URL and version; an abstract socket is the lock.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from . import __version__
from .errors import NeedError

FILE = "agent.json"
_LOCK_NAME = b"\0eni53"  # an abstract socket: one to a network namespace, gone with its process


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent."""

    pid: int
    url: str
    version: str


def announce(runtime_dir: Path, url: str) -> None:
    """Write the file, whole or not at all.

    Raises:
        NeedError: The directory cannot be written to.
    """
    here = {"pid": os.getpid(), "url": url, "version": __version__}
    temporary = runtime_dir / f".{FILE}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(here) + "\n")
        temporary.replace(runtime_dir / FILE)
    except OSError as error:
        raise NeedError(
            f"cannot write to {runtime_dir}: {error.strerror}; choose another with --runtime-dir"
        ) from error


def withdraw(runtime_dir: Path) -> None:
    """Remove the file, if it is still ours."""
    found = find(runtime_dir)
    if found is not None and found.pid == os.getpid():
        with contextlib.suppress(OSError):
            (runtime_dir / FILE).unlink()


def find(runtime_dir: Path) -> Agent | None:
    """The agent that announced itself there and still lives; None when there is none."""
    try:
        said = json.loads((runtime_dir / FILE).read_text())
        agent = Agent(int(said["pid"]), str(said["url"]), str(said["version"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None
    return agent if _lives(agent.pid) else None


def _lives(pid: int) -> bool:
    if pid <= 0:
        return False  # to kill() these are groups of processes
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def make_directory(runtime_dir: Path) -> None:
    """Create it; anybody may read it, so that `eni53 top` finds the agent without being root.

    Raises:
        NeedError: It cannot be made.
    """
    try:
        runtime_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise NeedError(
            f"cannot make {runtime_dir}: {error.strerror}; choose another with --runtime-dir"
        ) from error


def is_counting() -> bool:
    """Whether somebody holds the lock; no where the kernel does not tell."""
    try:
        sockets = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    except OSError:
        return False
    name = "@" + _LOCK_NAME[1:].decode()
    return any(line.rpartition(" ")[2] == name for line in sockets)


def take_lock() -> socket.socket:
    """Be the only one that counts in this network namespace, until the socket is closed.

    Raises:
        NeedError: Another does already.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(_LOCK_NAME)
    except OSError as error:
        lock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise NeedError(
            "another eni53 counts in this network namespace already: if it is an agent, ask it"
            " with its --runtime-dir; if it is a `top`, `doctor` or `record` that counts by itself,"
            " end it first"
        ) from error
    return lock
