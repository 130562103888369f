"""The frozen values that move from stage to stage, in the order in which data flows.

Before them comes what the kernel has counted (`sample`). Nothing else of ours is imported here, so
every stage can import this and no stage needs another's insides. Numbers carry their unit in the
name; ``None`` means unknown and never zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .sample import Answer, EniCounters, Slot

CLASSES = ("resolver", "dns_other", "imds", "ntp", "linklocal_other")
"""Destination classes, in the order of ``enum packet_class`` in bpf/packet.h."""

UNCLASSIFIED = "unclassified"
"""Packets that were counted and not looked at, where there is no BPF: on either basis they are held
against the limit, for nobody can say that they are harmless."""

COUNTED_CLASSES = (*CLASSES, UNCLASSIFIED)
"""Every class that may be in a snapshot."""

LINKLOCAL_CLASSES = frozenset({"resolver", "imds", "ntp", "linklocal_other"})
"""What AWS limits: the resolver and the other link-local services."""

DNS_CLASSES = frozenset({"resolver", "dns_other"})
"""Everything sent to port 53, wherever it goes."""

PROTOCOLS = ("udp", "tcp", "icmp", "other")
"""Transport protocols, in the order of ``enum packet_protocol`` in bpf/packet.h."""

BASIS_CLASSES: Mapping[str, frozenset[str]] = {
    "linklocal": LINKLOCAL_CLASSES | {UNCLASSIFIED},
    "dns": DNS_CLASSES | {UNCLASSIFIED},
}
"""Which classes add up to each basis of the limit."""

STATES = ("ok", "warning", "critical", "exceeded")
"""States of an ENI, calm to worst."""


# --- inventory ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Eni:
    """One network interface with a limit of its own.

    Attributes:
        label: ``eni-…``, or ``mac:…`` where the id is unknown; fixed for the run.
        mac: Hardware address.
        interface: Name of the device it is counted on.
        netns: ``host``, or the name of the task's network namespace.
        ifindex: Index of that device; in a task's namespace the key its packets are counted under.
        vlan: VLAN id for a branch ENI, else 0.
    """

    label: str
    mac: str
    interface: str
    netns: str
    ifindex: int
    vlan: int = 0


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch ENI: a VLAN on a trunk of the agent's namespace.

    Attributes:
        trunk: Index of the trunk's interface.
        mac: Of the branch ENI.
        netns: Inode of the task's namespace its device is in; None when that is the agent's.
    """

    trunk: int
    vlan: int
    mac: str
    netns: int | None = None


@dataclass(frozen=True, slots=True, order=True)
class Workload:
    """Whoever packets are charged to.

    Attributes:
        kind: ecs_task, pod, container, host, remote, cache, other or unattributed.
        namespace: Cluster of a task, namespace of a pod, else empty.
        workload: ``family:revision/task id``, pod name, container name, unit, address.
        container: Container within it; empty when unknown or when there is none.
    """

    kind: str
    namespace: str = ""
    workload: str = ""
    container: str = ""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the hash: each tick looks every workload up a dozen times."""
        made = hash((self.kind, self.namespace, self.workload, self.container))
        object.__setattr__(self, "_hash", made)

    def __hash__(self) -> int:
        """As it was made."""
        return self._hash


@dataclass(frozen=True, slots=True)
class Conntrack:
    """The kernel's table of connections, of the agent's network namespace.

    Attributes:
        entries: In use now.
        limit: Room for so many; None: no limit.
        insert_failed: Packets that lost the race for their place, since the agent attached; None
            when that is not known.
        dropped: Packets that were dropped for want of a place, those that lost the race among
            them, likewise.
    """

    entries: int
    limit: int | None
    insert_failed: int | None
    dropped: int | None


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What a workload's own ``/etc/resolv.conf`` says.

    Attributes:
        nameservers: In the order in which they are asked; at least one, at most three. 127.0.0.1
            where it names none, as libc has it.
        search: Domains that are tried behind a name.
        ndots: A name with fewer dots is tried with those first; None: not set, which means 1.
        timeout: Seconds to wait for an answer; None: not set, which means 5.
        attempts: Times each is asked; None: not set, which means 2.
        flags: The options that are set, of rotate, single-request, single-request-reopen, no-aaaa
            and use-vc.
        listening: Those of its loopback nameservers that something listens on in its network
            namespace; None: not known, or not looked at since it names none.
    """

    nameservers: tuple[str, ...]
    search: tuple[str, ...] = ()
    ndots: int | None = None
    timeout: int | None = None
    attempts: int | None = None
    flags: tuple[str, ...] = ()
    listening: tuple[str, ...] | None = None


