"""Attachment: counts are exact, others are not disturbed, and nothing of ours is left behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from eni53.inventory.links import LinkTable
from eni53.kernel.attach import (
    EGRESS,
    ENI_HOOKS,
    INGRESS,
    WORKLOAD_HOOKS,
    AttachError,
    foreign_filters,
)

from .conftest import MakeAttacher
from .kernel import Kernel
from .netns import Pair, run, until

MODES = pytest.mark.parametrize("mode", ["tcx", "clsact"])
_UDP_SEGMENT = 103


def send(pair: Pair, count: int, family: int = socket.AF_INET, segment: int = 0) -> None:
    """Datagrams to port 53; with *segment*, each is cut into ten by the kernel (GSO)."""
    address = "10.0.0.2" if family == socket.AF_INET else "2001:db8::53"
    with pair.node.socket(family) as sender:
        if segment:
            sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, segment)
        for _ in range(count):
            sender.sendto(bytes(segment * 10 or 30), (address, 53))


def stream(pair: Pair, size: int) -> None:
    """A TCP connection to port 53 that carries *size* bytes there and is closed in order."""
    with pair.vpc.socket(kind=socket.SOCK_STREAM) as listener:
        listener.bind(("10.0.0.2", 53))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                while peer.recv(1 << 20):
                    pass

        server = threading.Thread(target=serve)
        server.start()
        with pair.node.socket(kind=socket.SOCK_STREAM) as client:
            client.connect(("10.0.0.2", 53))
            client.sendall(bytes(size))
            client.shutdown(socket.SHUT_WR)
            assert b"" == client.recv(1)
        server.join()


def counted(kernel: Kernel) -> dict[str, int]:
    """Packets counted to the resolver, by protocol: the sum over all senders."""
    result = {"udp": 0, "tcp": 0}
    for key, packets in kernel.maps.read().senders.items():
        result[key.protocol] += packets
    return result


@MODES
def test_counts_equal_nftables_to_the_packet(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, mode: str
) -> None:
    """UDP and TCP, both families, GSO on both: the VPC's own counter saw exactly as many."""
    attacher = make_attacher(mode)
    attacher.attach(pair.eni, "eni", ENI_HOOKS)
    assert (mode, frozenset({pair.eni})) == (attacher.mode, attacher.attached)
    send(pair, 7001)
    send(pair, 5003, socket.AF_INET6)
    send(pair, 101, segment=500)
    stream(pair, 3_000_000)
    assert until(lambda: pair.counted("udp4") == 7001 + 1010)
    assert pair.counted("udp6") == 5003
    assert until(lambda: counted(wired)["tcp"] == pair.counted("tcp4"))
    assert counted(wired) == {"udp": 7001 + 1010 + 5003, "tcp": pair.counted("tcp4")}
    assert pair.counted("tcp4") > 3_000_000 / 1500
    eni = wired.maps.read().enis[pair.eni, 0]
    assert sum(slot.dns for slot in eni.slots) == sum(counted(wired).values())


@MODES
def test_detaching_leaves_nothing(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, mode: str
) -> None:
    """No filter, no qdisc, no link: and nothing more is counted."""
    before = pair.node.traces("eni")
    attacher = make_attacher(mode)
    attacher.attach(pair.eni, "eni", ENI_HOOKS)
    attacher.attach(pair.eni, "eni", ENI_HOOKS)  # again: it has them already
    assert attacher.is_first(pair.eni)
    send(pair, 3)
    attacher.detach(pair.eni)
    attacher.detach(pair.eni)
    send(pair, 5)
    assert until(lambda: pair.counted("udp4") == 8)
    assert counted(wired)["udp"] == 3
    assert before == pair.node.traces("eni")
    assert (frozenset(), False) == (attacher.attached, attacher.is_first(pair.eni))


def add_foreign(table: LinkTable, kernel: Kernel, index: int, direction: str, **how: int) -> None:
    """A filter of somebody else, as the AWS network policy agent attaches its own."""
    parent = {INGRESS: 0xFFFFFFF2, EGRESS: 0xFFFFFFF3}[direction]
    table.ipr.tc(
        "add-filter",
        "bpf",
        index,
        handle=how.get("handle", 1),
        fd=kernel.loaded.programs["eni_ingress"],
        name="policy",
        parent=parent,
        prio=how.get("prio", 1),
        protocol=how.get("protocol", 3),
        direct_action=True,
    )


@pytest.fixture
def table(wired: Kernel) -> Iterator[LinkTable]:
    """Netlink of the node, for what others do there."""
    table = LinkTable()
    yield table
    table.close()


