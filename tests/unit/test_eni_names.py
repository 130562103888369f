"""What an ENI is called, against a metadata service on loopback that knows it now, later, never."""

import asyncio
import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from eni53 import eni_names
from eni53.eni_names import EniNames
from eni53.faults import Faults
from eni53.inventory.links import Link

MACS = "/latest/meta-data/network/interfaces/macs/"
FIRST, LATER = "02:00:00:00:00:01", "02:00:00:00:00:02"
FIRST_ID, LATER_ID = "eni-0a1b2c3d4e5f60718", "eni-0ff1ce0ff1ce0ff1c"


class Metadata(ThreadingHTTPServer):
    """Answers from `facts`; a MAC that is not in it may become known at the n-th question."""

    daemon_threads = True

    def __init__(self):
        self.facts = {
            "/latest/meta-data/instance-id": "i-0123456789abcdef0",
            MACS: f"{FIRST}/\n",
            f"{MACS}{FIRST}/interface-id": FIRST_ID,
            f"{MACS}{FIRST}/vpc-ipv4-cidr-block": "10.0.0.0/16",
        }
        self.known_at, self.asked, self.down = 1, [], False
        self.at_once, self.most_at_once = 0, 0
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def know(self, mac, eni_id, at=1):
        """From the question number *at* on, it has this ENI."""
        self.facts[f"{MACS}{mac}/interface-id"] = eni_id
        self.facts[f"{MACS}{mac}/vpc-ipv4-cidr-block"] = "10.0.0.0/16"
        self.known_at = at

    def questions(self, mac):
        """How often it was asked for that ENI."""
        return self.asked.count(f"{MACS}{mac}/interface-id")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_PUT(self):
        """A token."""
        self.answer(503 if self.server.down else 200, "token")

    def do_GET(self):
        """A fact, after a moment in which somebody else might ask."""
        self.server.at_once += 1
        self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        time.sleep(0.002)
        self.server.at_once -= 1
        self.server.asked.append(self.path)
        mac = self.path.removeprefix(MACS).partition("/")[0]
        early = mac == LATER and self.server.questions(mac) < self.server.known_at
        text = None if early else self.server.facts.get(self.path)
        self.answer(503 if self.server.down else 404 if text is None else 200, text or "")

    def answer(self, status, text):
        """Send it."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def metadata():
    """A service that behaves."""
    server = Metadata()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The same tries, sooner."""
    monkeypatch.setattr(eni_names, "_TRIES_S", (0.0, 0.01, 0.02))


@pytest.fixture
def faults():
    """Where a silent service is counted."""
    return Faults()


@pytest.fixture
def names(metadata, faults):
    """Names that have learned what there was at the start."""
    names = EniNames(metadata.url, faults)
    assert asyncio.run(names.lookup()) is names.facts
    return names


def link(mac, altnames=(), name="ens5"):
    """An interface."""
    return Link(2, name, "", mac, False, 0, None, 0, altnames)


def label(names, found):
    """What it is called."""
    return asyncio.run(names.label(found))


def test_the_first_lookup_names_what_is_there(names, faults):
    """By MAC, however it is written; nothing more is asked for those."""
    assert names.facts.instance_id == "i-0123456789abcdef0"
    assert names.known(link(FIRST.upper())) == label(names, link(FIRST)) == FIRST_ID
    assert (names.id_of(FIRST), names.id_of(LATER)) == (FIRST_ID, f"mac:{LATER}")
    assert names.known(link(LATER)) == f"mac:{LATER}"
    assert faults.sources_up == {"imds": True}


@pytest.mark.parametrize(("at", "questions"), [(1, 1), (2, 2), (3, 3), (4, 3)])
def test_one_that_appears_later_is_asked_for_a_few_times(names, metadata, at, questions):
    """The service learns of it a little after the kernel; in the end its MAC has to do."""
    metadata.know(LATER, LATER_ID, at)
    assert label(names, link(LATER)) == (LATER_ID if at < 4 else f"mac:{LATER}")
    assert metadata.questions(LATER) == questions
    assert label(names, link(LATER)) == LATER_ID
    assert metadata.questions(FIRST) == 1


