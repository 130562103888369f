"""Processes of the host that ask a cache on loopback: what it then asks is theirs."""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eni53.inventory.links import LinkTable
from eni53.kernel.attach import LOOPBACK_HOOKS, Attacher
from eni53.kernel.layout import LOOPBACK, REMOTE_BIT
from eni53.kernel.tags import QUIET_S, TagPool
from eni53.wiring import Wiring

from . import frames as f
from .asking import RESOLVER4, RESOLVER6, Asking, to
from .conftest import MakeAttacher, MakeNamespace
from .kernel import NEXT, Kernel
from .netns import Namespace, Pair, cgroup_root, inside, own_cgroup, until

STUB, STUB6, NODE, NODE6 = "127.0.0.53", "::1", "10.0.1.9", "2001:db8::9"
QUERY = f.dns_query("Www.Example.com")


@dataclass(frozen=True)
class Group:
    """A cgroup that a child of ours can be in."""

    place: Path

    @property
    def id(self) -> int:
        """As the kernel counts by it."""
        return self.place.stat().st_ino

    def do(self, work: Callable[[], object]) -> None:
        """Have a process in it do *work*: sockets are of the cgroup they are made in."""
        child = os.fork()
        if not child:
            try:
                (self.place / "cgroup.procs").write_text("0")
                work()
                os._exit(0)
            except BaseException:  # noqa: BLE001 - nothing of pytest's may run in here
                traceback.print_exc()
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


@pytest.fixture
def groups() -> Iterator[tuple[Group, Group]]:
    """Of a client, and of a cache."""
    made = [cgroup_root() / f"eni53t-{os.getpid()}-{name}" for name in ("client", "cache")]
    for place in made:
        place.mkdir()
    yield Group(made[0]), Group(made[1])
    for place in made:
        assert until(lambda place=place: _removed(place))  # type: ignore[misc]


def _removed(place: Path) -> bool:
    try:
        place.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # the last process is still on its way out
        return False
    return True


@pytest.fixture(autouse=True)
def _tags(request: pytest.FixtureRequest) -> None:
    """Tags for whoever asks."""
    if "asking" in request.fixturenames:
        request.getfixturevalue("asking").kernel.maps.free_tags(range(1, 6))


def on_lo(asking: Asking, frame: bytes) -> None:
    """A packet goes out on lo."""
    assert NEXT == asking.kernel.run("asker_lo", frame, ifindex=LOOPBACK)


def ask(asking: Asking, by: Group, payload: bytes = QUERY, server: str = STUB) -> int:
    """A process asks a server of this host; its tag."""
    source = "::1" if ":" in server else "127.0.0.1"
    by.do(lambda: on_lo(asking, to(server, source, payload)))
    return asking.kernel.maps.read().origins[LOOPBACK, by.id].tag


def send(asking: Asking, by: Group, payload: bytes = QUERY, resolver: str = RESOLVER4) -> None:
    """A process sends to the resolver."""
    frame = to(resolver, NODE6 if ":" in resolver else NODE, payload, 40009)
    by.do(lambda: asking.kernel.run("eni_egress", frame))


def charged(asking: Asking) -> dict[tuple[int, int], int]:
    """Packets by sender's cgroup and asker."""
    senders = asking.kernel.maps.read().senders
    return {(key.cgroup_id, key.asker): packets for key, packets in senders.items()}


@pytest.mark.parametrize(
    ("server", "resolver"), [(STUB, RESOLVER4), (STUB6, RESOLVER6), ("172.17.0.1", RESOLVER4)]
)
def test_what_the_cache_asks_is_its_clients(
    asking: Asking, groups: tuple[Group, Group], server: str, resolver: str
) -> None:
    """Once; nothing is counted as sent, for it left no namespace."""
    client, cache = groups
    tag = ask(asking, client, server=server)
    send(asking, cache, f.dns_query("wWW.example.com", identity=9), resolver)
    assert 0 < tag < REMOTE_BIT
    assert charged(asking) == {(cache.id, tag): 1}
    send(asking, cache, resolver=resolver)
    assert charged(asking) == {(cache.id, tag): 1, (cache.id, 0): 1}
    assert [origin.sent for origin in asking.kernel.maps.read().origins.values()] == [{}]


def test_who_asks_the_resolver_itself_pays_for_itself(
    asking: Asking, groups: tuple[Group, Group]
) -> None:
    """No server answered here, so the same process asks the next one: nobody else did."""
    client, cache = groups
    tag = ask(asking, client)
    send(asking, client)
    send(asking, cache)
    assert tag
    assert charged(asking) == {(client.id, 0): 1, (cache.id, 0): 1}


def test_a_container_behind_a_veth_is_no_cache_of_the_hosts(
    asking: Asking, groups: tuple[Group, Group]
) -> None:
    """Unless it has answered somebody."""
    ask(asking, groups[0])
    frame = to(RESOLVER4, "172.17.0.5", QUERY)
    assert NEXT == asking.kernel.run("eni_egress", frame, ingress_ifindex=7)
    assert charged(asking) == {(0, 0): 1}


