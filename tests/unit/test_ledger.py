"""Accounts: they only rise, add up to what the kernel counted, and never take another's packets."""

import random
import secrets
from collections import defaultdict
from dataclasses import dataclass, replace

import pytest
from eni53.attribution import CACHE, DIRECT
from eni53.inventory.workloads import Workloads
from eni53.kernel.tags import QUIET_S
from eni53.ledger import ENDED_AFTER_S, GRACE_S, Ledger
from eni53.model import OTHER, PENDING, UNATTRIBUTED, Workload
from eni53.sample import Remote, SenderKey

from tests.fixtures.samples import CELL, ENI, Kernel, container, ladder, task

SECOND_ENI = (3, 0)
BRANCH = (3, 100)
BRIDGE = 4
VETH = 10
REMOTE = 0x8001
SEED = secrets.randbits(32)


class Accounts:
    """A ledger with a kernel and an inventory of its own, and a clock that tests move."""

    def __init__(self, max_workloads=200):
        self.kernel, self.workloads = Kernel(), Workloads()
        self.veths = set()
        self.ledger = Ledger(max_workloads, self.workloads.is_running)
        self.now_s = 0.0

    def task(self, name, veth, *, known=True, addresses=()):
        """A task behind a veth, with a tag of the same number."""
        self.veths.add(veth)
        self.workloads.veth_appeared(veth, veth)
        self.kernel.origin(veth, veth * 10, veth)
        if known:
            self.workloads.add(
                container(name, netns=veth, nsid=veth, cgroup=veth * 10, addresses=addresses)
            )

    def update(self, after_s=1.0, grace_s=GRACE_S):
        """Take another sample some seconds later; returns the rows of the first ENI."""
        self.now_s += after_s
        seen = ladder(self.kernel, self.workloads, self.veths)
        self.ledger.update(self.kernel.sample(self.now_s), seen, self.now_s, grace_s)
        return self.rows()

    def rows(self, eni=ENI):
        """Packets by workload."""
        rows = self.ledger.rows.get(eni, {})
        return {workload: sum(row.packets.values()) for (workload, _), row in rows.items()}

    def rows_by_account(self, eni=ENI):
        """Packets by workload and by way of whom."""
        rows = self.ledger.rows.get(eni, {})
        return {account: sum(row.packets.values()) for account, row in rows.items()}

    def recent(self, eni=ENI):
        """The increase at the last update."""
        return sum(self.ledger.recent(eni).values())


@pytest.fixture
def accounts():
    """An empty ledger."""
    return Accounts()


def test_each_increase_is_charged_once(accounts):
    """Counts since attach go in, differences are charged."""
    accounts.task("a", VETH)
    accounts.kernel.send(5, tag=VETH, ingress=VETH)
    assert accounts.update() == {task("a"): 5}
    accounts.kernel.send(3, tag=VETH, ingress=VETH)
    assert (accounts.update(), accounts.recent()) == ({task("a"): 8}, 3)
    assert (accounts.update(), accounts.recent()) == ({task("a"): 8}, 0)


def test_packets_wait_for_their_name(accounts):
    """Pending until Docker speaks, then all of it is the task's; what was recent is not again."""
    accounts.task("a", VETH, known=False)
    accounts.kernel.send(5, tag=VETH, ingress=VETH)
    assert (accounts.update(), accounts.recent()) == ({PENDING: 5}, 5)
    accounts.kernel.send(2, tag=VETH, ingress=VETH)
    assert (accounts.update(), accounts.recent()) == ({PENDING: 7}, 2)
    accounts.task("a", VETH)
    assert (accounts.update(), accounts.recent()) == ({task("a"): 7}, 0)


