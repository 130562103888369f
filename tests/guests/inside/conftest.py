"""The fixtures of tests/kernel, and a trunk: an ENI with real VLAN devices on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import (  # noqa: F401 - pytest looks fixtures up here
    bench,
    kernel,
    make_attacher,
    make_namespace,
    pair,
    wired,
)
from tests.kernel.kernel import Kernel
from tests.kernel.netns import Pair, cgroup_root, until

from .run import kernel_version
from .trunk import Trunk, declare

MODES = ["tcx", "clsact"] if kernel_version() >= (6, 6) else ["clsact"]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Every way of attaching that this kernel has."""
    return str(request.param)


@pytest.fixture
def trunk(wired: Kernel, pair: Pair) -> Trunk:  # noqa: F811
    """The ENI declared a trunk, with nothing attached to it yet."""
    declare(wired.maps, pair.eni)
    return Trunk(pair)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup to send from."""
    place = cgroup_root() / f"eni53t-{os.getpid()}-trunk"
    place.mkdir()
    yield place
    assert until(lambda: not (place / "cgroup.procs").read_text())
    place.rmdir()
