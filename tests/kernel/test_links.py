"""What netlink tells of interfaces that come and go, with real interfaces."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from eni53.inventory.enis import workload_veths
from eni53.inventory.links import Changes, Link, LinkEvents, LinkTable
from eni53.inventory.netns import netns_inode
from eni53.kernel.attach import WORKLOAD_HOOKS
from eni53.wiring import Wiring

from .conftest import MakeAttacher, MakeNamespace
from .kernel import Kernel
from .netns import Namespace, inside, until
from .test_sweeps import REPRESENTATIVES


@pytest.fixture
def node(make_namespace: MakeNamespace) -> Iterator[Namespace]:
    """A namespace that this thread is in."""
    space = make_namespace("node")
    with inside(space.name):
        yield space


@pytest.fixture
def events(node: Namespace) -> Iterator[LinkEvents]:
    """A listener in the node."""
    events = LinkEvents()
    yield events
    events.close()


@pytest.fixture
def table(node: Namespace) -> Iterator[LinkTable]:
    """Requests in the node."""
    table = LinkTable()
    yield table
    table.close()


def named(changes: Changes) -> dict[str, Link]:
    """What appeared, by name."""
    return {link.name: link for link in changes.appeared}


def add_veth(node: Namespace, name: str, peer: str, peer_in: Namespace | None = None) -> int:
    """A veth whose other end is here, or there."""
    there = ("netns", peer_in.name) if peer_in else ()
    node.ip("link", "add", name, "type", "veth", "peer", "name", peer, *there)
    return node.ifindex(name)


def test_nothing_happened(events: LinkEvents) -> None:
    """Reading never blocks, and silence is an empty answer."""
    assert Changes() == events.read()


def test_links_appear_and_go(node: Namespace, events: LinkEvents, table: LinkTable) -> None:
    """Events describe a link exactly as a full look does; a link that is gone is gone."""
    index = add_veth(node, "v0", "v1")
    peer = node.ifindex("v1")
    changes = events.read()
    found = table.links()
    assert {"v0", "v1"} == set(named(changes))
    assert found[index] == named(changes)["v0"]
    assert ("veth", peer, None, 0) == (
        found[index].kind,
        found[index].link,
        found[index].link_netnsid,
        found[index].master,
    )
    assert found[1].loopback
    node.ip("link", "del", "v0")
    changes = events.read()
    assert ({index, peer}, ()) == (set(changes.gone), changes.appeared)
    assert {1} == set(table.links())


def test_a_veth_is_a_workloads_once_its_other_end_has_moved(
    node: Namespace, events: LinkEvents, table: LinkTable, make_namespace: MakeNamespace
) -> None:
    """Docker moves the peer away; CNI plugins create it there: both are seen, with its number."""
    task = make_namespace("task")
    index = add_veth(node, "v0", "eth0")
    assert () == workload_veths(events.read().appeared, ())
    node.ip("link", "set", "eth0", "netns", task.name)
    assert len(events.read().gone) == 1
    # The move itself is no event of the end that stays; nothing can be sent before these are.
    node.ip("link", "set", "v0", "up")
    (moved,) = workload_veths(events.read().appeared, ())
    assert (index, "v0") == (moved.index, moved.name)
    task.ip("link", "set", "eth0", "up")
    assert until(lambda: workload_veths(events.read().appeared, ()) == (moved,))
    with Path("/run/netns", task.name).open() as handle:
        assert table.nsid_of(handle.fileno()) == moved.link_netnsid

    second = add_veth(node, "v1", "eth1", task)
    (born,) = workload_veths(events.read().appeared, ())
    assert (second, moved.link_netnsid) == (born.index, born.link_netnsid)
    assert (moved, born) == workload_veths(table.links().values(), ())


def test_a_bridge_does_not_hide_what_its_ports_are(
    node: Namespace, events: LinkEvents, table: LinkTable, make_namespace: MakeNamespace
) -> None:
    """A bridge tells of its ports in messages of its own, which lack half: the veth stays one."""
    index = add_veth(node, "v0", "eth0", make_namespace("task"))
    node.ip("link", "add", "br0", "type", "bridge")
    events.read()
    node.ip("link", "set", "br0", "up")
    node.ip("link", "set", "v0", "master", "br0")
    node.ip("link", "set", "v0", "up")
    seen = named(events.read())["v0"]
    assert ("veth", node.ifindex("br0")) == (seen.kind, seen.master)
    assert table.links()[index] == seen


def test_leaving_a_bridge_is_not_the_end(
    node: Namespace, events: LinkEvents, make_namespace: MakeNamespace
) -> None:
    """The bridge says that its port is deleted; the link is not."""
    index = add_veth(node, "v0", "eth0", make_namespace("task"))
    node.ip("link", "add", "br0", "type", "bridge")
    node.ip("link", "set", "v0", "master", "br0")
    events.read()
    node.ip("link", "set", "v0", "nomaster")
    changes = events.read()
    assert () == changes.gone
    assert ("veth", 0) == (named(changes)["v0"].kind, named(changes)["v0"].master)
    assert index == named(changes)["v0"].index


def test_a_link_that_went_and_came_back_is_both(
    node: Namespace, events: LinkEvents, make_namespace: MakeNamespace
) -> None:
    """Moved out and in again under its old index: what was attached has gone with the move."""
    task = make_namespace("task")
    index = add_veth(node, "v0", "v1")
    events.read()
    node.ip("link", "set", "v0", "netns", task.name)
    with inside(task.name):
        task.ip("link", "set", "v0", "netns", node.name)
    changes = events.read()
    assert index == node.ifindex("v0")
    assert index in changes.gone
    assert index == named(changes)["v0"].index


def test_changed_filters_are_told(
    wired: Kernel, make_attacher: MakeAttacher, make_namespace: MakeNamespace
) -> None:
    """Somebody's filter, or ours: the interface is named, and no link is."""
    events = LinkEvents()
    try:
        attacher = make_attacher("clsact")
        attacher.attach(wired.dev, "eni", WORKLOAD_HOOKS)
        assert (wired.dev,) == events.read().filtered
        attacher.detach(wired.dev)
        assert (wired.dev,) == events.read().filtered
        assert Changes() == events.read()
    finally:
        events.close()


