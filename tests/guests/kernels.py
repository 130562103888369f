"""Fetches Debian's kernels, by their meta packages, and makes of each what a guest boots from.

Only Debian's *cloud* builds: a third of the size, and all that eni53 meets on a node is in them.
The machine's own package sources stay as they are: each suite is asked for through a private apt
configuration, with the mirror that the machine has configured for security updates.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import disks
from .shell import GuestError, NotToBeHad, cache, run

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of kernels.

    Attributes:
        name: What people call it, such as ``6.1``.
        meta: The package that depends on the newest of this line.
        suite: Where that package is.
        leaving: Whether the mirror may drop the suite any day: then it is left out, and said so.
    """

    name: str
    meta: str
    suite: str
    leaving: bool = False


LINES = (
    Line("5.10", "linux-image-cloud-amd64", "bullseye-security", leaving=True),  # AL2
    Line("6.1", "linux-image-cloud-amd64", "bookworm-security"),  # AL2023, Bottlerocket
    Line("6.12", "linux-image-6.12-cloud-amd64", "bookworm-security"),  # the newer of both
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that is ready to boot.

    Attributes:
        line: Its line.
        release: As ``uname -r`` will say.
        image: The compressed kernel.
        modules: A disk with ``/lib/modules/<release>`` as its root.
        tree: The directory from which that disk was made.
    """

    line: Line
    release: str
    image: Path
    modules: Path
    tree: Path


def get(line: Line, *, refresh: bool = False) -> Kernel:
    """The kernel of *line*, from the cache; from the mirror when there is none, or *refresh*.

    Raises:
        NotToBeHad: The mirror does not have it.
        GuestError: Anything else went wrong.
    """
    home = cache() / f"linux-{line.name}"
    with _only_one(line.name):
        kept = None if refresh else _kept(line, home)
        if kept is None:
            with tempfile.TemporaryDirectory(dir=cache()) as scratch:
                new = Path(scratch, "new")
                _make(_download(line, Path(scratch)), new)
                if home.exists():
                    home.rename(Path(scratch, "old"))
                new.rename(home)
            kept = _kept(line, home)
        assert kept is not None
        return kept


@contextlib.contextmanager
def _only_one(name: str) -> Iterator[None]:
    """Two runs at once must not both unpack into the cache."""
    with (cache() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _kept(line: Line, home: Path) -> Kernel | None:
    images = sorted(home.glob("vmlinuz-*"))
    if not images or not (home / "modules.ext4").exists():
        return None
    release = images[-1].name.removeprefix("vmlinuz-")
    return Kernel(line, release, images[-1], home / "modules.ext4", home / "modules")


def _mirror() -> str:
    """Base address of the mirror that this machine has for security updates."""
    for address in run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split():
        if address.rstrip("/").endswith("-security"):
            return address
    raise GuestError("no Debian mirror for security updates is configured on this machine")


def _download(line: Line, scratch: Path) -> Path:
    """The package file of the newest kernel of *line*."""
    for name in ("state/lists/partial", "cache/archives/partial", "deb"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    source = f"deb [arch=amd64 signed-by={_KEYRING}] {_mirror()} {line.suite} main\n"
    (scratch / "sources.list").write_text(source)
    options = {
        "Dir::Etc::SourceList": scratch / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": scratch / "state",
        "Dir::State::Status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "root",  # its own user may not write here
        "APT::Update::Error-Mode": "any",  # else a suite that is gone is only a warning
        "Acquire::Languages": "none",
    }
    private = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    try:
        run(["apt-get", *private, "-qq", "update"])
        told = run(["apt-cache", *private, "depends", line.meta])
    except GuestError as error:
        raise NotToBeHad(f"{line.suite} has no {line.meta} on this mirror ({error})") from error
    found = re.search(r"Depends: (linux-image-\d\S+)", told)
    if found is None:
        raise NotToBeHad(f"{line.suite} has no {line.meta} on this mirror")
    # apt-get download writes to the directory it is started in.
    run(["env", "-C", scratch / "deb", "apt-get", *private, "-qq", "download", found[1]], 600)
    return next((scratch / "deb").glob("*.deb"))


def _make(package: Path, home: Path) -> None:
    """Unpack, index the modules, and put them on a disk."""
    unpacked = home / "unpacked"
    unpacked.mkdir(parents=True)
    run(["dpkg-deb", "-x", package, unpacked])
    (image,) = (unpacked / "boot").glob("vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    places = [unpacked / "lib/modules" / release, unpacked / "usr/lib/modules" / release]
    (found,) = (place for place in places if place.is_dir())
    modules = home / "modules"
    (modules / "lib/modules").mkdir(parents=True)
    found.rename(modules / "lib/modules" / release)
    image.rename(home / image.name)
    shutil.rmtree(unpacked)
    run(["depmod", "-b", modules, release])
    disks.write(modules / "lib/modules", home / "modules.ext4")
