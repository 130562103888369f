"""Runs commands for the lab and turns a failure into one readable error.

Every process carries ENI53_LAB=<lab id> in its environment. That mark is how a later start finds
what a killed lab left behind, so a process started any other way would never be swept.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MARK = "ENI53_LAB"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON = "/usr/bin/python3"
HERE = Path(__file__).resolve().parent


def sender(*args: str, at: str = str(HERE)) -> list[str]:
    """The command line of the sender; *at* is where this directory is seen."""
    return [PYTHON, "-I", f"{at}/send.py", *args]


class LabError(RuntimeError):
    """The lab could not be built or used; the message says which part, and its last words."""


def environment(lab_id: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a lab process: ours, the lab's mark, and *extra* last."""
    path = os.environ.get("PATH", "") + ":" + SYSTEM_PATH
    return {**os.environ, "PATH": path, MARK: lab_id, **(extra or {})}


def daemon_environment(lab_id: str, home: Path) -> dict[str, str]:
    """A bare environment: no proxy setting of the caller may reach a daemon of the lab."""
    return {"PATH": SYSTEM_PATH, "HOME": str(home), MARK: lab_id}


def in_netns(netns: str) -> list[str]:
    """The prefix that runs a command in *netns*.

    Not ``ip netns exec``: that mounts a new /sys, and the cgroup tree is gone.
    """
    return ["nsenter", f"--net=/run/netns/{netns}"]


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float = 60,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run *argv* to its end, or kill it after *timeout* seconds.

    Raises:
        LabError: It is missing or too slow, or *check* is set and its exit code is not 0.
    """
    try:
        done = subprocess.run(
            argv,
            env=env,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout:g} s: {' '.join(argv)}") from error
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip() or "no output"
        raise LabError(f"exit {done.returncode}: {' '.join(argv)}\n{words}")
    return done


def popen(
    argv: Sequence[str], env: Mapping[str, str], log: Path | None = None
) -> subprocess.Popen[str]:
    """Start *argv* in a session of its own, so that Ctrl-C reaches the lab only.

    The lab then ends its processes itself, in order. Output goes to *log*, or to pipes.
    """
    if log is None:
        return subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    with log.open("ab") as out:
        return subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
        )


def wait_until(
    what: str,
    ready: Callable[[], bool],
    process: subprocess.Popen[str],
    log: Path,
    deadline: float = 20,
) -> None:
    """Poll *ready* until it holds.

    Raises:
        LabError: *process* ended, or *deadline* seconds went by; with the tail of *log*.
    """
    end = time.monotonic() + deadline
    while not ready():
        ended = process.poll()
        if ended is not None or time.monotonic() > end:
            why = f"ended with {ended}" if ended is not None else f"not ready in {deadline:g} s"
            raise LabError(f"{what} {why}:\n{tail(log)}")
        time.sleep(0.01)


def tail(log: Path, lines: int = 15) -> str:
    """The last *lines* of *log*."""
    try:
        text = log.read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(empty log)"