UNATTRIBUTED = Workload("unattributed")
PENDING = Workload("unattributed", workload="pending")
"""Packets whose sender is known to the kernel, and whose name is still being looked up."""
OTHER = Workload("other")


# --- attribution → sinks --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Count:
    """Packets since attach, and their rate over the snapshot's window."""

    packets: int
    pps: float


@dataclass(frozen=True, slots=True)
class NameRate:
    """A name asked for, with its query type and rate.

    Attributes:
        packets: Queries for it since it is counted, which is since attach unless nobody asked for
            it for a while in between.
        answer: The last one that a cache would have fetched; None: none was seen.
    """

    name: str
    type: str
    pps: float
    packets: int = 0
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class WorkloadUsage:
    """What one workload put on one ENI.

    Attributes:
        share: Its part of the ENI's packets on the basis, 0 to 1, over the window.
        classes: By packet class; classes never seen are absent.
        cgroup: Cgroup path, or None when there is not exactly one.
        cgroup_id: Cgroup v2 id, or None likewise.
        via: ``direct``, or ``cache`` when a cache on this node asked on its behalf.
    """

    workload: Workload
    via: str
    packets: int
    pps: float
    share: float
    classes: Mapping[str, Count]
    cgroup: str | None = None
    cgroup_id: int | None = None
    names: Sequence[NameRate] = ()


@dataclass(frozen=True, slots=True)
class EniUsage:
    """One ENI in one snapshot.

    Attributes:
        basis: ``linklocal`` or ``dns``: which sum is held against the limit.
        packets: All classes together, since attach.
        window_pps: The last full second, by basis.
        peak_pps: The highest one-second window of the trailing 60 seconds, by basis.
        utilization: Peak on the configured basis divided by the limit.
        state: One of `STATES`.
        classes: By packet class, all of them.
        protocols: Packets since attach by (class, protocol).
        workloads: Busiest first; their packets add up to ``packets``.
        ended_packets: What workloads gone for five minutes had sent.
        history_pps: One value a second on the configured basis, oldest first, at most 60.
        over_threshold_s: Seconds the window spent above each threshold.
        counters: The kernel's own counters of this ENI, for sinks that show answers.
        allowances: The ENA driver's statistics of what AWS did not let through, by name, since its
            last reset; None where the driver has none, which is not zero.
        minutes_to_limit: At the growth of the last ten minutes; None when that is not steady.
        names: What was asked for most, by whomever: busiest first, at most ten.
        slots: The latest slots that hold anything, the one in progress left out, oldest first; at
            most those of the kernel's ring (6.4 s).
        unanswered, retransmitted, truncated, elsewhere: As in `EniCounters`; None when not known.
        cacheable: As in `EniCounters`, by class; None when it is not known.
        name_queries: Queries over UDP since attach by (name, type), of the names that are to
            become metrics.
    """

    eni: Eni
    limit_pps: int
    basis: str
    packets: int
    window_pps: Mapping[str, float]
    peak_pps: Mapping[str, float]
    utilization: float
    state: str
    classes: Mapping[str, Count]
    protocols: Mapping[tuple[str, str], int]
    workloads: tuple[WorkloadUsage, ...]
    ended_packets: int = 0
    history_pps: tuple[float, ...] = ()
    over_threshold_s: Mapping[float, float] = field(default_factory=dict)
    counters: EniCounters | None = None
    allowances: Mapping[str, int] | None = None
    minutes_to_limit: float | None = None
    names: Sequence[NameRate] = ()
    slots: tuple[Slot, ...] = ()
    unanswered: int | None = None
    retransmitted: int | None = None
    truncated: int | None = None
    elsewhere: int | None = None
    cacheable: Mapping[str, float] | None = None
    name_queries: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerAsked:
    """How a workload fared with a DNS server that is not the VPC's resolver, of late.

    Attributes:
        server: Its address.
        queries: Those that were followed, a few a second at most, over the last minutes.
        fallbacks: Of these: the same question went to another server, after a while.
        waited_s: Until then, in the mean; 0 when there was none.
    """

    workload: Workload
    server: str
    queries: int
    fallbacks: int
    waited_s: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth a person's attention, with its evidence and what would help."""

    code: str
    severity: str
    summary: str
    eni: str | None = None
    workload: str | None = None
    evidence: Mapping[str, float | int | str] = field(default_factory=dict)
    remedy: str = ""


