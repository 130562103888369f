"""Findings from what containers' own resolv.conf files say. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from ..inventory.resolv_conf import NOBODY
from ..model import DNS_CLASSES, Finding, ResolvConf, Snapshot, Workload
from .look import LEAST_PPS
from .who import full_name, only, whose

DOCKERS = "127.0.0.11"
"""Docker's own, in networks that a user has made: answered in there on another port, by NAT."""

STUB = "127.0.0.53"
"""systemd-resolved's: the only nameserver of whoever shares the network of a usual host."""


def loopback_resolver(last: Snapshot) -> Iterator[Finding]:
    """Nameservers on loopback, in containers in which nobody listens there."""
    found: defaultdict[tuple[str, bool], list[Workload]] = defaultdict(list)
    for workload, conf in last.resolv_confs.items():
        dead = [server for server in conf.nameservers if _is_dead(conf, server)]
        if dead:
            found[dead[0], len(dead) == len(conf.nameservers)].append(workload)
    for (server, alone), workloads in sorted(found.items()):
        yield Finding(
            "loopback-resolver",
            "critical" if alone else "warning",
            f"{_told(workloads)}: asks {server} by its resolv.conf, and nothing listens on port 53"
            " there" + (": no name resolves" if alone else ": each name is asked of the next one"),
            workload=only(workloads),
            evidence=_evidence(workloads, nameserver=server),
            remedy=f"{server} is the container itself: often the file was copied from a host that"
            " has a cache of its own"
            + (", or names no server, which means the same" if server == NOBODY else "")
            + ". Name the VPC's resolver, or the cache's address on the bridge"
            " (Docker: `docker run --dns` or daemon.json; ECS: dnsServers; pods: dnsPolicy,"
            " dnsConfig)",
        )


def cache_not_first(first: Snapshot | None, last: Snapshot, seconds: float) -> Iterator[Finding]:
    """A cache of this node that is asked after another server, or in turn with it."""
    caches = set(last.on_node)
    found: defaultdict[tuple[str, str, bool], list[Workload]] = defaultdict(list)
    for workload, conf in last.resolv_confs.items():
        server, *later = conf.nameservers
        behind = next((one for one in later if one in caches), None)
        if behind is not None and server not in caches and not ip_address(server).is_loopback:
            found[server, behind, "rotate" in conf.flags].append(workload)
    sent = _direct_pps(first, last, seconds) if found else {}
    for (server, cache, rotate), workloads in sorted(found.items()):
        pps = sum(sent.get(workload, 0.0) for workload in workloads)
        yield Finding(
            "cache-not-first",
            "warning" if pps >= LEAST_PPS else "info",
            f"{_told(workloads)}: asks {server}"
            + (
                f" and the cache on this node, {cache}, in turn"
                if rotate
                else f" first and the cache on this node, {cache}, only when that does not answer"
            ),
            workload=only(workloads),
            evidence=_evidence(workloads, first=server, cache=cache, pps=round(pps, 1)),
            remedy=("take `options rotate` out, and " if rotate else "")
            + "put the cache first and the resolver behind it: libc asks the first one, and"
            " the next when that is silent",
        )


def no_fallback(last: Snapshot) -> Iterator[Finding]:
    """A single nameserver that is on this node: no name resolves while it is down."""
    found: defaultdict[tuple[str, bool], list[Workload]] = defaultdict(list)
    for workload, conf in last.resolv_confs.items():
        if len(conf.nameservers) == 1 and _is_here(conf, conf.nameservers[0], last.on_node):
            found[conf.nameservers[0], workload.kind == "pod"].append(workload)
    for (server, pods), workloads in sorted(found.items()):
        yield Finding(
            "no-fallback",
            "info",
            f"{_told(workloads)}: its only nameserver is {server}, a cache on this node",
            workload=only(workloads),
            evidence=_evidence(workloads, nameserver=server),
            remedy="when the cache dies, names die: name "
            + (
                "the service behind it that the cache itself asks (kube-dns-upstream): dnsPolicy"
                " None and dnsConfig; the VPC's resolver knows no name of the cluster"
                if pods
                else "the VPC's resolver behind it"
            ),
        )


def _is_dead(conf: ResolvConf, server: str) -> bool:
    """Whether it is known that nobody hears what is sent there."""
    if conf.listening is None or server == DOCKERS or not ip_address(server).is_loopback:
        return False
    return server not in conf.listening


def _is_here(conf: ResolvConf, server: str, on_node: Iterable[str]) -> bool:
    heard = conf.listening is not None and server in conf.listening and server != STUB
    return heard or server in on_node


def _direct_pps(first: Snapshot | None, last: Snapshot, seconds: float) -> dict[Workload, float]:
    """Packets a second to port 53 that each put on the ENIs itself."""
    sent: defaultdict[Workload, int] = defaultdict(int)
    for sign, snapshot in ((1, last), (-1, first)):
        for usage in snapshot.enis if snapshot is not None else ():
            for row in usage.workloads:
                counts = (row.classes[name].packets for name in DNS_CLASSES & row.classes.keys())
                sent[row.workload] += sign * sum(counts) if row.via == "direct" else 0
    return {workload: max(0, packets) / seconds for workload, packets in sent.items()}


def _told(workloads: list[Workload]) -> str:
    return full_name(workloads[0]) if len(workloads) == 1 else f"{len(workloads)} containers"


def _evidence(workloads: list[Workload], **more: float | int | str) -> dict[str, float | int | str]:
    names = whose(full_name(workload) for workload in sorted(workloads))
    return {**more, "containers": len(workloads), "workloads": names}