def test_a_name_that_never_comes_is_settled_after_the_grace(accounts):
    """Not before, and then for good: a name that comes later gets only what is sent later."""
    accounts.task("a", VETH, known=False)
    key = accounts.kernel.send(5, tag=VETH, ingress=VETH)
    accounts.update()
    assert accounts.update(GRACE_S - 0.1) == {PENDING: 5}
    assert accounts.ledger.settled(key) is False
    assert accounts.update(0.1) == {UNATTRIBUTED: 5}
    assert accounts.ledger.settled(key) is True
    accounts.task("a", VETH)
    accounts.kernel.send(1, tag=VETH, ingress=VETH)
    assert accounts.update() == {UNATTRIBUTED: 5, task("a"): 1}


def test_the_last_look_waits_for_nobody(accounts):
    """A one-shot count leaves nothing pending."""
    accounts.task("a", VETH, known=False)
    accounts.kernel.send(5, tag=VETH, ingress=VETH)
    assert accounts.update(grace_s=0.0) == {UNATTRIBUTED: 5}


def test_a_veth_gone_before_its_name_is_known_still_gets_it(accounts):
    """A task that lived for a moment: its packets wait for it as any others do."""
    accounts.task("a", VETH, known=False)
    accounts.kernel.send(5, tag=VETH, ingress=VETH)
    accounts.update()
    accounts.task("a", VETH)
    accounts.workloads.end("a")
    accounts.workloads.veth_gone(VETH)
    accounts.veths.clear()
    assert accounts.update() == {task("a"): 5}


def test_a_row_begun_anew_in_the_kernel_starts_at_zero(accounts):
    """A row that was removed there and came back is not taken for a rise from the old count."""
    accounts.task("a", VETH)
    key = accounts.kernel.send(5, tag=VETH, ingress=VETH)
    accounts.update()
    del accounts.kernel.senders[key]
    accounts.ledger.forget_sender(key)
    accounts.kernel.send(9, tag=VETH, ingress=VETH)
    assert accounts.update() == {task("a"): 14}
    accounts.kernel.senders[key] = 2
    assert accounts.update() == {task("a"): 16}


def test_the_overflow_is_nobodys(accounts):
    """Packets that found the kernel's table full are counted; a cell that fell began anew."""
    accounts.kernel.overflow[ENI][CELL] = 4
    assert accounts.update() == {UNATTRIBUTED: 4}
    accounts.kernel.overflow[ENI][CELL] = 1
    assert accounts.update() == {UNATTRIBUTED: 5}


def test_tags_that_were_lost_are_counted(accounts):
    """What came by a known veth without a tag, packet by packet, waiting or not."""
    accounts.task("a", VETH)
    accounts.task("b", VETH + 1, known=False)
    accounts.kernel.send(5, ingress=VETH)
    accounts.kernel.send(2, ingress=VETH + 1)
    accounts.kernel.send(3, tag=VETH, ingress=VETH)
    accounts.update()
    accounts.update()
    assert accounts.ledger.tag_lost == 7


