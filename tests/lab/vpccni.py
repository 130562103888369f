"""What the Amazon VPC CNI sets up once on a node: marks, the rule for them, and translation.

A pod's packet to an address inside the VPC keeps its source and leaves by the pod's own ENI. One to
an address outside (169.254.169.253 is outside, too) is marked, leaves by the primary ENI and gets
its address. So the same pod spends the budget of one ENI or another by which resolver it asks.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import network, vpc
from .shell import in_netns, run
from .vpc import Eni

MARK = 0x80
MARK_RULE = 1024

# In the order of the kernel: what goes on belongs to mangle, what begins passes nat as well.
_RULES = """\
table ip aws-cni {{
chain mangle {{
type filter hook prerouting priority mangle; policy accept
iifname "{primary}" fib daddr type local ct mark set ct mark or {mark}
iifname "eni*" meta mark set ct mark and {mark}
}}
chain prerouting {{
type nat hook prerouting priority dstnat; policy accept
{no_pods}
iifname "eni*" ip daddr != {vpc} ct mark set ct mark or {mark}
iifname "eni*" meta mark set ct mark and {mark}
}}
chain postrouting {{
type nat hook postrouting priority srcnat; policy accept
{no_pods}
ip daddr {vpc} return
oifname != "vlan*" fib daddr type != local snat to {address} fully-random
}}
}}
"""


def rules(primary: Eni) -> str:
    """The input for ``nft -f`` in the node."""
    # Workloads without a runtime have the same names of interfaces, but promise to leave un-NATed.
    no_pods = f"ip saddr {{ {vpc.PODS}, {vpc.BRIDGED} }} return"
    return _RULES.format(
        primary=primary.interface,
        address=primary.ipv4,
        vpc=vpc.VPC_CIDR,
        mark=hex(MARK),
        no_pods=no_pods,
    )


def set_up(vpc_ns: str, node_ns: str, enis: Sequence[Eni]) -> None:
    """Wire the node for pods, and let the VPC find them."""
    run([*in_netns(node_ns), "nft", "-f", "-"], stdin=rules(enis[0]))
    rule = f"rule add priority {MARK_RULE} fwmark {MARK:#x}/{MARK:#x} lookup main"
    network.batch(node_ns, [rule])
    back = [f"route add {vpc.CNI_PODS} via {enis[0].ipv4}"]
    network.batch(vpc_ns, back)
