"""When containers' resolv.conf files are looked at, and what one that hangs costs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from eni53 import resolv_watch
from eni53.gather import Place
from eni53.model import ResolvConf, Workload
from eni53.resolv_look import Look, Target
from eni53.resolv_watch import AGAIN_S, LOOK_EVERY_S, MAX_HUNG, ResolvWatch

SERVER = ResolvConf(("10.0.0.2",))


class Fake(Look):
    """A look that finds what the test says, and hangs where it says so."""

    def _look(self, target: Target) -> ResolvConf | None:
        Fake.seen.append(target.pid)
        if target.pid in Fake.hanging:
            Fake.let_go.wait(30)
        return Fake.files.get(target.pid)

    seen: list[int] = []  # noqa: RUF012
    hanging: set[int] = set()  # noqa: RUF012
    files: dict[int, ResolvConf] = {}  # noqa: RUF012
    let_go = threading.Event()


class Watched:
    """A watch over containers that the test lists."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.running: list[tuple[str, Workload, Place]] = []
        self.failed: list[tuple[str, str]] = []
        self.watch = ResolvWatch(
            lambda: self.running, lambda *it: self.failed.append(it), Fake, lambda: self.now_s
        )

    def add(self, pid: int, workload: Workload | None = None) -> None:
        """One is there."""
        place = Place(pid, 1, 1, None, host_network=False)
        whose = workload or Workload("container", "", f"c{pid}")
        self.running.append((f"{pid}", whose, place))

    def look(self, after_s: float = 0.0) -> list[int]:
        """At whom it looked."""
        self.now_s += after_s
        Fake.seen.clear()
        asyncio.run(self.watch.look())
        return sorted(Fake.seen)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Every file says the same, and a hang is found soon."""
    monkeypatch.setattr(resolv_watch, "HANGS_AFTER_S", 0.2)
    Fake.files = dict.fromkeys(range(1000), SERVER)
    Fake.hanging = set()
    Fake.let_go.clear()
    yield Watched()
    Fake.let_go.set()


def test_it_looks_at_appearance_and_then_rarely(watched: Watched) -> None:
    """At those of the start at once, at later ones when they are in place."""
    watched.add(1)
    assert watched.look() == [1]
    assert watched.look(LOOK_EVERY_S) == []
    watched.add(2)
    assert watched.look(LOOK_EVERY_S) == []
    assert watched.look(LOOK_EVERY_S) == [2]
    before = watched.watch.confs
    assert before == {Workload("container", "", f"c{pid}"): SERVER for pid in (1, 2)}
    assert watched.look(LOOK_EVERY_S) == []
    assert watched.watch.confs is before
    assert watched.look(AGAIN_S) == [1, 2]


def test_who_is_gone_or_unreadable_is_forgotten(watched: Watched) -> None:
    """Unknown is not what it was a minute ago."""
    watched.add(1)
    watched.add(2)
    watched.look()
    del watched.running[0]
    assert watched.look(1) == []
    assert [w.workload for w in watched.watch.confs] == ["c2"]
    del Fake.files[2]
    watched.look(AGAIN_S)
    assert watched.watch.confs == {}


def test_who_only_holds_a_namespace_is_not_looked_at(watched: Watched) -> None:
    """It asks for nothing; and Docker writes the host's servers into some of them."""
    watched.add(1, Workload("pod", "shop", "web"))
    watched.add(2, Workload("ecs_task", "prod", "web:1/x", "~internal~ecs~pause"))
    watched.add(3, Workload("pod", "shop", "web", "app"))
    assert watched.look() == [3]


def test_many_are_looked_at_in_turns(watched: Watched) -> None:
    """No look takes long."""
    for pid in range(100):
        watched.add(pid)
    first = watched.look()
    assert len(first) == 64
    assert sorted(first + watched.look(LOOK_EVERY_S)) == list(range(100))


def test_one_that_hangs_costs_itself_alone(watched: Watched) -> None:
    """It is said once, the others are read, and it is not looked at again."""
    for pid in (1, 2, 3):
        watched.add(pid)
    Fake.hanging = {2}
    assert watched.look() == [1, 2]
    assert watched.look(LOOK_EVERY_S) == [3]
    assert watched.look(AGAIN_S) == [1, 3]
    assert [w.workload for w in watched.watch.confs] == ["c1", "c3"]
    assert watched.failed == [("resolv.conf", "a container's file system hangs")]


def test_when_many_hang_none_is_read(watched: Watched) -> None:
    """The threads that are left alone are few, and what was read would grow old."""
    Fake.hanging = set(range(1, 10))
    for pid in range(10):
        watched.add(pid)
    for _ in range(MAX_HUNG):
        watched.look(LOOK_EVERY_S)
    assert watched.watch.confs == {}
    assert len(watched.failed) == MAX_HUNG
    asyncio.run(asyncio.wait_for(watched.watch.run(), 5))
