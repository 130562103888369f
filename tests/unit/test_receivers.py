"""What webhooks and Alertmanager are sent, and what becomes of answers that are no good."""

import json
import time
from dataclasses import replace
from datetime import datetime
from urllib.parse import urlsplit

import pytest
from eni53.errors import SourceError
from eni53.sinks.post import _connection, post
from eni53.sinks.receivers import Alertmanager, Webhook, to_alertmanager

from tests.fixtures.alerts import alert
from tests.fixtures.hostile import hostile
from tests.fixtures.receiver import receiving

DESIGNED = ["version", "transition", "severity", "time", "node", "eni", "mac", "interface", "basis",
            "limit_pps", "window_pps", "peak_pps", "allowance_exceeded", "workloads"]  # fmt: skip


def nasty():
    """An alert in which strangers chose every name."""
    snapshot = hostile()
    (usage,) = snapshot.enis
    return replace(alert(), node=snapshot.node, eni=usage.eni, workloads=usage.workloads)


def texts(value):
    """Every piece of text in decoded JSON, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def moment(text):
    """RFC 3339, with a zone, as seconds."""
    found = datetime.fromisoformat(text)
    assert found.tzinfo is not None
    return found.timestamp()


def test_a_webhook_is_sent_what_the_design_says():
    """Every field by its name and type; fields may be added, never renamed."""
    with receiving() as server:
        Webhook(f"{server.url}/a/hook?key=1").send((alert("critical", "cleared", at_s=90),))
    ((path, headers, body),) = server.posts
    assert (path, headers["Content-Type"]) == ("/a/hook?key=1", "application/json")
    assert [field for field in DESIGNED if field not in body] == []
    workloads = body.pop("workloads")
    assert body == {
        "version": 1, "transition": "cleared", "severity": "critical",
        "time": "2024-05-04T12:16:26.789Z", "began": "2024-05-04T12:14:56.789Z",
        "node": "ip-10-0-1-23", "eni": "eni-1", "mac": "02:4e:11:d0:5b:9c", "interface": "eth0",
        "basis": "linklocal", "limit_pps": 1024, "window_pps": 519.02, "peak_pps": 1000.0,
        "allowance_exceeded": 7,
    }  # fmt: skip
    assert len(workloads) == 5
    assert {key: workloads[0][key] for key in ("kind", "namespace", "workload", "container", "via",
                                                "cgroup", "cgroup_id", "share")} == {
        "kind": "ecs_task", "namespace": "prod", "container": "web", "via": "direct",
        "workload": "checkout-api:42/9b1fd2c07a3e4c5db6a80c3a11f2e9d4",
        "cgroup": None, "cgroup_id": None, "share": 0.6,
    }  # fmt: skip
    assert workloads[0]["names"][0] == {
        "name": "orders.internal.example.com", "type": "A", "pps": 80.0, "packets": 0,
        "ttl_s": 7200, "rcode": "NOERROR",
    }  # fmt: skip


def test_no_driver_is_null_and_not_zero():
    """Unknown is never zero."""
    with receiving() as server:
        Webhook(server.url).send((replace(alert(), allowance_exceeded=None),))
    assert server.bodies[0]["allowance_exceeded"] is None
    assert "allowance_exceeded" not in to_alertmanager(
        replace(alert(), allowance_exceeded=None)
    )["annotations"]  # fmt: skip


@pytest.mark.parametrize("receiver", [Webhook, Alertmanager])
def test_hostile_names_are_cleaned(receiver):
    """Nothing a terminal, a log or a pager would obey, and no megabyte of name."""
    with receiving() as server:
        receiver(server.url).send((nasty(),))
    found = list(texts(server.bodies[0]))
    assert [text for text in found if not text.isprintable()] == []
    assert max(map(len, found)) < 3000
    assert len(json.dumps(server.bodies[0])) < 20_000


@pytest.mark.parametrize("transition", ["raised", "cleared"])
@pytest.mark.parametrize("late_s", [0, 90, -3600])
def test_alertmanager_is_sent_what_it_takes(transition, late_s):
    """A list; labels and annotations are text; no end before its beginning, even when the clock
    was set back meanwhile.
    """
    with receiving() as server:
        Alertmanager(f"{server.url}/prefix/").send((alert("critical", transition, at_s=late_s),))
    ((path, _, body),) = server.posts
    (one,) = body
    assert path == "/prefix/api/v2/alerts"
    for text in (*one["labels"].values(), *one["annotations"].values()):
        assert isinstance(text, str)
    assert one["labels"] == {
        "alertname": "Eni53LinkLocal", "severity": "critical", "node": "ip-10-0-1-23",
        "eni": "eni-1", "mac": "02:4e:11:d0:5b:9c", "interface": "eth0", "basis": "linklocal",
    }  # fmt: skip
    assert "1000 of 1024" in one["annotations"]["summary"]
    assert "checkout-api:42/9b1fd2c07a3e4c5db6a80c3a11f2e9d4 60%" in one["annotations"]["workloads"]
    assert moment(one["startsAt"]) <= moment(one["endsAt"])
    if transition == "raised" and late_s >= 0:
        assert moment(one["endsAt"]) - moment(one["startsAt"]) == late_s + 300


def test_raised_and_cleared_are_the_same_alert_to_alertmanager():
    """It knows an alert by its labels: what changes must not be among them."""
    raised = to_alertmanager(alert(at_s=0))
    cleared = to_alertmanager(replace(alert("warning", "cleared", at_s=60), peak_pps=10.0,
                                      window_pps=1.0, workloads=()))  # fmt: skip
    assert raised["labels"] == cleared["labels"]
    assert raised["startsAt"] == cleared["startsAt"]


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        (301, "status 301"),
        (400, "status 400"),
        (500, "status 500"),
        ("cut", "without an answer"),
        ("garbage", "not HTTP"),
    ],
)
def test_an_answer_that_is_no_good_is_one_line(mood, words):
    """Who, where, and what; a redirect is followed nowhere."""
    with receiving() as server:
        server.mood = mood
        with pytest.raises(SourceError, match=words) as caught:
            Webhook(f"{server.url}/x").send((alert(),))
    assert str(caught.value).startswith("webhook at 127.0.0.1: ")
    assert str(caught.value).isprintable()
    assert [path for path, _, _ in server.posts] == ["/x"]


@pytest.mark.parametrize("mood", ["silent", "drip", "continue"])
def test_no_answer_has_an_end(mood):
    """Not even when a byte comes now and then, or 100 Continue for ever."""
    with receiving() as server:
        server.mood = mood
        begin = time.monotonic()
        with pytest.raises(SourceError):
            Webhook(server.url).send((alert(),))
        assert time.monotonic() - begin < 10


def test_nobody_there_is_one_line():
    """A port nobody listens on."""
    with receiving() as gone:
        pass
    with pytest.raises(SourceError, match=r"webhook at 127\.0\.0\.1: Connection refused"):
        Webhook(gone.url).send((alert(),))


@pytest.mark.parametrize("url", ["http://hooks..example.com/x", f"http://{'a' * 64}.example.com"])
def test_a_host_name_that_cannot_be_is_one_line(url):
    """The look-up refuses these with an error of its own kind; the thread must live on."""
    with pytest.raises(SourceError, match="not a host name"):
        Webhook(url).send((alert(),))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://[::1]/x", ("::1", 80)),
        ("http://[2001:db8::abcd]/x", ("2001:db8::abcd", 80)),
        ("https://[::1]/x", ("::1", 443)),
        ("https://[::1]:8/x", ("::1", 8)),
        ("http://hooks.example.com", ("hooks.example.com", 80)),
    ],
)
def test_an_ipv6_address_needs_no_port(url, expected):
    """Its last group is no port."""
    connection = _connection(urlsplit(url), None)
    assert (connection.host, connection.port) == expected


def test_what_may_be_a_token_is_in_no_error():
    """http.client shows a header that it refuses."""
    with receiving() as server, pytest.raises(SourceError) as caught:
        post("x", server.url, {}, headers={"Authorization": "Bearer s3cret\nX: y"})
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(caught.value.__cause__)