class TestCredit:
    """Rung (d): the un-NATed source address of a known task."""

    @pytest.fixture
    def known(self, accounts):
        """With one task whose address is known."""
        accounts.task("a", VETH, addresses=("10.0.0.1",))
        return accounts

    def test_it_covers_what_came_from_nowhere(self, known):
        """As many packets as had the address; the rest is nobody's."""
        known.kernel.send(5, ingress=BRIDGE, source="10.0.0.1")
        known.kernel.send(3, ingress=BRIDGE, source="172.16.0.1")
        assert known.update() == {task("a", ""): 5, UNATTRIBUTED: 3}
        assert known.recent() == 8

    def test_it_stays_for_one_more_update(self, known):
        """Sources are read a moment after senders, so they may be ahead of them."""
        known.kernel.sources[*ENI, "10.0.0.1", *CELL] += 5
        assert known.update() == {}
        known.kernel.send(5, ingress=BRIDGE)
        assert known.update() == {task("a", ""): 5}

    def test_and_not_longer(self, known):
        """Old credit would pay for somebody else's packets, also while new keeps coming."""
        known.kernel.sources[*ENI, "10.0.0.1", *CELL] += 5
        known.update()
        known.kernel.send(1, ingress=BRIDGE, source="10.0.0.1")
        known.update()
        known.kernel.send(1, ingress=BRIDGE, source="10.0.0.1")
        known.update()
        known.update()
        known.kernel.send(7, ingress=BRIDGE)
        assert known.update() == {task("a", ""): 2, UNATTRIBUTED: 7}

    def test_it_pays_only_for_its_own_class_and_eni(self, known):
        """An address seen with DNS on one ENI says nothing of NTP, or of another ENI."""
        known.kernel.sources[*ENI, "10.0.0.1", *CELL] += 9
        known.kernel.send(2, ingress=BRIDGE, cell=("ntp", "udp"))
        known.kernel.send(2, ingress=BRIDGE, eni=SECOND_ENI)
        known.update()
        assert known.rows() == {UNATTRIBUTED: 2}
        assert known.rows(SECOND_ENI) == {UNATTRIBUTED: 2}

    def test_an_entry_that_was_evicted_starts_again(self, known):
        """The kernel's table of sources is a bounded LRU: gone and back, and lower than before."""
        known.kernel.send(5, ingress=BRIDGE, source="10.0.0.1")
        known.update()
        known.kernel.sources[*ENI, "10.0.0.1", *CELL] = 0
        known.kernel.send(2, ingress=BRIDGE, source="10.0.0.1")
        assert known.update() == {task("a", ""): 7}


class TestRoom:
    """max_workloads: names beyond it are summed."""

    def test_later_ones_are_other_and_named_ones_stay(self):
        """The first to come keep their series; a named one never moves while it lives."""
        accounts = Accounts(max_workloads=2)
        for number in range(4):
            accounts.task(f"t{number}", VETH + number)
        for _ in range(3):
            for number in range(4):
                accounts.kernel.send(1, tag=VETH + number, ingress=VETH + number)
            accounts.update()
        assert accounts.rows() == {task("t0"): 3, task("t1"): 3, OTHER: 6}

    def test_unattributed_and_pending_take_no_room(self):
        """Only names count as names."""
        accounts = Accounts(max_workloads=1)
        accounts.task("a", VETH)
        accounts.task("x", VETH + 1, known=False)
        accounts.kernel.send(1, ingress=BRIDGE)
        accounts.kernel.send(1, tag=VETH + 1, ingress=VETH + 1)
        accounts.update()
        accounts.kernel.send(1, tag=VETH, ingress=VETH)
        assert accounts.update() == {UNATTRIBUTED: 1, PENDING: 1, task("a"): 1}

    def test_one_name_on_two_enis_takes_one_place(self):
        """A task that sends by two ENIs is one workload."""
        accounts = Accounts(max_workloads=1)
        accounts.task("a", VETH)
        accounts.kernel.send(1, tag=VETH, ingress=VETH)
        accounts.kernel.send(2, tag=VETH, ingress=VETH, eni=SECOND_ENI)
        accounts.update()
        assert accounts.rows(SECOND_ENI) == {task("a"): 2}

    def test_room_is_free_again_when_a_series_ends(self):
        """Ended, or its ENI gone: the next one may be named."""
        accounts = Accounts(max_workloads=1)
        for number, name in enumerate("abc"):
            accounts.task(name, VETH + number)
        accounts.kernel.send(1, tag=VETH, ingress=VETH, eni=SECOND_ENI)
        accounts.update()
        accounts.ledger.forget_eni(SECOND_ENI)
        del accounts.kernel.overflow[SECOND_ENI]
        accounts.kernel.send(2, tag=VETH + 1, ingress=VETH + 1)
        assert accounts.update() == {task("b"): 2}
        accounts.workloads.end("b")
        accounts.update(ENDED_AFTER_S)
        accounts.kernel.send(3, tag=VETH + 2, ingress=VETH + 2)
        assert accounts.update() == {task("c"): 3}