def test_lost_messages_are_reported_once(node: Namespace, events: LinkEvents) -> None:
    """More messages than the socket holds: the reader is told to look at everything."""
    events.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for number in range(30):
        add_veth(node, f"a{number}", f"b{number}")
    assert events.read().lost
    assert not events.read().lost


def test_the_namespaces_of_processes() -> None:
    """A process is known by its namespace's identity; one that is gone has none."""
    assert Path("/proc/self/ns/net").stat().st_ino == netns_inode(os.getpid())
    assert netns_inode(1 << 30) is None


def test_default_routes_name_their_interfaces(node: Namespace, table: LinkTable) -> None:
    """The preferred one first, each once, of both families; without a route there is none."""
    assert () == table.default_route_interfaces()
    first, second = add_veth(node, "v0", "p0"), add_veth(node, "v1", "p1")
    for name in ("v0", "v1", "p0", "p1"):
        node.ip("link", "set", name, "up")
    node.ip("route", "add", "default", "dev", "v0", "metric", "20")
    node.ip("route", "add", "default", "dev", "v1", "metric", "10")
    node.ip("-6", "route", "add", "default", "dev", "v0", "metric", "30")
    assert (second, first) == table.default_route_interfaces()
    node.ip("addr", "add", "10.3.0.1/20", "dev", "v0")
    assert "10.3.0.1/20" in table.prefixes([first])
    assert "10.3.0.1/20" not in table.prefixes([second])


def passed(kernel: Kernel, node: Namespace, task: Namespace) -> tuple[int, int]:
    """Send one query out of the task and one out of the ENI; how many each program has counted."""
    task.ip("link", "set", "eth0", "up")
    for name in ("v0", "ens5", "away"):
        node.ip("link", "set", name, "up")
    for place, interface in ((task, "eth0"), (node, "ens5")):
        with inside(place.name), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((interface, 0))
            raw.send(REPRESENTATIVES["udp"])
    sample = kernel.maps.read()
    sent = sum(sum(origin.sent.values()) for origin in sample.origins.values())
    return sent, sum(sample.senders.values())


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_the_wiring_follows(
    wired: Kernel, make_namespace: MakeNamespace, mode: str, tmp_path: Path
) -> None:
    """Veths that appear are attached to, stay so across a bridge, and are forgotten when gone."""
    node, task = make_namespace("node"), make_namespace("task")
    with inside(node.name):
        table, events = LinkTable(), LinkEvents()
        node.ip("link", "add", "ens5", "type", "veth", "peer", "name", "away")
        eni = node.ifindex("ens5")
        wiring = Wiring(table, wired.loaded, wired.maps, mode, ["ens5"], tmp_path)
        try:
            assert {eni} == set(wiring.start().enis)
            veth = add_veth(node, "v0", "eth0", task)
            assert {veth: 0} == dict(wiring.apply(events.read()).veths)
            node.ip("link", "add", "br0", "type", "bridge")
            node.ip("link", "set", "v0", "master", "br0")
            wiring.apply(events.read())
            node.ip("link", "set", "v0", "nomaster")
            after = wiring.apply(events.read())
            assert ({veth: 0}, {}) == (dict(after.veths), dict(after.failed))
            assert (1, 1) == passed(wired, node, task)
            node.ip("link", "del", "v0")
            assert {} == dict(wiring.apply(events.read()).veths)
        finally:
            wiring.stop()
            events.close()
            table.close()