def test_an_altname_needs_no_question(names, metadata):
    """AL2023 writes it on the interface."""
    asked = len(metadata.asked)
    assert label(names, link(LATER, (LATER_ID,))) == LATER_ID
    assert len(metadata.asked) == asked


def test_what_others_say_needs_no_question(names, metadata):
    """The CNI or a pod's annotation knew it; what is taken is taken."""
    names.learn({LATER: LATER_ID})
    assert label(names, link(LATER)) == names.id_of(LATER) == LATER_ID
    assert metadata.questions(LATER) == 0
    assert names.is_taken(LATER_ID)
    assert not names.is_taken("eni-0123456789abcdef0")


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1"], ids=["off", "down"])
def test_without_the_service_its_mac_has_to_do_at_once(monkeypatch, faults, url):
    """Nothing is asked and nobody waits; off is not down."""
    monkeypatch.setattr(eni_names, "_TRIES_S", (60.0, 60.0, 60.0))
    names = EniNames(url, faults)
    assert asyncio.run(names.lookup()) is names.facts is None
    began_s = time.monotonic()
    assert label(names, link(FIRST)) == f"mac:{FIRST}"
    assert time.monotonic() - began_s < 5
    assert names.configured is bool(url)
    assert faults.sources_up == ({"imds": False} if url else {})


def test_a_service_that_fails_meanwhile_is_counted_and_recovers(names, metadata, faults):
    """It costs the name of that ENI, and no traceback."""
    metadata.know(LATER, LATER_ID)
    metadata.down = True
    assert label(names, link(LATER)) == f"mac:{LATER}"
    assert faults.sources_up == {"imds": False}
    assert faults.errors["source", "imds"] == 3
    assert asyncio.run(names.lookup()) is None
    assert names.facts is not None, "what was known is forgotten"
    metadata.down = False
    assert label(names, link(LATER)) == LATER_ID
    assert faults.sources_up == {"imds": True}


@pytest.mark.parametrize("mac", ["", "00:00:00:00", "fe:80" + ":00" * 14])
def test_an_interface_without_a_mac_is_not_the_services_fault(names, metadata, faults, mac):
    """A tunnel has none: nothing to ask for, and the service is as well as before."""
    asked = len(metadata.asked)
    assert label(names, link(mac)) == f"mac:{mac}"
    assert len(metadata.asked) == asked
    assert faults.sources_up == {"imds": True}


def test_many_at_once_are_asked_one_after_the_other(names, metadata):
    """A node that gets ten ENIs in a moment: one question at a time, and each its own name."""
    macs = [f"02:00:00:00:01:{n:02x}" for n in range(10)]
    for n, mac in enumerate(macs):
        metadata.know(mac, f"eni-0123456789abcde{n:02x}")

    async def all_of_them():
        asking = asyncio.gather(*(names.label(link(mac)) for mac in macs), names.lookup())
        return (await asking)[:-1]

    assert asyncio.run(all_of_them()) == [f"eni-0123456789abcde{n:02x}" for n in range(10)]
    assert metadata.most_at_once == 1


def test_one_that_goes_away_meanwhile_is_let_go(names, metadata, monkeypatch):
    """Its question can be cancelled, and the next one is asked all the same."""
    monkeypatch.setattr(eni_names, "_TRIES_S", (0.0, 60.0))
    metadata.know(LATER, LATER_ID, 2)

    async def cancelled():
        task = asyncio.get_running_loop().create_task(names.label(link(LATER)))
        end_s = time.monotonic() + 20
        while not metadata.questions(LATER) and time.monotonic() < end_s:
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return await names.label(link(LATER))

    assert asyncio.run(cancelled()) == LATER_ID
