"""From snapshots to the log and to whom the configuration names."""

import io
import json
import time
from dataclasses import replace

import pytest
from eni53 import log
from eni53.alerting import Alerting
from eni53.config import load
from eni53.errors import NeedError

from tests.fixtures.alerts import moment, until, usage
from tests.fixtures.hostile import hostile
from tests.fixtures.receiver import receiving


class Clock:
    """Monotonic seconds, for a test to set."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        """Now."""
        return self.now_s


@pytest.fixture
def lines():
    """Log lines, as objects, from here on."""
    out = io.StringIO()
    log.setup(stream=out)
    return lambda: [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def make():
    """Makes an Alerting that runs, of settings of ``[alerts]``."""
    made = []

    def start(clock=time.monotonic, **settings):
        config = load(None, {}, {f"alerts.{key}": value for key, value in settings.items()})
        made.append(Alerting(config, clock))
        made[-1].start()
        return made[-1]

    yield start
    for alerting in made:
        alerting.stop()


def test_the_log_always_says(make, lines):
    """One line per transition: how bad, who, how much of what."""
    alerting = make()
    for state in ("ok", "critical", "critical", "ok"):
        alerting.update(moment(usage(state, drops=3)))
    found = [(line["event"], line["severity"], line["level"]) for line in lines()]
    assert found == [
        ("eni53.alert_raised", "warning", "warning"),
        ("eni53.alert_raised", "critical", "error"),
        ("eni53.alert_cleared", "critical", "info"),
        ("eni53.alert_cleared", "warning", "info"),
    ]
    first = lines()[0]
    assert (first["eni"], first["peak_pps"], first["limit_pps"]) == ("eni-1", 1000.0, 1024)
    assert first["allowance_exceeded"] == 0
    assert first["workloads"][0] == "checkout-api:42/9b1fd2c07a3e4c5db6a80c3a11f2e9d4 60%"
    assert alerting.results == {}


def test_a_hostile_name_makes_no_second_line(make, lines):
    """One line per alert, printable."""
    alerting = make()
    (one,) = hostile().enis
    alerting.update(moment(replace(one, state="warning")))
    assert len(lines()) == 1
    assert all(text.isprintable() for text in lines()[0]["workloads"])


def test_both_receivers_are_told(make, lines):
    """Webhook one by one, Alertmanager all together, and each is counted by its name."""
    with receiving() as server:
        alerting = make(webhook=f"{server.url}/hook", alertmanager=server.url)
        alerting.update(moment(usage("critical")))
        alerting.update(moment(usage("critical")))
        assert until(lambda: alerting.results["webhook", "delivered"] == 2)
        assert until(lambda: alerting.results["alertmanager", "delivered"] == 2)
    found = [path for path, _, _ in server.posts]
    assert (found.count("/hook"), found.count("/api/v2/alerts")) == (2, 1)
    assert set(alerting.results) == {
        (sink, result) for sink in ("webhook", "alertmanager")
        for result in ("delivered", "retried", "dropped")
    }  # fmt: skip


def test_alertmanager_hears_it_again_every_minute(make, lines):
    """It forgets what is not repeated; a webhook hears of a transition once."""
    clock = Clock()
    with receiving() as server:
        alerting = make(clock, webhook=f"{server.url}/hook", alertmanager=server.url)
        for clock.now_s in range(0, 181, 1):
            alerting.update(moment(usage("warning"), at_s=clock.now_s))
        clock.now_s = 241
        alerting.update(moment(usage("ok"), at_s=241))
        clock.now_s = 302
        alerting.update(moment(usage("ok"), at_s=302))
        assert until(lambda: alerting.results["alertmanager", "delivered"] == 5)
        assert until(lambda: alerting.results["webhook", "delivered"] == 2)
    starts = {one["startsAt"] for path, _, body in server.posts if "api" in path for one in body}
    assert len(starts) == 1


def test_a_receiver_that_hangs_delays_no_update(make, lines):
    """Counting does not wait for anybody."""
    with receiving() as server:
        server.mood = "silent"
        alerting = make(webhook=server.url, alertmanager=server.url)
        begin = time.monotonic()
        for number in range(400):
            alerting.update(moment(usage("ok" if number % 2 else "exceeded"), at_s=number))
        assert time.monotonic() - begin < 4
        assert alerting.results["webhook", "dropped"] > 0
        begin = time.monotonic()
        alerting.stop()
        assert time.monotonic() - begin < 8


def test_several_that_hang_share_the_time_to_stop(make, lines):
    """The end of an agent is not the sum of what is slow."""
    with receiving() as server:
        server.mood = "drip"
        alerting = make(webhook=server.url, alertmanager=server.url)
        alerting.update(moment(usage("exceeded")))
        assert until(lambda: len(server.posts) == 2)
        begin = time.monotonic()
        alerting.stop()
        assert time.monotonic() - begin < 8


def test_nobody_to_be_told_costs_no_thread(make):
    """ssl and threads come with those who need them."""
    assert make()._deliveries == []


def test_events_without_a_service_account_end_the_start():
    """One line, and what to do."""
    with pytest.raises(NeedError, match="service account") as caught:
        Alerting(load(None, {}, {"alerts.kubernetes_events": True}))
    assert "\n" not in str(caught.value)


def test_lines_go_to_standard_output(make, lines, capfd):
    """One for each ENI at once and each minute, and one as its alerts change."""
    clock = Clock()
    alerting = make(clock, emf=True)
    for at, state in ((0, "ok"), (1, "ok"), (2, "exceeded"), (30, "exceeded"), (60, "exceeded")):
        clock.now_s = at
        alerting.update(moment(usage(state), usage("ok", label="eni-2"), at_s=at))
    assert until(lambda: alerting.results["emf", "delivered"] == 5)
    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(line["eni"], line["state"], line.get("transitions")) for line in found] == [
        ("eni-1", "ok", None), ("eni-2", "ok", None),
        ("eni-1", "exceeded", ["warning raised", "critical raised", "exceeded raised"]),
        ("eni-1", "exceeded", None), ("eni-2", "ok", None),
    ]  # fmt: skip
