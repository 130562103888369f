"""Queues in threads of their own: tried again ever less often, bounded, counted, and soon ended."""

import itertools
import threading
import time

import pytest
from eni53.errors import SourceError
from eni53.sinks.delivery import MAX_AGE_S, MAX_WAITING, Delivery
from eni53.sinks.receivers import Alertmanager, Webhook

from tests.fixtures.alerts import alert, until
from tests.fixtures.receiver import receiving


class Waits:
    """Time that goes by only where a delivery waits."""

    def __init__(self):
        self.now_s = 0.0
        self.waited = []

    def wait(self, seconds):
        """As long as nobody stops it."""
        self.waited.append(seconds)
        self.now_s += seconds
        return False

    def clock(self):
        """Monotonic seconds."""
        return self.now_s


class Stuck:
    """A receiver that takes nothing until it is let go."""

    name = "stuck"

    def __init__(self, *, together=True):
        self.together = together
        self.taken = []
        self.entered, self.free = threading.Event(), threading.Event()

    def send(self, items):
        """Hang, then take them."""
        self.entered.set()
        self.free.wait(30)
        self.taken.append(items)


class Down:
    """A receiver that is never there."""

    name, together = "down", True

    def send(self, items):
        """Refuse."""
        raise SourceError("down: not there")


def results(delivery):
    """By result alone."""
    return {result: n for (_, result), n in delivery.results.items()}


@pytest.fixture
def run():
    """Starts deliveries and ends them."""
    made = []

    def start(receiver, **more):
        made.append(Delivery(receiver, **more))
        made[-1].start()
        return made[-1]

    yield start
    for delivery in made:
        delivery.end()
        delivery.join(0.1)


def test_what_is_put_arrives_in_order(run):
    """One POST for each alert, in the order of the transitions."""
    with receiving() as server:
        delivery = run(Webhook(f"{server.url}/hook"))
        delivery.put((alert("warning"), alert("critical")))
        delivery.put((alert("exceeded"),))
        assert until(lambda: results(delivery)["delivered"] == 3)
    assert [body["severity"] for body in server.bodies] == ["warning", "critical", "exceeded"]
    assert {path for path, _, _ in server.posts} == {"/hook"}
    assert results(delivery) == {"delivered": 3, "retried": 0, "dropped": 0}


@pytest.mark.parametrize("mood", [500, 404, 302, 307, "cut", "garbage"])
def test_who_does_not_take_it_is_asked_again(run, mood):
    """Whatever it was that was not 2xx; a redirect is followed nowhere."""
    waits = Waits()
    with receiving() as server:
        server.moods = [mood, mood, mood]
        delivery = run(Webhook(f"{server.url}/hook"), wait=waits.wait, clock=waits.clock)
        delivery.put((alert(),))
        assert until(lambda: results(delivery)["delivered"] == 1)
    assert waits.waited == [1.0, 2.0, 4.0]
    assert results(delivery) == {"delivered": 1, "retried": 3, "dropped": 0}
    assert [path for path, _, _ in server.posts] == ["/hook"] * 4


def test_only_what_failed_is_sent_again(run):
    """A webhook gets one POST per transition: one that failed repeats no other."""
    waits = Waits()
    with receiving() as server:
        server.moods = [200, 503, 200, 200]
        delivery = run(Webhook(server.url), wait=waits.wait, clock=waits.clock)
        delivery.put((alert("warning"), alert("critical"), alert("exceeded")))
        assert until(lambda: results(delivery)["delivered"] == 3)
    assert [body["severity"] for body in server.bodies] == [
        "warning", "critical", "critical", "exceeded",
    ]  # fmt: skip


def test_what_came_together_goes_together_where_that_is_right(run):
    """Alertmanager takes a list."""
    with receiving() as server:
        delivery = run(Alertmanager(server.url))
        delivery.put((alert("warning"), alert("critical")))
        assert until(lambda: results(delivery)["delivered"] == 2)
    ((path, _, body),) = server.posts
    assert (path, len(body)) == ("/api/v2/alerts", 2)


