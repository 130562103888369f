"""The HTTP door, knocked at for real on 127.0.0.1."""

import http.client
import json
import socket
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from eni53.errors import NeedError
from eni53.model import Finding
from eni53.sinks.http import _MAX_CLIENTS, HttpDoor, View

from tests.fixtures.snapshots import near_limit

PATHS = ("/", "/metrics", "/healthz", "/readyz", "/api/v1/snapshot", "/api/v1/findings")


class State:
    """What the door shows, for a test to change."""

    def __init__(self):
        self.snapshot, self.healthy = near_limit(), True


@contextmanager
def opened(state, host="127.0.0.1"):
    """A door on any free port, closed at the end."""
    door = HttpDoor(host, 0, View(lambda: state.snapshot, lambda: state.healthy))
    door.start()
    try:
        yield door
    finally:
        door.close()


@pytest.fixture(scope="module")
def shared():
    """One door for the tests that only look: closing one takes a moment."""
    state = State()
    with opened(state) as door:
        yield state, door


@pytest.fixture
def state(shared):
    """What the shared door shows, as it was in the beginning."""
    shared[0].snapshot, shared[0].healthy = near_limit(), True
    return shared[0]


@pytest.fixture
def door(shared):
    """The shared door."""
    return shared[1]


def ask(door, path, method="GET", host="127.0.0.1"):
    """Status, headers and body of one answer."""
    with closing(http.client.HTTPConnection(host, door.port, timeout=5)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


@pytest.mark.parametrize(
    ("path", "kind", "holds"),
    [
        ("/", "text/plain", b"/metrics"),
        ("/metrics", "text/plain", b"eni53_eni_packets_total"),
        ("/metrics?x=1", "text/plain", b"eni53_eni_packets_total"),
        ("/healthz", "text/plain", b"ok\n"),
        ("/readyz", "text/plain", b"ready\n"),
        ("/api/v1/snapshot", "application/json", b'"version": 1'),
        ("/api/v1/findings", "application/json", b'"version": 1'),
    ],
)
def test_routes(state, door, path, kind, holds):
    """Each path, its type, its length, and what it holds."""
    status, headers, body = ask(door, path)
    assert (status, headers["Content-Type"].split(";")[0]) == (200, kind)
    assert holds in body
    assert headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("query", ["names=500", "names=0", "x=1&names=7", "y=names=9", ""])
def test_as_many_names_as_are_asked_for(state, door, query):
    """Up to a bound; whatever else is in the query is nobody's business."""
    assert ask(door, f"/api/v1/snapshot?{query}")[0] == 200


@pytest.mark.parametrize("names", ["501", "-1", "", "x", "%31", "1e3", "9" * 5000])
def test_a_number_of_names_that_is_none(state, door, names):
    """One line that says what is allowed."""
    status, _, body = ask(door, f"/api/v1/snapshot?names={names}")
    assert (status, body) == (400, b"names: a number from 0 to 500\n")


@pytest.mark.parametrize("path", ["/x", "/metrics/", "/api/v1", "/../etc/passwd"])
def test_another_path_is_not_here(state, door, path):
    """404, and nothing of the file system behind it."""
    assert (ask(door, path)[0], ask(door, path)[2]) == (404, b"not here; see /\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(state, door, method):
    """Only GET and HEAD."""
    status, headers, _ = ask(door, "/metrics", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_its_body(state, door, path):
    """The same status and length, and nothing behind them."""
    with closing(socket.create_connection(("127.0.0.1", door.port), timeout=5)) as client:
        client.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert f"Content-Length: {len(ask(door, path)[2])}".encode() in head.splitlines()
    assert body == b""


def test_before_the_first_snapshot_it_is_not_ready(state, door):
    """Alive, with metrics of its own, and nothing made up about ENIs."""
    state.snapshot = None
    expected = {"/": 200, "/metrics": 200, "/healthz": 200, "/readyz": 503,
                "/api/v1/snapshot": 503, "/api/v1/findings": 503}  # fmt: skip
    assert {path: ask(door, path)[0] for path in PATHS} == expected
    assert b"eni53_eni" not in ask(door, "/metrics")[2]


def test_without_ticks_it_is_not_healthy(state, door):
    """A counter that stands still must not look like a calm ENI."""
    state.healthy = False
    assert ask(door, "/healthz")[0] == 503
    assert ask(door, "/readyz")[0] == 200


def test_every_answer_is_of_the_newest_snapshot(state, door):
    """Findings and snapshot speak of the same moment."""
    finding = Finding("no-cache", "warning", "ask less", evidence={"pps": 80.0})
    state.snapshot = replace(state.snapshot, node="another", findings=(finding,))
    shown = json.loads(ask(door, "/api/v1/snapshot")[2])
    assert (shown["node"], shown["findings"]) == (
        "another",
        json.loads(ask(door, "/api/v1/findings")[2])["findings"],
    )


def test_a_slow_client_does_not_hold_up_another(state, door):
    """Half a request keeps one thread waiting, and nobody else."""
    with closing(socket.create_connection(("127.0.0.1", door.port))) as slow:
        slow.sendall(b"GET /metr")
        began_s = time.monotonic()
        assert ask(door, "/readyz")[0] == 200
        assert time.monotonic() - began_s < 1.0
        slow.sendall(b"ics HTTP/1.0\r\n\r\n")
        assert slow.recv(12) == b"HTTP/1.0 200"


@pytest.mark.parametrize(
    "sent",
    [b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
     b"A" * 70_000 + b"\r\n\r\n"],
)  # fmt: skip
def test_nonsense_costs_nothing(state, door, sent, capfd):
    """Whatever comes in: no traceback, and the next client is answered."""
    with closing(socket.create_connection(("127.0.0.1", door.port))) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(5)
        try:
            while client.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert ask(door, "/readyz")[0] == 200
    assert capfd.readouterr().err == ""


def test_more_clients_than_room_are_turned_away():
    """One too many is closed at once; when one leaves there is room again."""
    with opened(State()) as door:
        address = ("127.0.0.1", door.port)
        crowd = [socket.create_connection(address, timeout=5) for _ in range(_MAX_CLIENTS)]
        with closing(socket.create_connection(address, timeout=5)) as extra:
            assert extra.recv(1) == b""
        for client in crowd:
            client.close()
        until_s = time.monotonic() + 5
        while time.monotonic() < until_s:
            try:
                status = ask(door, "/readyz")[0]
                break
            except (ConnectionError, http.client.HTTPException):
                time.sleep(0.01)
        assert status == 200


def test_a_port_in_use_ends_in_one_line():
    """What is wrong and what to do about it; the first door is not disturbed."""
    with opened(State()) as door:
        with pytest.raises(NeedError, match="--listen") as caught:
            HttpDoor("127.0.0.1", door.port, View(lambda: None, lambda: True))
        assert f"127.0.0.1:{door.port}: Address already in use" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert ask(door, "/readyz")[0] == 200


def test_an_address_that_is_not_ours_ends_in_one_line():
    """As a port in use does."""
    with pytest.raises(NeedError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        HttpDoor("192.0.2.1", 0, View(lambda: None, lambda: True))


def test_ipv6_is_listened_on():
    """And its URL is one that can be asked."""
    with opened(State(), "::1") as door:
        assert door.url == f"http://[::1]:{door.port}"
        assert ask(door, "/readyz", host="::1")[0] == 200


def test_a_closed_door_is_closed():
    """The port is free again at once, also for a door that was never started."""
    with opened(State()) as door:
        port = door.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    never_started = HttpDoor("127.0.0.1", port, View(lambda: None, lambda: True))
    never_started.close()
