"""From a container to the wire as Docker wires it: bridge, masquerade, ENI. Nothing gets lost."""

from __future__ import annotations

from collections import Counter

from eni53.kernel.attach import ENI_HOOKS, WORKLOAD_HOOKS

from tests.kernel.conftest import MakeAttacher, MakeNamespace
from tests.kernel.kernel import Kernel
from tests.kernel.netns import Namespace, Pair, until

from .trunk import introduce, send, stream

_MASQUERADE = """
table inet docker {
  chain out {
    type nat hook postrouting priority srcnat;
    oifname "eni" masquerade
  }
}
"""


def make_bridge(node: Namespace) -> None:
    """A bridge with both families behind which everything is masqueraded."""
    # Its address would follow its ports', and containers be told the wrong one.
    node.ip("link", "add", "br0", "address", "02:e5:3e:53:00:03", "type", "bridge")
    node.ip("addr", "add", "10.9.0.1/24", "dev", "br0")
    node.ip("addr", "add", "fd09::1/64", "dev", "br0", "nodad")
    node.ip("link", "set", "br0", "up")
    settings = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
    for name in (*settings, "net.bridge.bridge-nf-call-iptables"):
        node.enter("sysctl", "-qw", f"{name}=1")
    node.enter("nft", "-f", "-", stdin=_MASQUERADE)


def make_container(node: Namespace, space: Namespace, number: int) -> int:
    """A container on the bridge; index of its veth."""
    veth = f"v{number}"
    node.ip("link", "add", veth, "type", "veth", "peer", "eth0", "netns", space.name)
    node.ip("link", "set", veth, "master", "br0")
    node.ip("link", "set", veth, "up")
    space.ip("addr", "add", f"10.9.0.1{number}/24", "dev", "eth0")
    space.ip("addr", "add", f"fd09::1{number}/64", "dev", "eth0", "nodad")
    space.ip("link", "set", "eth0", "up")
    space.ip("route", "add", "default", "via", "10.9.0.1")
    space.ip("-6", "route", "add", "default", "via", "fd09::1")
    introduce(space, "eth0", node, "br0", "fd09::1")
    introduce(node, "br0", space, "eth0", f"fd09::1{number}")
    return node.ifindex(veth)


def arrived(pair: Pair) -> int:
    """What nftables has counted in the VPC."""
    return sum(pair.counted(name) for name in ("udp4", "udp6", "tcp4", "tcp6"))


def test_every_packet_names_its_container(
    wired: Kernel,
    pair: Pair,
    make_namespace: MakeNamespace,
    make_attacher: MakeAttacher,
    mode: str,
) -> None:
    """UDP and TCP, both families, two containers: tags arrive, and counts equal nftables."""
    attacher = make_attacher(mode)
    attacher.attach(pair.eni, "eni", ENI_HOOKS)
    make_bridge(pair.node)
    introduce(pair.node, "eni", pair.vpc, "vpc", "2001:db8::53")
    introduce(pair.vpc, "vpc", pair.node, "eni", "2001:db8::52")
    wired.maps.free_tags(range(601, 611))
    sent = {}
    for number in (1, 2):
        space = make_namespace(f"container{number}")
        veth = make_container(pair.node, space, number)
        attacher.attach(veth, f"v{number}", WORKLOAD_HOOKS)
        send(space, 301 * number, "10.0.0.2")
        send(space, 203 * number, "2001:db8::53")
        sent[veth] = (301 + 203) * number
        for address in ("10.0.0.2", "2001:db8::53"):
            stream(space, pair.vpc, address, 200_000 * number)
    assert until(lambda: pair.counted("udp4") == 903 and pair.counted("udp6") == 609)
    # The last ACK of a connection may be on its way still.
    assert until(lambda: sum(wired.maps.read().senders.values()) == arrived(pair))

    sample = wired.maps.read()
    assert arrived(pair) == sum(sample.senders.values())
    # The last ACK of a connection has no socket and so no cgroup: an origin of its own, same veth.
    veth_of = {origin.tag: origin.ifindex for origin in sample.origins.values()}
    assert 0 not in veth_of
    at_eni, at_veth = Counter[tuple[int, str]](), Counter[int]()
    for key, packets in sample.senders.items():
        at_eni[veth_of[key.origin], key.protocol] += packets
    for origin in sample.origins.values():
        at_veth[origin.ifindex] += origin.sent["resolver"]
    assert sent == {veth: at_eni[veth, "udp"] for veth in sent}
    assert dict(at_veth) == {veth: at_eni[veth, "udp"] + at_eni[veth, "tcp"] for veth in sent}
