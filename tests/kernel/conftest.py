"""What the kernel tests share: loaded programs, and namespaces that are gone afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eni53.inventory.links import LinkTable
from eni53.kernel.attach import Attacher
from eni53.kernel.layout import TASK_DEV
from eni53.tasknets import TaskNets

from .asking import Asking
from .kernel import Kernel
from .netns import Namespace, Pair, inside, make_pair
from .pause import Pause

MakeNamespace = Callable[[str], Namespace]
MakeAttacher = Callable[..., Attacher]


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
def in_task(bench: Kernel) -> Iterator[Kernel]:
    """Test runs of the programs for tasks: nobody sets a class id there, so it is 0."""
    bench.ifindex, bench.dev = bench.dev, TASK_DEV
    bench.forget()
    yield bench
    bench.dev, bench.ifindex = bench.ifindex, None
    bench.forget()


@pytest.fixture(scope="module")
def _cache() -> Iterator[Asking]:
    """Maps of its own: ids for clients can be put into a queue, but not be taken out of it."""
    kernel = Kernel.load()
    space = Namespace("cache")
    try:
        space.ip("link", "add", "eni", "type", "veth", "peer", "name", "other")
        kernel.dev = space.ifindex("eni")
        asking = Asking(kernel)
        asking.free_all()
        with inside(space.name):
            yield asking
    finally:
        space.remove()
        kernel.loaded.close()


@pytest.fixture
def asking(_cache: Asking) -> Asking:
    """A cache that nobody has asked yet."""
    _cache.forget()
    return _cache


@pytest.fixture
def make_namespace() -> Iterator[MakeNamespace]:
    """Makes namespaces that the end of the test removes."""
    made: list[Namespace] = []

    def make(label: str) -> Namespace:
        made.append(Namespace(label))
        return made[-1]

    try:
        yield make
    finally:
        for space in made:
            space.remove()


@pytest.fixture
def pair(make_namespace: MakeNamespace) -> Pair:
    """A node with one ENI, and the VPC behind it."""
    return make_pair(make_namespace("node"), make_namespace("vpc"))


@pytest.fixture
def wired(kernel: Kernel, pair: Pair) -> Iterator[Kernel]:
    """The kernel with the pair's ENI as its device, nothing counted yet, this thread in the node.

    A tcx link is made in the namespace of the thread that asks for it.
    """
    before, kernel.dev = kernel.dev, pair.eni
    kernel.forget()
    with inside(pair.node.name):
        yield kernel
    kernel.forget()
    kernel.dev = before


@pytest.fixture
def make_attacher(wired: Kernel, pair: Pair) -> Iterator[MakeAttacher]:
    """Makes attachers in a namespace, by default the node; what they attach comes off again."""
    made: list[tuple[LinkTable, Attacher]] = []

    def make(
        mode: str, ledger: Path | None = None, where: Namespace = pair.node, class_id: int = 0
    ) -> Attacher:
        with inside(where.name):
            table = LinkTable()
        made.append((table, Attacher(table.ipr, wired.loaded, mode, ledger, class_id)))
        return made[-1][1]

    yield make
    for table, attacher in made:
        attacher.detach_all()
        table.close()


@pytest.fixture
def host(kernel: Kernel, make_namespace: MakeNamespace) -> Iterator[Namespace]:
    """The agent's namespace, this thread being in it, and nothing counted yet."""
    space = make_namespace("node")
    kernel.forget()
    with inside(space.name):
        yield space
    kernel.forget()


@pytest.fixture
def make_pause(host: Namespace) -> Iterator[Callable[[], Pause]]:
    """Starts pause containers; those that are left are ended."""
    made: list[Pause] = []

    def make() -> Pause:
        made.append(Pause())
        return made[-1]

    yield make
    for pause in made:
        pause.end()


@pytest.fixture
def pause(make_pause: Callable[[], Pause]) -> Pause:
    """A pause container whose ENI is not there yet."""
    return make_pause()


@pytest.fixture
def nets(kernel: Kernel, host: Namespace, tmp_path: Path) -> Iterator[TaskNets]:
    """With an agent that watches tasks."""
    nets = TaskNets(kernel.loaded, kernel.maps, tmp_path)
    yield nets
    nets.stop()