class TestEnd:
    """Series end five minutes after the last packet of a workload that is gone."""

    def test_what_it_had_goes_to_ended(self, accounts):
        """Not a second early, and the total does not change."""
        accounts.task("a", VETH)
        accounts.kernel.send(5, tag=VETH, ingress=VETH)
        accounts.update()
        accounts.workloads.end("a")
        assert accounts.update(ENDED_AFTER_S - 0.1) == {task("a"): 5}
        assert accounts.update(0.1) == {}
        assert dict(accounts.ledger.ended[ENI]) == {CELL: 5}
        assert dict(accounts.ledger.totals(ENI)) == {CELL: 5}

    def test_the_living_and_the_nameless_never_end(self, accounts):
        """Silence is not death."""
        accounts.task("a", VETH)
        accounts.kernel.send(5, tag=VETH, ingress=VETH)
        accounts.kernel.send(1, ingress=BRIDGE)
        accounts.update()
        assert accounts.update(10 * ENDED_AFTER_S) == {task("a"): 5, UNATTRIBUTED: 1}


class TestForgetEni:
    """An interface is gone, and its index is given to another one."""

    def test_old_rows_of_the_kernel_are_not_the_next_ones(self, accounts):
        """Neither what was seen, nor what was sent in the last moment, nor credit, nor overflow."""
        accounts.task("a", VETH, addresses=("10.0.0.1",))
        accounts.kernel.send(5, tag=VETH, ingress=VETH)
        accounts.kernel.send(5, ingress=BRIDGE, source="10.0.0.1")
        accounts.kernel.overflow[ENI][CELL] = 7
        accounts.update()
        accounts.kernel.send(2, tag=VETH, ingress=VETH)
        del accounts.kernel.overflow[ENI]
        accounts.ledger.forget_eni(ENI)
        assert accounts.update() == {}
        accounts.kernel.overflow[ENI] = {CELL: 3}
        assert accounts.update() == {UNATTRIBUTED: 3}
        accounts.kernel.send(1, tag=VETH, ingress=VETH)
        accounts.kernel.send(4, ingress=BRIDGE)
        assert accounts.update() == {task("a"): 1, UNATTRIBUTED: 7}

    def test_what_waits_there_is_forgotten_and_only_there(self, accounts):
        """A waiting packet of another ENI, or of a branch on the same device, is not touched."""
        accounts.task("a", VETH, known=False)
        for eni in (SECOND_ENI, BRANCH):
            key = accounts.kernel.send(2, tag=VETH, ingress=VETH, eni=eni)
        accounts.update()
        accounts.ledger.forget_eni(SECOND_ENI)
        accounts.update()
        assert accounts.rows(SECOND_ENI) == {}
        assert accounts.rows(BRANCH) == {PENDING: 2}
        assert accounts.ledger.settled(key) is False


def remote(address):
    """A client on another node."""
    return Workload("remote", workload=address)


