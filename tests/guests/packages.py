"""Which files of this machine a guest needs: those of a few Debian packages, and of what they need.

The guests have the machine's own interpreter, BCC and iproute2, so a difference in a result is the
kernel's doing and nothing else's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from .shell import GuestError, run

WANTED = (
    *("python3", "python3-bpfcc", "iproute2", "nftables", "ethtool", "procps", "kmod"),
    *("bash", "dash", "coreutils", "grep", "sed", "util-linux", "mount", "busybox-static"),
)
_NOT_NEEDED = re.compile(r"/usr/share/(doc|man|info|locale|lintian|bash-completion|zoneinfo)/")


def closure(wanted: Iterable[str] = WANTED) -> dict[str, str]:
    """Version of each installed package that *wanted* are and depend on, by name.

    Raises:
        GuestError: One of *wanted* is not installed.
    """
    waiting = list(wanted)
    needs: dict[str, set[str]] = {}
    versions: dict[str, str] = {}
    providers: dict[str, set[str]] = {}
    fields = ("db:Status-Status", "Package", "Version", "Pre-Depends", "Depends", "Provides")
    form = "\\t".join(f"${{{field}}}" for field in fields) + "\\n"
    for row in run(["dpkg-query", "-W", "-f", form]).splitlines():
        status, name, version, before, depends, provides = row.split("\t")
        if status != "installed":
            continue
        versions[name] = version
        needs[name] = _names(before) | _names(depends)
        for virtual in _names(provides):
            providers.setdefault(virtual, set()).add(name)
    missing = [name for name in waiting if name not in versions]
    if missing:
        raise GuestError(f"not installed: {' '.join(missing)}: run deploy/setup-debian.sh")
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name in versions and name not in found:
            found[name] = versions[name]
            waiting += needs[name]
        elif name not in versions:  # virtual, or an alternative that is not installed
            waiting += providers.get(name, set()) - set(found)
    return found


def _names(relation: str) -> set[str]:
    """Every package that a dependency field speaks of, alternatives included."""
    parts = (part.strip() for part in re.split(r"[,|]", relation))
    return {re.split(r"[\s:(]", part, maxsplit=1)[0] for part in parts if part}


def files(names: Iterable[str]) -> Iterator[Path]:
    """Every file and link of these packages, by the path it really has here.

    Compiled Python is not in the packages' lists, and without it a guest compiles for minutes.
    """
    for line in run(["dpkg-query", "-L", *names]).splitlines():
        if not line.startswith("/") or _NOT_NEEDED.match(line + "/"):
            continue
        # /bin and /lib are links to their likes in /usr.
        path = Path(os.path.realpath(Path(line).parent), Path(line).name)
        if not path.is_symlink() and (path.is_dir() or not path.exists()):
            continue
        yield path
        if path.suffix == ".py":
            yield from path.parent.glob(f"__pycache__/{path.stem}.cpython-*.pyc")
