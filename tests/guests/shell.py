"""Runs the few commands that make kernels and disks; a failure is one readable error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


class GuestError(Exception):
    """A guest cannot be made or run: one line that says which part, and its last words."""


class NotToBeHad(GuestError):
    """The mirror does not serve this kernel."""


def run(argv: Sequence[str | Path], timeout_s: float = 300) -> str:
    """Run *argv* to its end, or kill it after *timeout_s*; its standard output.

    Raises:
        GuestError: It is missing, too slow, or its exit code is not 0.
    """
    name = Path(argv[0]).name
    try:
        # In English and with /usr/sbin: mke2fs and depmod are not on everybody's path.
        environment = {**os.environ, "LC_ALL": "C"}
        environment["PATH"] = environment.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise GuestError(f"{name} is not installed: run deploy/setup-guests.sh") from error
    except subprocess.TimeoutExpired as error:
        raise GuestError(f"{name}: no end after {timeout_s:g} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise GuestError(f"{name}: exit {done.returncode}: {said[-1]}")
    return done.stdout


def cache() -> Path:
    """Where kernels and disks are kept between runs: ENI53_GUESTS, or in the checkout."""
    place = Path(os.environ.get("ENI53_GUESTS") or CHECKOUT / ".cache" / "guests")
    place.mkdir(parents=True, exist_ok=True)
    return place
