"""Ids of clients on other nodes: given once, taken back when their client has fallen silent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from eni53.kernel import bpf, layout
from eni53.kernel.layout import REMOTE_BIT
from eni53.kernel.remotes import RemotePool
from eni53.sample import Sample, SenderKey

from . import frames as f
from .asking import IDS, Asking, client
from .kernel import Kernel
from .netns import Namespace, inside

A, B, LATE = client(1), client(2), client(4000)
ALL_IDS = {REMOTE_BIT | number for number in range(1, IDS + 1)}


def test_more_clients_than_ids(asking: Asking) -> None:
    """The late ones are noted and their cache is charged; nobody pays for another."""
    before = asking.kernel.maps.read().stats["remote_exhausted"]
    late = 60
    for number in range(IDS + late):
        payload = f.dns_query(f"n{number}.example")
        asking.ask(payload, client(number))
        asking.forward(payload)
        asking.forward(payload)
    sample = asking.kernel.maps.read()
    assert late == sample.stats["remote_exhausted"] - before
    assert IDS == len(sample.remotes) == len({r.address for r in sample.remotes.values()})
    assert {client(n): 2 for n in range(IDS)} | {"": 2 * late} == asking.charged()
    asking.ask(f.dns_query("more.example"), client(5))
    asking.forward(f.dns_query("more.example"))
    assert 3 == asking.charged()[client(5)], "who has an id keeps it"


def test_a_client_keeps_its_id(asking: Asking) -> None:
    """Whatever it asks; two clients have two, and the time is that of the last question."""
    for number in range(20):
        asking.ask(f.dns_query(f"n{number}.example"), A)
        asking.ask(f.dns_query(f"m{number}.example"), B)
    first = asking.kernel.maps.read().remotes
    assert [A, B] == sorted(remote.address for remote in first.values())
    asking.ask(f.dns_query("later.example"), A)
    second = asking.kernel.maps.read().remotes
    moved = {first[n].address for n in first if first[n].asked_ns < second[n].asked_ns}
    assert {A} == moved


class Pool:
    """A pool over maps nobody has put an id into yet, and a clock that is told."""

    def __init__(self, kernel: Kernel) -> None:
        self.asking = Asking(kernel)
        self.forgotten: list[SenderKey] = []
        self.pool = RemotePool(kernel.maps, self.forgotten.append)
        self.settled = True
        kernel.forget()

    def serve(self, remote: str, name: str = "") -> None:
        """A client asks, and the cache forwards its question."""
        payload = f.dns_query(name or f"n{remote}.example".replace(".", "-"))
        self.asking.ask(payload, remote)
        self.asking.forward(payload)

    def sample(self, silent_s: float = 0.0, *silent: str) -> Sample:
        """The counters, in which *silent* have asked for nothing that long."""
        sample = self.asking.kernel.maps.read()
        past_ns = sample.taken_at_ns - int(silent_s * 1e9)
        remotes = {
            number: dataclasses.replace(remote, asked_ns=past_ns)
            if remote.address in silent
            else remote
            for number, remote in sample.remotes.items()
        }
        return dataclasses.replace(sample, remotes=remotes)

    def collect(self, sample: Sample, now_s: float) -> None:
        """As the agent does at a tick."""
        self.pool.collect(sample, lambda _: self.settled, now_s)

    def known(self) -> dict[str, int]:
        """Ids by address."""
        remotes = self.asking.kernel.maps.read().remotes
        return {remote.address: number for number, remote in remotes.items()}

    def rows(self) -> dict[int, int]:
        """Packets by asker."""
        senders = self.asking.kernel.maps.read().senders
        return {key.asker: packets for key, packets in senders.items()}

    def exhausted(self) -> int:
        """Clients that had to do without an id."""
        return self.asking.kernel.maps.read().stats["remote_exhausted"]


@pytest.fixture
def pool() -> Iterator[Pool]:
    """Loaded for this test alone: a queue of ids cannot be emptied."""
    space = Namespace("remotes")
    try:
        space.ip("link", "add", "eni", "type", "veth", "peer", "name", "other")
        with inside(space.name), Kernel.load().loaded as loaded:
            yield Pool(Kernel(loaded, space.ifindex("eni")))
    finally:
        space.remove()


def test_a_silent_client_is_forgotten_after_a_minute(pool: Pool) -> None:
    """With its rows, of which the ledger is told; whoever speaks stays as it was."""
    pool.serve(A)
    pool.serve(B)
    ids = pool.known()
    pool.collect(pool.sample(59.9, A), 100)
    assert (ids, []) == (pool.known(), pool.forgotten)
    pool.collect(pool.sample(60.1, A), 110)
    assert {B: ids[B]} == pool.known()
    assert {ids[B]: 1} == pool.rows()
    (key,) = pool.forgotten
    assert ids[A] == key.asker
    pool.serve(B, "again.example")
    assert {ids[B]: 2} == pool.rows()


def test_a_client_stays_until_its_rows_are_settled(pool: Pool) -> None:
    """Else the packets that still wait for their owner would find another one behind the id."""
    pool.serve(A)
    pool.settled = False
    pool.collect(pool.sample(70, A), 100)
    assert {A} == set(pool.known())
    pool.settled = True
    pool.collect(pool.sample(70, A), 105)
    assert {A} == set(pool.known()), "it is looked at every ten seconds"
    pool.collect(pool.sample(70, A), 110)
    assert ({}, {}) == (pool.known(), pool.rows())


def test_a_client_that_comes_back_is_a_new_one(pool: Pool) -> None:
    """It gets a free id, not the one that rests."""
    pool.serve(A)
    before = pool.known()[A]
    pool.collect(pool.sample(70, A), 100)
    pool.serve(A, "back.example")
    assert before != pool.known()[A]
    assert {pool.known()[A]: 1} == pool.rows()


def test_an_id_rests_before_it_is_another_clients(pool: Pool) -> None:
    """While a question may still carry it nobody else gets it; then exactly one does."""
    for number in range(IDS):
        pool.serve(client(number))
    assert ALL_IDS == set(pool.known().values())
    assert 0 == pool.exhausted()
    freed = pool.known()[client(7)]
    pool.collect(pool.sample(61, client(7)), 100)
    for now_s in (100, 110, 115):
        pool.collect(pool.sample(), now_s)
        pool.serve(LATE, f"early{now_s}.example")
    assert (3, {0}) == (pool.exhausted(), set(pool.rows()) - set(pool.known().values()))
    pool.collect(pool.sample(), 121)
    pool.serve(LATE, "late.example")
    pool.serve(client(4001))
    assert (freed, 4) == (pool.known()[LATE], pool.exhausted())
    assert client(4001) not in pool.known()
    assert 1 == pool.rows()[freed]


def test_no_id_is_ever_given_twice(pool: Pool) -> None:
    """Clients come and go for a long time: no two have the same id, and none is lost."""
    now_s, number = 100.0, 0
    for turn in range(60):
        for _ in range(100):
            number += 1
            pool.serve(client(number))
        sample = pool.sample()
        addresses = [remote.address for remote in sample.remotes.values()]
        assert len(addresses) == len(set(addresses))
        assert set(sample.remotes) <= ALL_IDS
        silent = addresses[::2] if turn % 3 else addresses
        pool.collect(pool.sample(61, *silent), now_s)
        now_s += 7 if turn % 5 else 20
    assert 0 == pool.exhausted()
    for _ in range(3):
        pool.collect(pool.sample(61, *pool.known()), now_s)
        now_s += 20
    for number in range(IDS):
        pool.serve(client(number), f"last{number}.example")
    assert (ALL_IDS, 0) == (set(pool.known().values()), pool.exhausted())


def test_the_size_of_the_table_is_the_number_of_ids(pool: Pool) -> None:
    """Or a client without room would take an id with it."""
    room = pool.asking.kernel.loaded.max_entries
    assert IDS == room["remotes"] == room["free_remotes"] < REMOTE_BIT
    with pytest.raises(OSError, match=r"[Aa]rgument list too long"):
        bpf.map_update(
            pool.asking.kernel.loaded.maps["free_remotes"], None, layout.U32.packer.pack(1)
        )
