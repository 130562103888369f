"""The nftables rules of the vpc namespace: independent counters, AWS's limiter, and silence.

The counters sit where packets arrive, at the ingress hook of each ENI's uplink and before the
limiter, so they say what the node sent. They know nothing of the agent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from . import vpc
from .vpc import Eni, TaskEni

# Packets above the limit that a burst may hold, so that the pacing of one sender does not drop.
LIMIT_BURST = 100

_RESOLVERS = "{ " + ", ".join(vpc.RESOLVERS4) + " }"
_LINKLOCAL4 = "{ " + ", ".join([*vpc.RESOLVERS4, vpc.IMDS4, vpc.NTP4, *vpc.LICENSING4]) + " }"
_LINKLOCAL6 = "{ " + ", ".join([vpc.RESOLVER6, vpc.IMDS6, vpc.NTP6]) + " }"


def _matches() -> dict[str, str]:
    """What each counter counts, by its name without the ENI's."""
    rules = {}
    for protocol in ("udp", "tcp"):
        port = f"{protocol} dport 53"
        rules[f"ip_{protocol}_resolver"] = f"ip daddr {_RESOLVERS} {port}"
        rules[f"ip6_{protocol}_resolver"] = f"ip6 daddr {vpc.RESOLVER6} {port}"
        rules[f"ip_{protocol}_dns_other"] = f"ip daddr != {_RESOLVERS} {port}"
        rules[f"ip6_{protocol}_dns_other"] = f"ip6 daddr != {vpc.RESOLVER6} {port}"
    rules["ip_icmp_resolver"] = f"ip daddr {_RESOLVERS} meta l4proto icmp"
    rules["ip6_icmp_resolver"] = f"ip6 daddr {vpc.RESOLVER6} meta l4proto ipv6-icmp"
    rules["ip_imds"] = f"ip daddr {vpc.IMDS4}"
    rules["ip6_imds"] = f"ip6 daddr {vpc.IMDS6}"
    rules["ip_ntp"] = f"ip daddr {vpc.NTP4}"
    rules["ip6_ntp"] = f"ip6 daddr {vpc.NTP6}"
    rules["ip_linklocal_other"] = f"ip daddr {{ {', '.join(vpc.LICENSING4)} }}"
    rules["ip_linklocal"] = f"ip daddr {_LINKLOCAL4}"
    rules["ip6_linklocal"] = f"ip6 daddr {_LINKLOCAL6}"
    rules["all"] = ""
    return rules


def port(eni: Eni | TaskEni, *, limit_pps: int | None) -> str:
    """The counters, the limiter and the chain of one ENI, as they stand in table ``netdev lab``."""
    matches = _matches()
    name = eni.counters
    lines = [f"counter {name}_{what} {{ }}" for what in [*matches, "drops"]]
    rules = [f"{rule} counter name {name}_{what}" for what, rule in matches.items()]
    if limit_pps is not None:
        rate = f"rate over {limit_pps}/second burst {LIMIT_BURST} packets"
        lines.append(f"limit {name}_limit {{ {rate}; }}")
        drop = f"limit name {name}_limit counter name {name}_drops drop"
        # One bucket for both families, as AWS has one per ENI.
        rules += [f"ip daddr {_LINKLOCAL4} {drop}", f"ip6 daddr {_LINKLOCAL6} {drop}"]
    hook = f'type filter hook ingress device "{eni.uplink}" priority -500; policy accept;'
    lines.append(f"chain {name} {{ {hook} " + "; ".join(rules) + "; }")
    return "\n".join(lines)


def table(ports: Sequence[str]) -> str:
    """Input for ``nft -f`` that adds *ports* to those there."""
    return "table netdev lab {\n" + "\n".join(ports) + "\n}\n"


def ruleset(enis: Sequence[Eni | TaskEni], *, limit_pps: int | None, resolver: bool) -> str:
    """The input for ``nft -f``. *limit_pps* is packets per second per ENI; None drops nothing."""
    # What nobody answers must be swallowed: an ICMP error back would make senders stop.
    silent = [
        f"ip daddr {vpc.ELSEWHERE4} drop",
        f"ip6 daddr {vpc.ELSEWHERE6} drop",
        f"ip daddr {{ {vpc.NTP4}, {', '.join(vpc.LICENSING4)} }} drop",
        f"ip6 daddr {vpc.NTP6} drop",
    ]
    if not resolver:
        silent.append("udp dport 53 drop")
    hook = "type filter hook input priority 0; policy accept;"
    ports = [port(eni, limit_pps=limit_pps) for eni in enis]
    inet = "table inet lab {\nchain input { " + hook + " " + "; ".join(silent) + "; }\n}\n"
    return table(ports) + inet


def parse_counters(listing: str) -> dict[str, int]:
    """Packets by counter name, from ``nft -j list counters``."""
    items = json.loads(listing)["nftables"]
    return {
        item["counter"]["name"]: item["counter"]["packets"] for item in items if "counter" in item
    }
