"""NodeLocal DNSCache: a cache in a pod on the host network, asked by the pods of its node.

Its upstream queries leave the primary ENI from the cache's own cgroup and by TCP, whoever asked.
What pods ask it never reaches an ENI.
"""

from __future__ import annotations

from . import vpc
from .shell import in_netns, run

ADDRESS = "169.254.20.10"
DEVICE = "nodelocaldns"
NAMESPACE, CONTAINER = "kube-system", "node-cache"

# Before conntrack, so that neither its table nor kube-proxy's rules see these packets.
_RULES = """\
table ip node-local-dns {{
chain prerouting {{
type filter hook prerouting priority raw; policy accept
ip daddr {addresses} udp dport 53 notrack
ip daddr {addresses} tcp dport 53 notrack
}}
chain output {{
type filter hook output priority raw; policy accept
ip saddr {addresses} udp sport 53 notrack
ip saddr {addresses} tcp sport 53 notrack
ip daddr {addresses} udp dport 53 notrack
ip daddr {addresses} tcp dport 53 notrack
}}
}}
"""


def set_up(node_ns: str) -> str:
    """Give the node the cache's addresses, untracked; the device that has them. Twice is fine."""
    ip = ["ip", "-n", node_ns]
    made = run([*ip, "link", "add", DEVICE, "type", "dummy"], check=False).returncode == 0
    device = DEVICE if made else "lo"
    if made:
        run([*ip, "link", "set", DEVICE, "up"])
    elif run([*ip, "link", "show", DEVICE], check=False).returncode == 0:
        device = DEVICE
    for address in (ADDRESS, vpc.CLUSTER_DNS):
        run([*ip, "address", "replace", f"{address}/32", "dev", device])
    addresses = f"{{ {ADDRESS}, {vpc.CLUSTER_DNS} }}"
    table = "table ip node-local-dns\ndelete table ip node-local-dns\n"
    rules = table + _RULES.format(addresses=addresses)
    run([*in_netns(node_ns), "nft", "-f", "-"], stdin=rules)
    return device
