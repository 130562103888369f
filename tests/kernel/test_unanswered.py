"""Queries that nobody answered within two seconds: each once, none else, and none too early."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from eni53.kernel import bpf, layout
from eni53.kernel.attach import EGRESS, ENI_HOOKS, INGRESS, TASK_HOOKS, Hooks

from . import frames as f
from .kernel import Kernel
from .queries import (
    CLIENT4,
    FINAL_S,
    RESOLVER4,
    RESOLVER6,
    ask,
    clear,
    counters,
    crowd,
    fresh,
    grow_older,
    reply,
    unanswered,
)

_KEY = layout.ENI_KEY.packer
_SIZE = layout.ENI.packer.size
_SPAN_AT = next(offset for name, offset, _ in layout.ENI.offsets() if name == "span")


@pytest.fixture(autouse=True)
def _nobody_waits(bench: Kernel) -> Iterator[None]:
    """Or queries of one test would stand in the places of another's, and have its answers."""
    clear(bench)
    yield
    clear(bench)


def test_an_answer_in_time_and_none(bench: Kernel) -> None:
    """What was answered is not counted; what was not is, two to three and a half seconds later."""
    bench.forget()
    one, two, three = fresh(), fresh(), fresh()
    for identity in (one, two, three):
        ask(bench, identity)
    reply(bench, two)
    assert unanswered(bench, later_s=0) == 0
    assert unanswered(bench, later_s=1.9) == 0, "its answer may still come"
    assert unanswered(bench, later_s=FINAL_S) == 2


@pytest.mark.parametrize(("waited_s", "wanted"), [(1.0, 0), (2.05, 1), (4.0, 1)])
def test_an_answer_that_comes_late(bench: Kernel, waited_s: float, wanted: int) -> None:
    """After two seconds nobody has waited for it: it has a latency, and its query stays counted."""
    bench.forget()
    identity = fresh()
    ask(bench, identity)
    grow_older(bench, waited_s)
    reply(bench, identity)
    assert unanswered(bench) == wanted
    seen = counters(bench)
    assert seen.responses == {0: 1}
    assert seen.response_sum_s >= waited_s


def test_a_retransmission_is_the_same_query(bench: Kernel) -> None:
    """Asked three times and answered once is answered; asked three times in vain counts once."""
    bench.forget()
    before = bench.maps.read().stats["query_evicted"]
    one, two = fresh(), fresh()
    for identity in (one, two, one, two, one, two):
        ask(bench, identity)
    reply(bench, one)
    grow_older(bench, 2.5)
    ask(bench, two)
    assert unanswered(bench) == 1
    assert bench.maps.read().stats["query_evicted"] == before


def test_who_asks_again_after_five_seconds_asks_anew(bench: Kernel) -> None:
    """More queries of the same port and id than a set has places; an answer is the last one's."""
    bench.forget()
    identity, in_vain = fresh(), layout.SETTINGS["QUERY_WAYS"] + 1
    for _ in range(in_vain):
        ask(bench, identity)
        grow_older(bench, 5.1)
    ask(bench, identity)
    reply(bench, identity)
    assert unanswered(bench) == in_vain
    assert counters(bench).response_sum_s < 2


def test_a_second_answer_takes_nothing_off(bench: Kernel) -> None:
    """Nor does one that nobody asked for."""
    bench.forget()
    one, two = fresh(), fresh()
    ask(bench, one)
    ask(bench, two)
    for identity in (one, one, one, fresh()):
        reply(bench, identity)
    assert unanswered(bench) == 1


def test_two_resolvers_asked_with_one_id(bench: Kernel) -> None:
    """As glibc does: the answer of one is not the other's, over IPv4 and IPv6."""
    bench.forget()
    identity = fresh()
    for resolver in (RESOLVER4, "169.254.169.253", RESOLVER6):
        ask(bench, identity, resolver=resolver)
    reply(bench, identity, resolver="169.254.169.253")
    assert unanswered(bench) == 2
    assert counters(bench).responses == {0: 1}


