"""The two disks of a guest: the root with everything installed, and the checkout under test."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from . import disks, packages, venv
from .shell import CHECKOUT, GuestError, cache

VENV = CHECKOUT / ".venv"
TESTED = ("agent", "bpf", "tests", "pyproject.toml")

_IGNORED = shutil.ignore_patterns("__pycache__")
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_EMPTY = ("dev", "proc", "run", "sys", "tmp", "root", "var/tmp", "mnt", "usr/lib/modules", "venv")
_ACCOUNTS = ("etc/passwd", "etc/group", "etc/nsswitch.conf", "etc/ld.so.cache")


def root() -> Path:
    """The root disk; made anew when a package, .venv or this file has changed.

    Raises:
        GuestError: Something that belongs on it is not installed.
    """
    if Path(sys.prefix) != VENV:
        raise GuestError(f"run it by {VENV}/bin/python, which make setup makes")
    found = packages.closure()
    image = cache() / f"root-{_key(found)}.ext4"
    with (cache() / ".root.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            for old in cache().glob("root-*.ext4"):
                old.unlink()
            with tempfile.TemporaryDirectory(dir=cache()) as scratch:
                _fill(Path(scratch, "tree"), found)
                disks.write(Path(scratch, "tree"), Path(scratch, "image"))
                Path(scratch, "image").rename(image)
    return image


def _key(found: dict[str, str]) -> str:
    inputs = [f"{name}={version}" for name, version in sorted(found.items())]
    inputs += [f"{name}={each.version}" for name, each in sorted(venv.closure().items())]
    makers = (__file__, packages.__file__, venv.__file__)
    inputs += [str(CHECKOUT), *(Path(maker).read_text() for maker in makers)]
    return hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:16]


def _fill(tree: Path, found: dict[str, str]) -> None:
    for name in (*_EMPTY, *_LINKS.values(), "etc", str(CHECKOUT).lstrip("/")):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name, target in _LINKS.items():
        (tree / name).symlink_to(target)
    wanted = {*packages.files(found), *(Path("/", name) for name in _ACCOUNTS)}
    for path in sorted(wanted):
        target = tree / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.R_OK) or path.is_symlink():
            shutil.copy2(path, target, follow_symlinks=False)
    for name in venv.files():
        target = tree / "venv" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(VENV / name, target, follow_symlinks=False)


def checkout(image: Path, source: Path = CHECKOUT) -> None:
    """Make *image* hold what is tested: the code as it is in *source* now, and its tests.

    Raises:
        GuestError: *source* is no checkout.
    """
    with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir()
        (tree / ".venv").mkdir()
        for name in TESTED:
            if (source / name).is_dir():
                shutil.copytree(source / name, tree / name, ignore=_IGNORED)
            elif (source / name).is_file():
                shutil.copy2(source / name, tree / name)
            else:
                raise GuestError(f"{source} is no checkout of eni53: it has no {name}")
        # What drives a guest from within is this checkout's, however old the code is.
        shutil.rmtree(tree / "tests/guests", ignore_errors=True)
        shutil.copytree(CHECKOUT / "tests/guests", tree / "tests/guests", ignore=_IGNORED)
        disks.write(tree, image, spare_mib=32)  # for compiled Python
