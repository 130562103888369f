"""Which part of .venv a guest needs: eni53, pytest and what these require; the most is neither."""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

WANTED = ("eni53", "pytest", "pytest-randomly", "pytest-timeout", "dnspython")


def closure() -> dict[str, metadata.Distribution]:
    """Each of `WANTED` and what it requires, by name, as installed beside this interpreter."""
    # Not by its name alone: a checkout, too, says that it is eni53, and has no list of files.
    there = metadata.distributions(path=[sysconfig.get_path("purelib")])
    installed = {_canonical(each.name): each for each in there}
    found: dict[str, metadata.Distribution] = {}
    waiting = list(WANTED)
    while waiting:
        name = _canonical(waiting.pop())
        if name in found or name not in installed:  # required on another Python or system only
            continue
        found[name] = installed[name]
        for requirement in found[name].requires or ():
            if "extra ==" not in requirement:
                waiting += re.findall(r"^[\w.-]+", requirement)
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def files() -> Iterator[Path]:
    """Every file of these, and what makes the directory an environment, relative to it."""
    home = Path(sys.prefix)
    yield Path("pyvenv.cfg")
    yield from (path.relative_to(home) for path in (home / "bin").glob("python*"))
    for distribution in closure().values():
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file))).resolve()
            if path.is_relative_to(home) and path.is_file():
                yield path.relative_to(home)
