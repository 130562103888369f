"""What the kernel tests share: loaded programs, and namespaces that are gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from .kernel import Kernel
from .netns import Namespace, Pair, inside, make_pair

MakeNamespace = Callable[[str], Namespace]


@pytest.fixture(scope="session", autouse=True)
def _as_root() -> None:
    """Without root nothing here means anything, and a skip would hide that."""
    assert os.geteuid() == 0, "the kernel tests load BPF and make network namespaces: run as root"


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    """Programs and maps for the whole session; tests look at what they themselves have added."""
    kernel = Kernel.load()
    yield kernel
    kernel.loaded.close()


@pytest.fixture(scope="module")
def bench(kernel: Kernel) -> Iterator[Kernel]:
    """The kernel with a device of its own to run frames on, this thread being where it is."""
    space = Namespace("bench")
    try:
        space.ip("link", "add", "eni", "type", "veth", "peer", "name", "other")
        kernel.dev = space.ifindex("eni")
        with inside(space.name):
            kernel.forget()
            yield kernel
    finally:
        space.remove()


@pytest.fixture
def make_namespace() -> Iterator[MakeNamespace]:
    """Makes namespaces that the end of the test removes."""
    made: list[Namespace] = []

    def make(label: str) -> Namespace:
        made.append(Namespace(label))
        return made[-1]

    yield make
    for space in made:
        space.remove()


@pytest.fixture
def pair(make_namespace: MakeNamespace) -> Pair:
    """A node with one ENI, and the VPC behind it."""
    return make_pair(make_namespace("node"), make_namespace("vpc"))