def test_ipv6(bench: Kernel) -> None:
    """One answered, one not."""
    bench.forget()
    one, two = fresh(), fresh()
    for identity in (one, two):
        ask(bench, identity, resolver=RESOLVER6)
    reply(bench, two, resolver=RESOLVER6)
    assert unanswered(bench) == 1


@pytest.mark.parametrize(("age_s", "wanted"), [(0.0, 1), (1.0, 1), (2.05, 2)])
def test_a_query_that_lost_its_place(bench: Kernel, age_s: float, wanted: int) -> None:
    """While it could have been answered nobody knows, so it is not counted; later it is settled."""
    bench.forget()
    before = bench.maps.read().stats["query_evicted"]
    identity = fresh()
    ask(bench, identity)
    crowd(bench)
    grow_older(bench, age_s)
    ask(bench, identity)
    assert bench.maps.read().stats["query_evicted"] == before + 1
    assert unanswered(bench) == wanted


def test_many_wait_at_once(bench: Kernel) -> None:
    """1500 within two seconds, more than AWS lets through in one: none loses its place, or one."""
    bench.forget()
    before = bench.maps.read().stats["query_evicted"]
    for identity in range(1500):
        ask(bench, identity)
    for identity in range(0, 1500, 2):
        reply(bench, identity)
    evicted = bench.maps.read().stats["query_evicted"] - before
    assert evicted <= 1
    assert 750 - evicted <= unanswered(bench) <= 750


def test_a_query_pushed_out_by_one_of_another_eni(bench: Kernel) -> None:
    """The table is for all ENIs: what is unknown is taken off where it was counted."""
    bench.forget([11])
    lost, kept = fresh(), fresh()
    ask(bench, lost)
    crowd(bench)
    ask(bench, kept)
    ask(bench, lost, vlan=11)
    assert unanswered(bench) == 1
    assert unanswered(bench, 11) == 1


def test_a_branch_eni_has_its_own(bench: Kernel) -> None:
    """Query and answer carry its tag; on the trunk itself nothing happened."""
    bench.forget()
    one, two, three = fresh(), fresh(), fresh()
    for identity in (one, two, three):
        ask(bench, identity, vlan=12)
    reply(bench, two, vlan=12)
    assert unanswered(bench, 12) == 2
    assert unanswered(bench) == 0


def test_a_tag_that_means_nothing(bench: Kernel) -> None:
    """Counted with its device; so the answer is looked for there, with the tag and without."""
    bench.forget()
    bench.maps.remove_eni(bench.dev)
    bench.maps.add_eni(bench.dev)
    one, two, three = fresh(), fresh(), fresh()
    for identity in (one, two, three):
        ask(bench, identity, vlan=99)
    reply(bench, one, vlan=99)
    reply(bench, two)
    assert unanswered(bench) == 1
    assert sum(counters(bench).response_buckets) == 2


def test_a_task_of_its_own(in_task: Kernel) -> None:
    """The same for an ENI in a task's namespace."""
    one, two = fresh(), fresh()
    for identity in (one, two):
        ask(in_task, identity, program="task_egress")
    reply(in_task, one, program="task_ingress")
    assert unanswered(in_task) == 1


def test_what_is_no_query(bench: Kernel) -> None:
    """TCP, answers that go out, another port: nothing waits for an answer."""
    bench.forget()
    payload = f.dns_query(identity=fresh())
    for carried, protocol in (
        (f.tcp(53, 41000, payload), f.TCP),
        (f.udp(53, 41000, f.dns_answer(identity=fresh())), f.UDP),
        (f.udp(53, 41000), f.UDP),
        (f.udp(123, 41000, payload), f.UDP),
    ):
        bench.run("eni_egress", f.ipv4(carried, protocol, RESOLVER4, CLIENT4))
    assert unanswered(bench) == 0


