"""Builds the two namespaces, vpc and node, and the pairs between them that stand for ENIs.

Neighbours are permanent on both sides. With ARP, a burst sent before the first answer would
lose packets in the resolution queue, and no count would be exact.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import nft, vpc
from .shell import in_netns, run
from .vpc import Eni, TaskEni

# Per namespace; set before devices exist, so that every device takes the defaults.
_COMMON = (
    "net.ipv6.conf.all.disable_ipv6=0",
    "net.ipv6.conf.default.disable_ipv6=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
)
# Docker sets the FORWARD policy to DROP only if it finds forwarding off.
_NODE = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
OFFLOADS = ("tso", "off", "gso", "off", "gro", "off")


def build(vpc_ns: str, node_ns: str, enis: Sequence[Eni]) -> None:
    """Make both namespaces, with *enis* between them. Both names must be free."""
    for netns in (vpc_ns, node_ns):
        run(["ip", "netns", "add", netns])
    run([*in_netns(vpc_ns), "sysctl", "-qw", *_COMMON])
    run([*in_netns(node_ns), "sysctl", "-qw", *_COMMON, *_NODE])
    batch(vpc_ns, _vpc_side(node_ns, enis))
    batch(node_ns, _node_side(enis))
    for eni in enis:
        send_through(node_ns, eni, eni.ipv4, eni.ipv6)
    for eni in enis:
        # One packet on the wire must be one skb at the counter.
        run([*in_netns(vpc_ns), "ethtool", "-K", eni.uplink, *OFFLOADS])
        run([*in_netns(node_ns), "ethtool", "-K", eni.interface, *OFFLOADS])


def load_rules(
    vpc_ns: str, enis: Sequence[Eni | TaskEni], *, limit_pps: int | None, resolver: bool
) -> None:
    """Load counters and limiter, replacing those there; counters start at 0 again."""
    rules = nft.ruleset(enis, limit_pps=limit_pps, resolver=resolver)
    run([*in_netns(vpc_ns), "nft", "-f", "-"], stdin="flush ruleset\n" + rules)


def add_rules(vpc_ns: str, eni: TaskEni, *, limit_pps: int | None) -> None:
    """Count and limit one more ENI, whose uplink is there; the others' counters go on."""
    rules = nft.table([nft.port(eni, limit_pps=limit_pps)])
    run([*in_netns(vpc_ns), "nft", "-f", "-"], stdin=rules)


def drop_chain(vpc_ns: str, eni: TaskEni) -> None:
    """Unhook *eni*, which may be gone. Its counters can still be read, until rules are loaded."""
    # Some kernels delete the chain with its device, so that it is missing here is no error.
    run([*in_netns(vpc_ns), "nft", "delete", "chain", "netdev", "lab", eni.counters], check=False)


def list_counters(vpc_ns: str) -> str:
    """All named counters, as nft's JSON."""
    return run([*in_netns(vpc_ns), "nft", "-j", "list", "counters"]).stdout


def batch(netns: str, lines: Sequence[str]) -> None:
    """Run ``ip`` commands in *netns*, all in one process; the first that fails ends it."""
    run(["ip", "-n", netns, "-batch", "-"], stdin="\n".join(lines) + "\n")


def send_through(node_ns: str, eni: Eni, ipv4: str, ipv6: str) -> None:
    """Let packets from these addresses leave by *eni*. The first ENI is the default anyway."""
    if eni.table is not None:
        for family, address in (("-4", ipv4), ("-6", ipv6)):
            rule = ["rule", "add", "from", address, "table", str(eni.table)]
            run(["ip", family, "-n", node_ns, *rule])


def _vpc_side(node_ns: str, enis: Sequence[Eni]) -> list[str]:
    lines = [
        "link set lo up",
        f"link add vpc0 address {vpc.GATEWAY_MAC} type bridge mcast_snooping 0",
        f"address add {vpc.GATEWAY}/24 dev vpc0",
        f"address add {vpc.GATEWAY6}/64 dev vpc0 nodad",
    ]
    here4 = [*vpc.RESOLVERS4, vpc.IMDS4, vpc.NTP4, *vpc.LICENSING4, vpc.ELSEWHERE4]
    here6 = [vpc.RESOLVER6, vpc.IMDS6, vpc.NTP6, vpc.ELSEWHERE6]
    lines += [f"address add {address}/32 dev vpc0" for address in here4]
    lines += [f"address add {address}/128 dev vpc0 nodad" for address in here6]
    lines.append("link set vpc0 up")
    for eni in enis:
        lines += [
            f"link add {eni.uplink} type veth"
            f" peer name {eni.interface} address {eni.mac} netns {node_ns}",
            f"link set {eni.uplink} master vpc0",
            f"link set {eni.uplink} up",
            f"neigh replace {eni.ipv4} lladdr {eni.mac} dev vpc0 nud permanent",
            f"neigh replace {eni.ipv6} lladdr {eni.mac} dev vpc0 nud permanent",
        ]
    first = enis[0]
    lines += [f"route add {net} via {first.ipv4}" for net in (vpc.PODS, vpc.BRIDGED)]
    inside6 = (vpc.PODS6, vpc.BRIDGED6, vpc.DOCKER6)
    return lines + [f"route add {net} via {first.ipv6}" for net in inside6]


def _node_side(enis: Sequence[Eni]) -> list[str]:
    lines = ["link set lo up"]
    for eni in enis:
        lines += [
            f"link set {eni.interface} up",
            f"address add {eni.ipv4}/24 dev {eni.interface}",
            f"address add {eni.ipv6}/64 dev {eni.interface} nodad",
            f"neigh replace {vpc.GATEWAY} lladdr {vpc.GATEWAY_MAC}"
            f" dev {eni.interface} nud permanent",
            f"neigh replace {vpc.GATEWAY6} lladdr {vpc.GATEWAY_MAC}"
            f" dev {eni.interface} nud permanent",
        ]
        table = "main" if eni.table is None else str(eni.table)
        for gateway in (vpc.GATEWAY, vpc.GATEWAY6):
            lines.append(f"route add default via {gateway} dev {eni.interface} table {table}")
    first = enis[0].interface
    lines.append(f"route add {vpc.VPC_CIDR} via {vpc.GATEWAY} dev {first}")
    lines.append(f"route add fd00:ec2::/32 via {vpc.GATEWAY6} dev {first}")
    return lines