class TestAskers:
    """What a cache sends for somebody else is that client's."""

    @pytest.fixture
    def cache(self, accounts):
        """A resolver in a pod, and one client that has asked it."""
        accounts.task("dns", VETH)
        accounts.remotes = {REMOTE: Remote("10.0.9.9", 0)}
        return accounts

    @staticmethod
    def send(accounts, packets, asker=REMOTE, tag=VETH, ingress=VETH, eni=ENI, cell=CELL):
        """The cache sends, for *asker* or for itself."""
        key = SenderKey(*eni, tag, ingress, 0, *cell, asker)
        accounts.kernel.senders[key] += packets
        accounts.kernel.overflow.setdefault(eni, {})
        return key

    @staticmethod
    def update(accounts, after_s=1.0, grace_s=GRACE_S):
        """Another sample; packets by account."""
        accounts.now_s += after_s
        seen = ladder(accounts.kernel, accounts.workloads, accounts.veths)
        seen = replace(seen, remotes=accounts.remotes)
        sample = accounts.kernel.sample(accounts.now_s)
        accounts.ledger.update(sample, seen, accounts.now_s, grace_s)
        return accounts.rows_by_account()

    def test_it_has_an_account_of_its_own(self, cache):
        """Beside what the cache sends for itself; both are in the ENI's total."""
        self.send(cache, 5)
        self.send(cache, 2, asker=0)
        expected = {(remote("10.0.9.9"), CACHE): 5, (task("dns"), DIRECT): 2}
        assert self.update(cache) == expected
        assert sum(cache.ledger.totals(ENI).values()) == cache.recent() == 7
        assert cache.ledger.tag_lost == 0

    def test_one_that_nobody_knows_is_the_caches(self, cache):
        """Its id was given up, or is not read yet: the sender is certain."""
        cache.remotes = {}
        self.send(cache, 5)
        assert self.update(cache) == {(task("dns"), DIRECT): 5}
        cache.remotes = {REMOTE: Remote("10.0.9.9", 0)}
        self.send(cache, 1)
        assert self.update(cache) == {
            (task("dns"), DIRECT): 5, (remote("10.0.9.9"), CACHE): 1,
        }  # fmt: skip

    def test_it_does_not_wait_for_the_caches_name(self, cache):
        """Nobody knows the cache yet: its client is known all the same."""
        cache.task("new", VETH + 1, known=False)
        self.send(cache, 3, tag=VETH + 1, ingress=VETH + 1)
        self.send(cache, 4, asker=0, tag=VETH + 1, ingress=VETH + 1)
        expected = {(remote("10.0.9.9"), CACHE): 3, (PENDING, DIRECT): 4}
        assert self.update(cache) == expected

    def test_what_waits_goes_to_it_when_it_is_known(self, cache):
        """Neither the cache nor its client had a name, then the client has one."""
        cache.task("new", VETH + 1, known=False)
        cache.remotes = {}
        key = self.send(cache, 3, tag=VETH + 1, ingress=VETH + 1)
        assert self.update(cache) == {(PENDING, DIRECT): 3}
        cache.remotes = {REMOTE: Remote("10.0.9.9", 0)}
        assert self.update(cache) == {(remote("10.0.9.9"), CACHE): 3}
        assert cache.ledger.settled(key)

    def test_it_spends_no_credit(self, cache):
        """What came from nowhere for a known client is not paid for by a known address."""
        cache.task("a", VETH + 1, addresses=("10.0.0.1",))
        self.send(cache, 3, tag=0, ingress=BRIDGE)
        cache.kernel.sources[*ENI, "10.0.0.1", *CELL] += 3
        assert self.update(cache) == {(remote("10.0.9.9"), CACHE): 3}

    def test_an_id_given_to_the_next_one_begins_at_nothing(self, cache):
        """The client was silent, its rows were removed; the same id is another's now."""
        key = self.send(cache, 5)
        self.update(cache)
        del cache.kernel.senders[key]
        cache.ledger.forget_sender(key)
        cache.remotes = {REMOTE: Remote("10.0.9.10", 0)}
        self.send(cache, 2)
        assert self.update(cache) == {
            (remote("10.0.9.9"), CACHE): 5, (remote("10.0.9.10"), CACHE): 2,
        }  # fmt: skip

    def test_it_ends_when_it_has_been_silent(self, cache):
        """Nobody tells of its end; its packets stay in the ENI's total."""
        self.send(cache, 5)
        self.update(cache)
        assert self.update(cache, ENDED_AFTER_S) == {}
        assert dict(cache.ledger.ended[ENI]) == {CELL: 5}

    def test_those_without_room_are_other_by_way_of_the_cache(self, accounts):
        """Spoofed addresses take no more names than there are, and never one that is taken."""
        accounts.ledger = Ledger(2, accounts.workloads.is_running)
        accounts.task("dns", VETH)
        accounts.remotes = {REMOTE + n: Remote(f"10.0.9.{n}", 0) for n in range(5)}
        self.send(accounts, 1, asker=0)
        self.update(accounts)
        for n in range(5):
            self.send(accounts, 1, asker=REMOTE + n)
        self.send(accounts, 1, asker=0)
        assert self.update(accounts) == {
            (task("dns"), DIRECT): 2, (remote("10.0.9.0"), CACHE): 1, (OTHER, CACHE): 4,
        }  # fmt: skip

    @pytest.mark.parametrize("number", range(60))
    def test_the_sums_hold_with_them(self, number):
        """Clients and caches come and go, ids are given again, names come late: it all adds up.

        And no client is charged with more than was sent for it.
        """
        print("seed", SEED, number)
        rng = random.Random(f"{SEED}-{number}")
        accounts = Accounts(rng.choice((2, 5, 200)))
        accounts.remotes = {}
        enis = (ENI, SECOND_ENI, BRANCH, (1 << 31 | 1, 0))
        for veth in (VETH, VETH + 1, VETH + 2):
            accounts.task(f"t{veth}", veth, known=veth != VETH + 2)
        accounts.workloads.add(container("own", netns=77, cgroup=770))
        removed, asked_for, born = defaultdict(int), defaultdict(int), 0
        for _ in range(100):
            if rng.random() < 0.3 and len(accounts.remotes) < 6:
                born += 1
                free = next(i for i in range(REMOTE, REMOTE + 9) if i not in accounts.remotes)
                accounts.remotes[free] = Remote(f"10.0.{born}.1", 0)
            if rng.random() < 0.1:
                accounts.workloads.eni_appeared(enis[3], 77)
            if rng.random() < 0.05:
                accounts.task(f"t{VETH + 2}", VETH + 2)
            for _ in range(rng.randrange(6)):
                asker = rng.choice([0, 0, 0x8FFF, *accounts.remotes])  # one of them nobody knows
                packets = rng.choice((0, 1, 7))
                self.send(
                    accounts, packets, asker, rng.choice((0, VETH, VETH + 2, 99)),
                    rng.choice((0, BRIDGE, VETH, VETH + 1, VETH + 2)), rng.choice(enis),
                    rng.choice((CELL, ("resolver", "tcp"), ("dns_other", "udp"))),
                )  # fmt: skip
                if asker in accounts.remotes:
                    asked_for[accounts.remotes[asker].address] += packets
            self.update(accounts, rng.choice((0.5, 1.0, 6.0, ENDED_AFTER_S)))
            for eni in enis:
                ended = sum(accounts.ledger.ended.get(eni, {}).values())
                packets = sum(accounts.rows_by_account(eni).values())
                assert packets + ended == accounts.kernel.total(eni) + removed[eni]
            charged = defaultdict(int)
            for eni in enis:
                for (workload, via), packets in accounts.rows_by_account(eni).items():
                    assert (via == CACHE) is (workload.kind == "remote") or workload == OTHER
                    if workload.kind == "remote":
                        charged[workload.workload] += packets
            assert all(charged[address] <= asked_for[address] for address in charged)
            if accounts.remotes and rng.random() < 0.2:
                self.give_up(accounts, rng.choice([*accounts.remotes]), removed)

    @staticmethod
    def give_up(accounts, asker, removed):
        """An id is free again, as `kernel.remotes` does it."""
        rows = [key for key in accounts.kernel.senders if key.asker == asker]
        if all(map(accounts.ledger.settled, rows)):
            del accounts.remotes[asker]
            for key in rows:
                removed[key.dev, key.vlan] += accounts.kernel.senders.pop(key)
                accounts.ledger.forget_sender(key)