def test_what_a_cache_asks_a_cache_is_no_ask(asking: Asking, groups: tuple[Group, Group]) -> None:
    """Who has answered on loopback asks there for somebody else."""
    client, cache = groups
    before = asking.kernel.maps.read().stats["ask_ambiguous"]
    answer = f.ipv4(f.udp(40000, 53, f.dns_answer("a.test")), f.UDP, "127.0.0.1", STUB)
    cache.do(lambda: on_lo(asking, answer))
    tag = ask(asking, client)
    ask(asking, cache, server="127.0.0.1")
    assert asking.kernel.maps.read().stats["ask_ambiguous"] == before
    send(asking, cache)
    assert charged(asking) == {(cache.id, tag): 1}
    ask(asking, cache, f.dns_query("own.test"), server="127.0.0.1")
    send(asking, cache, f.dns_query("own.test"))
    assert charged(asking) == {(cache.id, tag): 1, (cache.id, 0): 1}


@pytest.mark.parametrize(
    "frame",
    [
        f.ipv4(f.tcp(), f.TCP, STUB, "127.0.0.1"),
        f.ipv4(f.udp(5353, 40000, QUERY), f.UDP, STUB, "127.0.0.1"),
        f.ipv4(f.udp(80, 40000, QUERY), f.UDP, "169.254.169.254", "127.0.0.1"),
        f.ipv4(f.icmp(), f.ICMP, STUB, "127.0.0.1"),
    ],
    ids=["TCP", "another port", "another service", "no port"],
)
def test_everything_else_passes(asking: Asking, frame: bytes) -> None:
    """It has nobody known, and no name waited for."""
    on_lo(asking, frame)
    assert asking.kernel.maps.read().origins == {}


@pytest.fixture
def apart(bench: Kernel) -> Iterator[Asking]:
    """With all tags free."""
    kernel = Kernel.load()
    kernel.dev = bench.dev
    kernel.forget()
    yield Asking(kernel)
    kernel.loaded.close()


def test_its_tag_comes_back_when_its_cgroup_is_gone(
    apart: Asking, groups: tuple[Group, Group]
) -> None:
    """Not before, however quiet it is: it may ask again at any time, by the same tag."""
    there = True
    pool = TagPool(apart.kernel.maps, lambda _: None, lambda _: there)
    client, cache = groups
    ask(apart, client)
    send(apart, cache)

    def left(now_s: float) -> tuple[int, int]:
        """Origins and rows after a look."""
        maps = apart.kernel.maps
        pool.collect(maps.read(), (), {apart.kernel.dev}, lambda _: True, now_s)
        after = maps.read()
        return len(after.origins), len(after.senders)

    assert {left(now_s) for now_s in (100.0, 500.0, 1000.0)} == {(1, 1)}
    there = False
    assert left(1100.0) == (1, 1)
    assert left(1100.0 + 2 * QUIET_S) == (0, 0)


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_real_packets(wired: Kernel, pair: Pair, make_attacher: MakeAttacher, mode: str) -> None:
    """Of a process of this namespace, over both families; detached, nothing is left."""
    before = pair.node.traces("lo")
    attacher = make_attacher(mode)
    attacher.attach(LOOPBACK, "lo", LOOPBACK_HOOKS)
    for family, server in ((socket.AF_INET, STUB), (socket.AF_INET6, STUB6)):
        with pair.node.socket(family) as client:
            client.sendto(QUERY, (server, 53))
    assert until(lambda: (LOOPBACK, own_cgroup()) in wired.maps.read().origins)
    attacher.detach_all()
    assert pair.node.traces("lo") == before


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_the_wiring_attaches_and_cleans_up(
    wired: Kernel, make_namespace: MakeNamespace, mode: str, tmp_path: Path
) -> None:
    """Also what an agent that was killed has left on lo; somebody else's qdisc stays."""
    node = make_namespace("node")
    node.ip("link", "add", "ens5", "type", "veth", "peer", "name", "away")
    before = node.traces("lo")
    _attach_and_die(wired, node, mode, tmp_path / "qdiscs.json")
    with inside(node.name):
        table = LinkTable()
        wiring = Wiring(table, wired.loaded, wired.maps, mode, ["ens5"], tmp_path)
        try:
            assert dict(wiring.start().failed) == {}
            with node.socket() as client:
                client.sendto(QUERY, (STUB, 53))
            assert until(lambda: (LOOPBACK, own_cgroup()) in wired.maps.read().origins)
        finally:
            wiring.stop()
            table.close()
    assert node.traces("lo") == before
    assert not (tmp_path / "qdiscs.json").exists()


def _attach_and_die(kernel: Kernel, node: Namespace, mode: str, ledger: Path) -> None:
    child = os.fork()
    if not child:
        try:
            with inside(node.name):
                attacher = Attacher(LinkTable().ipr, kernel.loaded, mode, ledger)
                attacher.attach(LOOPBACK, "lo", LOOPBACK_HOOKS)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
