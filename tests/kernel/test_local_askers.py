"""Workloads here that ask a cache here: what it then asks is theirs, once, and nothing else is."""

from __future__ import annotations

import pytest
from eni53.kernel.layout import REMOTE_BIT, TASK_DEV

from . import frames as f
from .asking import CACHE4, RESOLVER4, Asking, client, to
from .kernel import NEXT

GATEWAY, NODE, TASK = "172.17.0.1", "10.0.1.9", "172.17.0.5"
QUERY, OTHER = f.dns_query("Www.Example.com"), f.dns_query("other.example.com")
VETH = 7


@pytest.fixture(autouse=True)
def _tags(asking: Asking) -> None:
    """Tags for whoever sends at the veth."""
    asking.kernel.maps.free_tags(range(1, 4))


def ask(asking: Asking, payload: bytes = QUERY, server: str = GATEWAY) -> int:
    """A workload asks *server*; returns its tag."""
    assert NEXT == asking.kernel.run("workload_ingress", to(server, TASK, payload))
    [origin] = asking.kernel.maps.read().origins.values()
    return origin.tag


def forward(asking: Asking, payload: bytes = QUERY, ingress: int = 0, port: int = 40000) -> None:
    """The node asks the resolver."""
    frame = to(RESOLVER4, NODE, payload, port)
    assert NEXT == asking.kernel.run("eni_egress", frame, ingress_ifindex=ingress)


def charged(asking: Asking) -> dict[int, int]:
    """Packets by asker; 0: the sender's own."""
    found: dict[int, int] = {}
    for key, packets in asking.kernel.maps.read().senders.items():
        found[key.asker] = found.get(key.asker, 0) + packets
    return found


def test_a_caches_query_is_its_askers_once(asking: Asking) -> None:
    """The retry is the cache's own."""
    tag = ask(asking)
    forward(asking, f.dns_query("wWW.eXAMPLE.COM", identity=9))
    assert 0 < tag < REMOTE_BIT
    assert {tag: 1} == charged(asking)
    forward(asking, port=40001)
    assert {tag: 1, 0: 1} == charged(asking)


def test_another_name_is_nobodys(asking: Asking) -> None:
    """Prefetching, health checks: the cache's own."""
    ask(asking)
    forward(asking, OTHER)
    assert {0: 1} == charged(asking)


def test_an_ask_is_forgotten_soon(asking: Asking) -> None:
    """A cache that has to ask does so at once; half a second later it has another reason."""
    tag = ask(asking)
    asking.grow_older(0.4)
    forward(asking)
    ask(asking)
    asking.grow_older(0.6)
    forward(asking, port=40001)
    assert {tag: 1, 0: 1} == charged(asking)


def test_who_asks_last_keeps_the_first_ones_question_open(asking: Asking) -> None:
    """A name that is in the cache until then: a cache that is slow to ask still asks for them."""
    first = ask(asking)
    asking.grow_older(0.3)
    ask(asking)
    asking.grow_older(0.3)
    forward(asking)
    assert {first: 1} == charged(asking)
    ask(asking)
    asking.grow_older(0.3)
    ask(asking)
    asking.grow_older(0.6)
    forward(asking, port=40001)
    assert {first: 1, 0: 1} == charged(asking)


def test_who_asks_later_still_is_charged_himself(asking: Asking) -> None:
    """However often one asks, the place is his for half a second."""
    remote = client(1)
    for _ in range(3):
        asking.ask(QUERY, remote)
        asking.grow_older(0.2)
    tag = ask(asking, server=CACHE4)
    forward(asking)
    assert {tag: 1} == charged(asking)


def test_who_asks_the_resolver_itself_asks_no_cache(asking: Asking) -> None:
    """A process of the host that wants the same name pays for itself."""
    ask(asking, server=RESOLVER4)
    forward(asking)
    assert {0: 1} == charged(asking)


def test_a_workload_that_never_answered_is_no_cache(asking: Asking) -> None:
    """Its own query for the same name is its own."""
    ask(asking)
    forward(asking, ingress=VETH)
    assert {0: 1} == charged(asking)


@pytest.mark.parametrize("where", ["its namespace", "the trunk"])
def test_who_has_an_eni_of_its_own_is_no_cache(asking: Asking, where: str) -> None:
    """An awsvpc task that wants a popular name pays itself; the cache's query is the asker's."""
    tag = ask(asking)
    if where == "its namespace":
        asking.kernel.maps.add_eni(TASK_DEV)
        asking.kernel.run("task_egress", to(RESOLVER4, TASK, QUERY, 41000))
    else:
        udp = f.udp(53, 41000, QUERY)
        asking.kernel.run("eni_egress", f.ipv4(udp, f.UDP, RESOLVER4, TASK, tags=[(f.VLAN, 7)]))
    assert {0: 1} == charged(asking)
    forward(asking)
    assert {0: 1, tag: 1} == charged(asking)


@pytest.mark.parametrize(("age_s", "asker"), [(0.3, "remote"), (0.7, "here")])
def test_a_remote_clients_question_shuts_nobody_out_for_long(
    asking: Asking, age_s: float, asker: str
) -> None:
    """It may have been in the cache, or have gone to an address where none is."""
    remote = client(1)
    asking.ask(QUERY, remote)
    asking.grow_older(age_s, last=False)
    tag = ask(asking, server=CACHE4)
    asking.forward(QUERY, CACHE4)
    sample = asking.kernel.maps.read()
    [key] = sample.senders
    if asker == "here":
        assert key.asker == tag
    else:
        assert sample.remotes[key.asker].address == remote


def test_the_first_of_two_is_charged_and_the_doubt_counted(asking: Asking) -> None:
    """A client on another node waits for the name already."""
    remote = client(1)
    asking.ask(QUERY, remote)
    before = asking.kernel.maps.read().stats["ask_ambiguous"]
    ask(asking)
    sample = asking.kernel.maps.read()
    assert 1 == sample.stats["ask_ambiguous"] - before
    asking.forward(QUERY, CACHE4)
    sample = asking.kernel.maps.read()
    assert [remote] == [sample.remotes[key.asker].address for key in sample.senders]


def test_an_answer_at_a_veth_counts_as_no_packet_sent(asking: Asking) -> None:
    """A cache in a container answers: it gets a tag, and no query is counted."""
    asking.kernel.run(
        "workload_ingress",
        f.ipv4(f.udp(40000, 53, f.dns_answer("a.example.com")), f.UDP, TASK, GATEWAY),
    )
    [origin] = asking.kernel.maps.read().origins.values()
    assert (origin.sent, bool(origin.tag)) == ({}, True)