def test_ever_less_often_and_at_last_no_more(run):
    """Doubling up to a minute; after a quarter of an hour it is given up, and counted."""
    waits = Waits()
    delivery = run(Down(), wait=waits.wait, clock=waits.clock)
    delivery.put(("one", "two"))
    assert until(lambda: results(delivery)["dropped"] == 2)
    assert waits.waited[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert max(waits.waited) == 60
    assert MAX_AGE_S - 60 <= sum(waits.waited) <= MAX_AGE_S
    assert results(delivery) == {
        "delivered": 0, "retried": 2 * len(waits.waited), "dropped": 2,
    }  # fmt: skip


def test_what_waited_too_long_behind_another_is_tried_once(run):
    """Its age counts from when it was put, not from its first attempt."""
    waits = Waits()
    delivery = Delivery(Down(), wait=waits.wait, clock=waits.clock)
    for number in range(3):
        delivery.put((number,))
    delivery.start()
    assert until(lambda: results(delivery)["dropped"] == 3)
    assert sum(waits.waited) <= MAX_AGE_S
    delivery.end()
    delivery.join()


def test_nobody_listens_at_first(run):
    """A receiver that comes up later gets it then."""
    waited = threading.Event()
    with receiving() as gone:
        port = gone.server_port
    delivery = run(
        Webhook(f"http://127.0.0.1:{port}"), wait=lambda _: waited.set() or time.sleep(0.02)
    )
    delivery.put((alert(),))
    assert waited.wait(10)
    assert results(delivery)["delivered"] == 0
    with receiving(port=port) as late:
        assert until(lambda: results(delivery)["delivered"] == 1)
    assert len(late.posts) == 1


def test_putting_never_blocks_and_the_queue_has_an_end(run):
    """While a receiver hangs, what finds no room is dropped, and counted item by item."""
    stuck = Stuck()
    delivery = run(stuck)
    delivery.put(("held",))
    assert stuck.entered.wait(10)
    begin = time.monotonic()
    for number in range(MAX_WAITING + 10):
        delivery.put((number, number))
    assert time.monotonic() - begin < 1
    assert results(delivery)["dropped"] == 20
    stuck.free.set()
    assert until(lambda: results(delivery)["delivered"] == 1 + 2 * MAX_WAITING)
    assert stuck.taken == [("held",), *((n, n) for n in range(MAX_WAITING))]


def test_no_count_is_lost_between_two_threads(run):
    """Dropped by the loop and dropped by the thread are one sum."""
    delivery = run(Down(), wait=lambda _: True)
    sent = itertools.count()
    for _ in range(3000):
        delivery.put((next(sent),))
    assert until(lambda: results(delivery)["dropped"] == 3000)


@pytest.mark.parametrize("mood", ["silent", "drip", "continue"])
def test_who_hangs_does_not_hold_up_the_end(mood):
    """stop is over within seconds, whatever the other side does."""
    with receiving() as server:
        server.mood = mood
        delivery = Delivery(Webhook(server.url))
        delivery.start()
        delivery.put((alert(),))
        assert until(lambda: server.posts)
        begin = time.monotonic()
        delivery.end()
        delivery.join()
        assert time.monotonic() - begin < 8
        assert until(lambda: results(delivery)["dropped"] == 1)
    assert not delivery._thread.is_alive()


def test_the_end_comes_at_once_while_it_waits_for_the_next_attempt():
    """Nobody sleeps out a minute."""
    delivery = Delivery(Down())
    delivery.start()
    delivery.put(("one",))
    assert until(delivery._waiting.empty)
    begin = time.monotonic()
    delivery.end()
    delivery.join()
    assert time.monotonic() - begin < 3
    assert results(delivery) == {"delivered": 0, "retried": 0, "dropped": 1}


def test_what_waits_at_the_end_is_tried_once_more():
    """The alert of the last second before a restart still leaves."""
    with receiving() as server:
        server.mood = "slow"
        delivery = Delivery(Webhook(server.url))
        delivery.start()
        delivery.put((alert("warning"), alert("critical"), alert("exceeded")))
        delivery.end()
        delivery.join()
    assert [body["severity"] for body in server.bodies] == ["warning", "critical", "exceeded"]
    assert results(delivery)["delivered"] == 3


def test_an_end_without_a_beginning():
    """When the start fails, what was never started ends too."""
    delivery = Delivery(Down())
    delivery.end()
    delivery.join()