def test_another_eni_with_the_same_index(bench: Kernel) -> None:
    """An answer to a query of the one before it takes nothing from the new one."""
    bench.forget()
    old, new = fresh(), fresh()
    ask(bench, old)
    bench.forget()
    reply(bench, old)
    ask(bench, new)
    assert unanswered(bench) == 1


@pytest.mark.parametrize("looks_often", [True, False])
def test_places_come_round_again(bench: Kernel, looks_often: bool) -> None:
    """Seven seconds, more spans than there are places: nothing is lost or told before its time, and
    it never falls, whether somebody looks all the while or only at the end.
    """
    bench.forget()
    started = time.monotonic()
    sent: list[float] = []
    told = 0
    while (now := time.monotonic()) < started + 7:
        in_vain, answered = fresh(), fresh()
        sent.append(now)
        ask(bench, in_vain)
        ask(bench, answered)
        reply(bench, answered)
        if looks_often:
            earliest = time.monotonic()
            found = unanswered(bench, later_s=0)
            assert told <= found <= sum(at < time.monotonic() - 2 for at in sent)
            assert found >= sum(at < earliest - FINAL_S - 0.1 for at in sent)
            told = found
        time.sleep(0.1)
    assert unanswered(bench) == len(sent)


@pytest.mark.parametrize("hooks", [ENI_HOOKS, TASK_HOOKS])
def test_answers_are_looked_for_before_queries(hooks: Hooks) -> None:
    """Attached the other way round, the first queries would have answers that nobody has seen."""
    assert [INGRESS, EGRESS] == [direction for _, direction in hooks]


def test_processors_that_open_a_span_at_once(bench: Kernel) -> None:
    """One was held up between looking and writing: what the other has counted stays unsettled."""
    bench.forget()
    enis, key = bench.loaded.maps["enis"], _KEY.pack(bench.dev, 0)
    early = bpf.map_lookup(enis, key, _SIZE)
    assert early is not None
    one, two, three = fresh(), fresh(), fresh()
    ask(bench, one)
    value = bpf.map_lookup(enis, key, _SIZE)
    assert value is not None
    assert value[_SPAN_AT : _SPAN_AT + 8] != early[_SPAN_AT : _SPAN_AT + 8]
    stale = value[:_SPAN_AT] + early[_SPAN_AT : _SPAN_AT + 8] + value[_SPAN_AT + 8 :]
    bpf.map_update(enis, key, stale)
    ask(bench, two)
    ask(bench, three)
    assert unanswered(bench, later_s=0) == 0
    reply(bench, one)
    reply(bench, three)
    assert unanswered(bench) == 1


def test_processors_at_work_together(bench: Kernel) -> None:
    """Two ask and are answered at once, over several spans: at no moment is one unanswered."""
    bench.forget()
    stop = threading.Event()

    def work(first: int) -> int:
        done = 0
        while not stop.is_set():
            ask(bench, first + done % 10000)
            reply(bench, first + done % 10000)
            done += 1
        return done

    with ThreadPoolExecutor() as pool:
        workers = [pool.submit(work, first) for first in (20000, 40000)]
        end = time.monotonic() + 3.5
        try:
            while time.monotonic() < end:
                assert unanswered(bench, later_s=0) == 0
                time.sleep(0.02)
        finally:
            stop.set()
    asked = sum(worker.result() for worker in workers)
    assert unanswered(bench) == 0
    assert counters(bench).responses == {0: asked}


def test_the_counter_does_not_fall(bench: Kernel) -> None:
    """Should the kernel's own sum be less than it was, the agent stays with what it has told."""
    bench.forget()
    ask(bench, fresh())
    assert unanswered(bench) == 1
    enis, key = bench.loaded.maps["enis"], _KEY.pack(bench.dev, 0)
    value = bpf.map_lookup(enis, key, _SIZE)
    assert value is not None
    at = _SPAN_AT + 8
    empty = bytes(layout.SPANS * 24)
    bpf.map_update(enis, key, value[:at] + empty + value[at + len(empty) :])
    assert unanswered(bench) == 1
    bench.forget()
    assert unanswered(bench) == 0
