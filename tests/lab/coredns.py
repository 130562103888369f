"""The cluster's own DNS: a cache in a pod, and kube-proxy's rules that lead to it."""

from __future__ import annotations

from collections.abc import Sequence

from . import vpc
from .shell import in_netns, run

NAMESPACE, CONTAINER = "kube-system", "coredns"


def lead_to(node_ns: str, pods: Sequence[str]) -> None:
    """Translate the address of the cluster's DNS service to one of *pods*' addresses at random.

    At a pod's veth the service is the destination; behind it, the pod that serves.
    """
    table = "table ip kube-proxy\ndelete table ip kube-proxy\n"
    one_of = ", ".join(f"{number} : {address}" for number, address in enumerate(pods))
    target = f"numgen random mod {len(pods)} map {{ {one_of} }}"
    rules = [
        f"ip daddr {vpc.CLUSTER_DNS} {protocol} dport 53 dnat to {target}"
        for protocol in ("udp", "tcp")
    ]
    chains = [
        # Ahead of the VPC CNI's chain, which takes a service's address for one outside the VPC.
        f"chain {hook} {{\ntype nat hook {hook} priority {priority}; policy accept\n"
        + "\n".join(rules)
        + "\n}\n"
        for hook, priority in (("prerouting", -110), ("output", -110))
    ]
    text = table + "table ip kube-proxy {\n" + "".join(chains) + "}\n"
    run([*in_netns(node_ns), "nft", "-f", "-"], stdin=text)
