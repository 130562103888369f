"""A server that is asked first and does not answer: the same question again, elsewhere, later."""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
from eni53.kernel import bpf, layout

from . import frames as f
from .asking import RESOLVER4, RESOLVER6, to
from .kernel import NEXT, Kernel

DEAD, DEAD6, THIRD, TASK, TASK6 = "172.17.0.1", "fd53:9::9", "10.0.7.7", "172.17.0.5", "2001:db8::5"
_FOLLOWED = struct.Struct("=Q16sHHI")
_LAST = struct.Struct("=QQQ")
_WORD = struct.Struct("=I")
PLACES = layout.SETTINGS["SERVING_TAGS"]


@dataclass
class Client:
    """Who asks, at a veth, and a clock that is moved by making everything older."""

    kernel: Kernel
    program: str = "workload_ingress"
    places: Iterable[int] = range(4)  # of tags; a look at all of them takes its time

    def ask(
        self, server: str, name: str = "db.example.com", identity: int = 7, **other: int
    ) -> None:
        """One query; *other* may be port and kind."""
        query = f.dns_query(name, identity, kind=other.get("kind", 1))
        source = TASK6 if ":" in server else TASK
        frame = to(server, source, query, other.get("port", 40000))
        assert NEXT == self.kernel.run(self.program, frame)

    def wait(self, seconds: float) -> None:
        """Everything is that much longer ago."""
        maps, past_ns = self.kernel.loaded.maps, int(seconds * 1e9)
        for keys, values in bpf.map_items(maps["followed"], 8, _FOLLOWED.size, 8192):
            for at, (at_ns, *rest) in enumerate(_FOLLOWED.iter_unpack(values)):
                bpf.map_update(
                    maps["followed"],
                    bytes(keys[at * 8 : at * 8 + 8]),
                    _FOLLOWED.pack(at_ns - past_ns, *rest),
                )
        for place in self.places:
            value = bpf.map_lookup(maps["last_followed"], _WORD.pack(place), _LAST.size)
            at_ns, server, several_ns = _LAST.unpack(value or bytes(_LAST.size))
            if at_ns:
                older = _LAST.pack(at_ns - past_ns, server, max(0, several_ns - past_ns))
                bpf.map_update(maps["last_followed"], _WORD.pack(place), older)

    def seen(self, server: str = DEAD) -> tuple[int, int, float]:
        """Queries followed, fallbacks, and seconds waited in sum."""
        rows = self.kernel.maps.read().fallbacks
        queries, fallbacks, waited_ns = (
            sum(counts[n] for key, counts in rows.items() if key.server == server) for n in range(3)
        )
        return queries, fallbacks, waited_ns / 1e9


@pytest.fixture(scope="module")
def _own() -> Iterator[Kernel]:
    """Maps of its own, with tags for whoever sends."""
    kernel = Kernel.load()
    kernel.maps.free_tags(range(1, 3))
    yield kernel
    kernel.loaded.close()


@pytest.fixture
def client(_own: Kernel) -> Client:
    """Somebody whom nobody has seen yet."""
    sample, maps = _own.maps.read(), _own.loaded.maps
    for key in sample.fallbacks:
        _own.maps.forget_fallback(key)
    for keys, _ in bpf.map_items(maps["followed"], 8, _FOLLOWED.size, 8192):
        for at in range(0, len(keys), 8):
            bpf.map_delete(maps["followed"], bytes(keys[at : at + 8]))
    for place in range(PLACES):
        bpf.map_update(maps["last_followed"], _WORD.pack(place), bytes(_LAST.size))
    return Client(_own)


@pytest.mark.parametrize(("dead", "second"), [(DEAD, RESOLVER4), (DEAD6, RESOLVER6), (DEAD, THIRD)])
@pytest.mark.parametrize("timeout_s", [1.0, 5.0, 30.0])
def test_the_same_lookup_elsewhere_after_a_while(
    client: Client, dead: str, second: str, timeout_s: float
) -> None:
    """As glibc does: the id stays, the port is another; each lookup waits anew."""
    for number in range(3):
        client.ask(dead, identity=100 + number)
        client.wait(timeout_s)
        client.ask(second, identity=100 + number, port=40001)
        client.wait(7)
    queries, fallbacks, waited_s = client.seen(dead)
    assert (queries, fallbacks) == (3, 3)
    assert waited_s == pytest.approx(3 * timeout_s, abs=0.5)
    assert client.seen(second)[1] == 0


def test_go_takes_a_new_id_after_five_seconds(client: Client) -> None:
    """Then, and not a second earlier or later, unless others look the name up as well."""
    for number, waited_s in enumerate((5.0, 4.0, 6.0)):
        client.ask(DEAD, f"{number}.example.com", identity=1)
        client.wait(waited_s)
        client.ask(RESOLVER4, f"{number}.example.com", identity=2)
    assert client.seen()[:2] == (3, 1)
    client.ask(DEAD, "others.example.com", identity=1)
    client.wait(2)
    client.ask(RESOLVER4, "others.example.com", identity=3)
    client.wait(3)
    client.ask(RESOLVER4, "others.example.com", identity=2)
    assert client.seen()[:2] == (4, 1)