def test_nothing_waits_longer_than_a_tag_must_be_quiet():
    """A veth is forgotten with its tag, so by then its packets must have been charged."""
    assert QUIET_S >= GRACE_S


# --- everything at once -----------------------------------------------------------------------


@dataclass
class Life:
    """One task from its veth to its last report."""

    name: str
    veth: int
    nsid: int
    cgroup: int
    tag: int
    address: str
    add_in: int
    end_in: int
    told_of_end_in: int
    known: bool = False


class World:
    """Tasks come and go with numbers that are used again at once, and send by every rung.

    `sent` is the truth: what each task really put on each ENI.
    """

    def __init__(self, seed, max_workloads):
        self.rng = random.Random(seed)
        self.accounts = Accounts(max_workloads)
        self.kernel, self.workloads = self.accounts.kernel, self.accounts.workloads
        self.enis = (ENI, SECOND_ENI, BRANCH)
        for eni in self.enis:
            self.kernel.overflow[eni] = {}
        self.alive, self.quiet, self.dead = [], [], []
        self.born = 0
        self.sent = defaultdict(int)
        self.late = []
        self.removed = defaultdict(int)

    def lowest_free(self, taken):
        """As the kernel gives numbers."""
        return next(n for n in range(1, 100) if n not in taken)

    def birth(self):
        """A task starts, its name known at once, late, or never."""
        self.born += 1
        number, rng = self.born, self.rng
        life = Life(
            name=f"t{number}",
            veth=1000 + number,
            nsid=self.lowest_free({other.nsid for other in self.alive}),
            cgroup=5000 + number,
            tag=self.lowest_free({o.tag for o in (*self.alive, *self.quiet, *self.dead)}),
            address=f"10.1.{number // 200}.{number % 200}",
            add_in=rng.choice((0, 0, 0, 1, 2, 9)),
            end_in=rng.randint(1, 25),
            told_of_end_in=rng.choice((0, 0, 1)),
        )
        self.workloads.veth_appeared(life.veth, life.nsid)
        self.accounts.veths.add(life.veth)
        self.kernel.origin(life.veth, life.cgroup, life.tag)
        self.alive.append(life)

    def traffic(self, life):
        """A task sends by one of the rungs, or nothing."""
        rng, packets = self.rng, self.rng.choice((0, 1, 3, 50))
        eni = rng.choice(self.enis)
        cell = rng.choice((CELL, ("resolver", "tcp"), ("ntp", "udp")))
        way = rng.choice(("tag", "tag", "bridged", "veth", "contradicted", "nowhere"))
        if not packets:
            return
        self.sent[eni, life.name] += packets
        if way == "nowhere":
            self.kernel.sources[*eni, life.address, *cell] += packets
            if rng.random() < 0.3:  # sources were read after senders
                self.late.append((packets, eni, cell))
                return
            self.kernel.send(packets, ingress=BRIDGE, eni=eni, cell=cell)
            return
        foreign = rng.choice([other.tag for other in self.alive])
        tag = {"tag": life.tag, "bridged": life.tag, "veth": 0, "contradicted": foreign}[way]
        ingress = BRIDGE if way == "bridged" else life.veth
        self.kernel.send(packets, tag=tag, ingress=ingress, eni=eni, cell=cell)

    def step(self):
        """A moment of it all, and an update."""
        rng = self.rng
        for packets, eni, cell in self.late:
            self.kernel.send(packets, ingress=BRIDGE, eni=eni, cell=cell)
        self.late.clear()
        if rng.random() < 0.6 and len(self.alive) < 12:
            self.birth()
        for life in list(self.alive):
            self.traffic(life)
            if life.add_in == 0 and not life.known:
                life.known = True
                self.workloads.add(
                    container(life.name, netns=4026532000 + life.nsid, nsid=life.nsid,
                              cgroup=life.cgroup, addresses=(life.address,))
                )  # fmt: skip
            life.add_in -= 1
            life.end_in -= 1
            if life.end_in <= 0:
                self.alive.remove(life)
                self.quiet.append(life)
                self.accounts.veths.discard(life.veth)
                self.workloads.veth_gone(life.veth)
        for life in list(self.quiet):
            if life.told_of_end_in == 0:
                self.workloads.end(life.name)
                self.quiet.remove(life)
                self.dead.append(life)
            life.told_of_end_in -= 1
        if rng.random() < 0.3:
            cell = rng.choice((CELL, ("ntp", "udp")))
            over = self.kernel.overflow[rng.choice(self.enis)]
            over[cell] = over.get(cell, 0) + rng.randint(1, 5)
        self.kernel.send(rng.randint(0, 2), cgroup=0, eni=rng.choice(self.enis))
        self.accounts.update(rng.choice((0.3, 1.0, 1.0, 6.0, ENDED_AFTER_S)))
        self.release()

    def release(self):
        """Tags of the dead come back once all is charged, as `kernel.tags` does it."""
        settled = self.accounts.ledger.settled
        tagged = defaultdict(list)
        for key in self.kernel.senders:
            tagged[key.origin].append(key)
        for life in list(self.dead):
            by_veth = [key for key in self.kernel.senders if key.ingress == life.veth]
            if not all(map(settled, (*tagged[life.tag], *by_veth))):
                continue
            self.dead.remove(life)
            del self.kernel.origins[life.veth, life.cgroup]
            for key in tagged[life.tag]:
                self.removed[key.dev, key.vlan] += self.kernel.senders.pop(key)
                self.accounts.ledger.forget_sender(key)
            self.workloads.forget_veth(life.veth)