SEVERITIES = ("warning", "critical", "exceeded")
"""Alerts of one ENI, mild to worst. Each is raised and cleared; a worse one includes the milder."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One severity of one ENI, raised or cleared.

    Attributes:
        transition: ``raised`` or ``cleared``.
        severity: One of `SEVERITIES`.
        time_s: Wall clock, seconds since the epoch.
        began_s: The same of when it was raised.
        window_pps: The last second, on the basis.
        peak_pps: The highest second of the last minute, on the basis.
        allowance_exceeded: By how much the driver's count of dropped link-local packets rose since
            it was raised; None where the driver does not count.
        workloads: The busiest five at most.
    """

    transition: str
    severity: str
    time_s: float
    began_s: float
    node: str
    eni: Eni
    basis: str
    limit_pps: int
    window_pps: float
    peak_pps: float
    allowance_exceeded: int | None
    workloads: tuple[WorkloadUsage, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """How well the agent itself is doing.

    Attributes:
        errors: Failures since start, by (stage, reason).
        sources_up: Whether each outside source answers; a source not configured is absent.
        stats: Kernel-side events, by name.
        map_entries: Entries in use and room, by map.
        tag_lost: Packets that came from a known veth without their tag.
        resolver_known: Whether VPC+2 is known.
        load_s: Seconds that compiling and loading took.
        attach_s: Slowest time from a new interface's message to our program on it, in seconds.
        mode: ``tcx`` or ``clsact``; without BPF ``packet`` or ``udp-counters``.
        deliveries: Alerts by (sink, result): delivered, retried or dropped.
        recordings: Files that the flight recorder has written.
    """

    errors: Mapping[tuple[str, str], int] = field(default_factory=dict)
    sources_up: Mapping[str, bool] = field(default_factory=dict)
    stats: Mapping[str, int] = field(default_factory=dict)
    map_entries: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    tag_lost: int = 0
    resolver_known: bool = True
    load_s: float = 0.0
    attach_s: float = 0.0
    mode: str = ""
    deliveries: Mapping[tuple[str, str], int] = field(default_factory=dict)
    recordings: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One window, attributed: the only thing a sink ever sees.

    Attributes:
        node: Host name.
        time_s: Wall clock, seconds since the epoch.
        window_s: Seconds that ``pps`` and ``share`` speak of.
        sent: Packets seen at workloads' veths since attach, by (workload, class).
        slot: Number of the slot that was in progress; None where that is not told.
        servers: Servers that workloads have fallen back from, the worst first; at most
            `fallbacks.MOST`.
        resolv_confs: Of the containers here, as far as it could be read.
        on_node: Nameservers of theirs that a process in the node's own network namespace listens
            on: caches of this node.
        conntrack: None where there is none, or it is not known.
    """

    node: str
    time_s: float
    window_s: float
    enis: tuple[EniUsage, ...]
    findings: tuple[Finding, ...] = ()
    sent: Mapping[tuple[Workload, str], int] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    slot: int | None = None
    servers: tuple[ServerAsked, ...] = ()
    resolv_confs: Mapping[Workload, ResolvConf] = field(default_factory=dict)
    on_node: tuple[str, ...] = ()
    conntrack: Conntrack | None = None