def test_who_asks_all_at_once_has_not_waited(client: Client) -> None:
    """As musl does, with retries at all of them; nor has one that hedges after 300 ms."""
    for number in range(4):
        for _ in range(2):
            for server in (DEAD, THIRD, RESOLVER4):
                client.ask(server, identity=number)
            client.wait(2.5)
    for number in range(4):
        client.ask(DEAD, identity=50 + number)
        client.wait(0.3)
        client.ask(RESOLVER4, identity=50 + number)
        client.wait(4)
    queries, fallbacks, _ = client.seen()
    assert queries > 4
    assert fallbacks == 0
    assert client.seen(THIRD)[1] == 0


def test_a_server_that_answers_is_not_left(client: Client) -> None:
    """The same name again and again, of it alone; and lookups that take turns (options rotate)."""
    for number in range(20):
        client.ask(DEAD, identity=number)
        client.wait(1.5)
    assert client.seen()[1] == 0
    for number in range(20):
        client.ask(RESOLVER4 if number % 2 else DEAD, identity=100 + number)
        client.wait(1.5)
    assert client.seen()[1] == 0


def test_many_lookups_of_one_name_at_once(client: Client) -> None:
    """Ten a second, each of which waits five seconds: what is followed has all fallen back."""
    for tenth in range(200):
        client.ask(DEAD, identity=tenth)
        if tenth >= 50:
            client.ask(RESOLVER4, identity=tenth - 50)
        client.wait(0.1)
    queries, fallbacks, _ = client.seen()
    assert 3 <= queries <= fallbacks + 1


def test_many_names_at_once_beside_a_second_that_is_no_resolver(client: Client) -> None:
    """Both servers are followed then, and each lookup is told from the others."""
    chance = random.Random(53)
    for number in range(240):
        client.ask(DEAD, f"{number}.example.com", identity=number)
        client.wait(chance.uniform(0.02, 0.12))
        if number >= 20:
            client.ask(THIRD, f"{number - 20}.example.com", identity=number - 20)
        client.wait(chance.uniform(0.02, 0.12))
    queries, fallbacks, _ = client.seen()
    assert queries >= 60
    assert fallbacks >= 0.9 * (queries - 20)
    assert client.seen(THIRD)[1] == 0


def test_other_names_types_and_workloads_are_other_lookups(client: Client) -> None:
    """Nobody's query is another's fallback."""
    client.ask(DEAD)
    client.wait(5)
    client.ask(RESOLVER4, "other.example.com")
    client.ask(RESOLVER4, kind=28)
    for server, name in ((DEAD, "own.example.com"), (RESOLVER4, "db.example.com")):
        frame = to(server, TASK, f.dns_query(name))
        client.kernel.run("workload_ingress", frame, ifindex=client.kernel.dev + 1)
    assert client.seen()[:2] == (2, 0)
    client.ask(RESOLVER4, "DB.Example.com")
    assert client.seen()[:2] == (2, 1)


def test_a_flood_is_followed_a_few_times_a_second(client: Client) -> None:
    """Ten a second; the rest costs one look into an array."""
    began_s = time.monotonic()
    for number in range(3000):
        client.ask(DEAD, f"{number}.example.com", identity=number)
        if number % 10 == 9:
            client.wait(0.01)
    seconds = 3 + time.monotonic() - began_s
    queries, fallbacks, _ = client.seen()
    assert 20 <= queries <= 10 * seconds + 1
    assert fallbacks == 0


def test_a_process_of_the_host_at_the_eni(client: Client, bench: Kernel) -> None:
    """It has no veth; what comes from a workload has been seen there, and counts once."""
    client.kernel.maps.add_eni(bench.dev)
    client.places = range(PLACES)
    for ingress in (0, 9):
        for server in (DEAD, RESOLVER4):
            frame = to(server, TASK, f.dns_query("host.example.com"))
            place = {"ifindex": bench.dev, "ingress_ifindex": ingress}
            client.kernel.run("eni_egress", frame, **place)
            client.wait(5)
    (key,) = client.kernel.maps.read().fallbacks
    assert (key.dev, key.vlan, key.server) == (bench.dev, 0, DEAD)
    assert client.seen()[:2] == (1, 1)


def test_what_is_no_query_to_another_server(client: Client) -> None:
    """The resolver itself, TCP, an answer."""
    client.ask(RESOLVER4)
    for payload, protocol in (
        (f.tcp(53, 41000, f.dns_query()), f.TCP),
        (f.udp(53, 41000, f.dns_answer()), f.UDP),
    ):
        client.kernel.run("workload_ingress", f.ipv4(payload, protocol, DEAD, TASK))
    assert client.kernel.maps.read().fallbacks == {}


def test_the_id_that_is_compared_is_the_one_in_the_message(client: Client) -> None:
    """Sizes here are those of the programs, or the clock of these tests would move nothing."""
    assert layout.FALLBACK.packer.size == 24
    client.ask(DEAD, identity=0x1234)
    (values,) = [
        bytes(values)
        for _, values in bpf.map_items(
            client.kernel.loaded.maps["followed"], 8, _FOLLOWED.size, 8192
        )
    ]
    _, server, identity, *_ = _FOLLOWED.unpack(values)
    assert identity.to_bytes(2, sys.byteorder) == b"\x12\x34"
    assert server[:4] == bytes([172, 17, 0, 1])