@pytest.mark.parametrize("max_workloads", [3, 200])
@pytest.mark.parametrize("seed", range(12))
def test_the_sums_hold_at_every_moment(seed, max_workloads):
    """Whatever comes and goes: accounts add up, only rise, stay where they are, and are true."""
    world = World(seed, max_workloads)
    ledger, before = world.accounts.ledger, {}
    for _ in range(120):
        world.step()
        for eni in world.enis:
            rows = world.accounts.rows(eni)
            ended = sum(ledger.ended.get(eni, {}).values())
            assert sum(rows.values()) + ended == world.kernel.total(eni) + world.removed[eni]
            assert sum(ledger.totals(eni).values()) == sum(rows.values()) + ended
            old_rows, old_ended, old_total = before.get(eni, ({}, 0, 0))
            assert world.accounts.recent(eni) == sum(rows.values()) + ended - old_total
            assert ended >= old_ended
            for workload, packets in old_rows.items():
                if workload in rows:
                    assert rows[workload] >= packets or workload == PENDING
                else:
                    assert workload == PENDING or not world.workloads.is_running(workload)
            by_task = defaultdict(int)
            for workload, packets in rows.items():
                if workload.kind == "ecs_task":
                    by_task[workload.workload.split(":")[0]] += packets
            for name, packets in by_task.items():
                assert packets <= world.sent[eni, name]
            before[eni] = (rows, ended, sum(rows.values()) + ended)
        named = {w for rows in ledger.rows.values() for w, _ in rows}
        assert len(named - {OTHER, UNATTRIBUTED, PENDING}) <= max_workloads
    if max_workloads == 200:
        assert len(named) > 5, "the world was too quiet to show anything"


def test_a_row_does_not_grow_with_its_containers(accounts):
    """A task that is restarted all day is one row; two cgroups say that there is no single one."""
    for number in range(60):
        veth = VETH + number
        accounts.veths.add(veth)
        accounts.workloads.veth_appeared(veth, veth)
        accounts.kernel.origin(veth, veth * 10, veth)
        accounts.workloads.add(
            container(f"c{number}", task("a"), netns=veth, nsid=veth, cgroup=veth * 10)
        )
        accounts.kernel.send(1, tag=veth, ingress=veth)
    assert accounts.update() == {task("a"): 60}
    (row,) = accounts.ledger.rows[ENI].values()
    assert len(row.cgroups) == 2