@pytest.mark.parametrize("direction", [INGRESS, EGRESS])
def test_a_foreign_filter_that_was_there_first_stays_behind_us(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, table: LinkTable, direction: str
) -> None:
    """Theirs runs after ours, and is as it was when we have gone."""
    pair.node.tc("qdisc", "add", "dev", "eni", "clsact")
    add_foreign(table, wired, pair.eni, direction)
    before = pair.node.traces("eni")
    attacher = make_attacher("clsact")
    attacher.attach(pair.eni, "eni", ENI_HOOKS)
    assert attacher.is_first(pair.eni)
    assert ["policy"] == foreign_filters(table.ipr, pair.eni, direction)
    attacher.detach(pair.eni)
    assert before == pair.node.traces("eni")


@pytest.mark.parametrize("direction", [INGRESS, EGRESS])
def test_a_foreign_filter_that_comes_later_is_overtaken(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, table: LinkTable, direction: str
) -> None:
    """It is noticed, passed by taking ours off and on again, and left alone throughout."""
    attacher = make_attacher("clsact")
    attacher.attach(pair.eni, "eni", ENI_HOOKS)
    add_foreign(table, wired, pair.eni, direction)
    assert not attacher.is_first(pair.eni)
    attacher.reassert(pair.eni)
    assert attacher.is_first(pair.eni)
    assert ["policy"] == foreign_filters(table.ipr, pair.eni, direction)
    send(pair, 3)
    assert counted(wired)["udp"] == 3
    attacher.detach(pair.eni)
    left = pair.node.traces("eni")
    assert "policy" in left, "the qdisc was ours, but it carries another's filter now"
    assert "clsact" in left
    assert "eni53" not in left


@pytest.mark.parametrize("how", ["protocol", "kind", "handle"])
def test_a_held_priority_shuts_us_out_in_one_line(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, table: LinkTable, how: str
) -> None:
    """Priority 1 is another's: AttachError names the interface, and nothing stays."""
    pair.node.tc("qdisc", "add", "dev", "eni", "clsact")
    if how == "kind":
        filter_ = ("prio", "1", "protocol", "all", "u32", "match", "u32", "0", "0")
        pair.node.tc("filter", "add", "dev", "eni", "ingress", *filter_)
    else:
        wrong = {"protocol": 0x0800} if how == "protocol" else {"handle": 0xE53}
        add_foreign(table, wired, pair.eni, INGRESS, **wrong)
    before = pair.node.traces("eni")
    attacher = make_attacher("clsact")
    with pytest.raises(AttachError, match=r"^interface eni: \w[^\n]*$"):
        attacher.attach(pair.eni, "eni", ENI_HOOKS)
    assert frozenset() == attacher.attached
    assert before == pair.node.traces("eni")


def test_an_ingress_qdisc_has_no_egress(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher
) -> None:
    """The older qdisc takes a filter for egress and runs it on ingress: refused, and said so."""
    pair.node.tc("qdisc", "add", "dev", "eni", "ingress")
    before = pair.node.traces("eni")
    attacher = make_attacher("clsact")
    with pytest.raises(AttachError, match=r"^interface eni: .*ingress qdisc"):
        attacher.attach(pair.eni, "eni", ENI_HOOKS[1:])
    assert before == pair.node.traces("eni")
    attacher.attach(pair.eni, "eni", WORKLOAD_HOOKS)
    assert "eni53:workload_ingress" in pair.node.traces("eni")
    attacher.detach(pair.eni)
    assert before == pair.node.traces("eni")


@MODES
def test_an_interface_that_is_gone_is_one_line(
    wired: Kernel, make_attacher: MakeAttacher, mode: str
) -> None:
    """It may vanish between its message and our filter."""
    attacher = make_attacher(mode)
    with pytest.raises(AttachError, match=r"^interface veth9: \w[^\n]*$"):
        attacher.attach(4242, "veth9", WORKLOAD_HOOKS)
    assert frozenset() == attacher.attached


@MODES
def test_an_interface_takes_everything_with_it(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, mode: str
) -> None:
    """Deleted while attached: forgetting and detaching raise nothing."""
    attacher = make_attacher(mode)
    pair.node.ip("link", "add", "v1", "type", "veth", "peer", "name", "p1")
    index = pair.node.ifindex("v1")
    attacher.attach(index, "v1", WORKLOAD_HOOKS)
    run("ip", "-n", pair.node.name, "link", "del", "v1")
    assert mode == "tcx" or not attacher.is_first(index)
    if mode == "tcx":
        attacher.reassert(index)
    attacher.detach(index)
    attacher.forget(index)
    assert frozenset() == attacher.attached
