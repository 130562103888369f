"""What the kernel has counted, as frozen values: from its maps to the stages before a snapshot.

Nothing of ours is imported here. Numbers carry their unit in the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class SenderKey:
    """One row of the kernel's count at an ENI: who put these packets on it, as the kernel saw it.

    Attributes:
        dev: Index of the ENI's interface; for an ENI in a task's namespace a key that no index
            can be (`kernel.layout.TASK_DEV`).
        vlan: VLAN id of a branch ENI on a trunk; 0 for the interface itself.
        origin: Tag written at a workload's veth; 0 when the packet carried none.
        ingress: Interface index the packet came in by; 0 for a sender on this host.
        cgroup_id: Cgroup v2 id of a sender on this host; 0 when forwarded or sent by the kernel.
        packet_class: One of `CLASSES`.
        protocol: One of `PROTOCOLS`.
        asker: Id of the client for whom a cache sent this; 0 when the sender is all there is.
    """

    dev: int
    vlan: int
    origin: int
    ingress: int
    cgroup_id: int
    packet_class: str
    protocol: str
    asker: int = 0
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the hash: each tick looks every sender up several times."""
        who = (self.dev, self.vlan, self.origin, self.ingress, self.cgroup_id, self.asker)
        made = hash((*who, self.packet_class, self.protocol))
        object.__setattr__(self, "_hash", made)

    def __hash__(self) -> int:
        """As it was made."""
        return self._hash


@dataclass(frozen=True, slots=True)
class Question:
    r"""How a question reads.

    Attributes:
        name: Lower case, without the last dot; what no host name has in it as ``\DDD``.
        type: ``A``, ``AAAA``, …, or ``TYPE65280``.
    """

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a cache on the node would have been told of a name last.

    Attributes:
        ttl_s: For how long it would keep that; None: it would not.
        rcode: ``NOERROR``, ``NXDOMAIN``, ...
    """

    ttl_s: int | None
    rcode: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What an origin tag stands for: a veth and a cgroup behind it.

    Attributes:
        ifindex: Index of the host-side veth.
        cgroup_id: Cgroup v2 id of the sending socket; 0 when the kernel had no socket.
        tag: The 16-bit id packets carry; 0 when none was free.
        sent: Packets seen at the veth since attach, by class; classes with none are absent.
    """

    ifindex: int
    cgroup_id: int
    tag: int
    sent: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Remote:
    """A client on another node that asks a resolver on this one.

    Attributes:
        address: Its IPv4 or IPv6 address.
        asked_ns: Monotonic clock when it last asked.
    """

    address: str
    asked_ns: int


@dataclass(frozen=True, slots=True)
class FallbackKey:
    """Who asks which server.

    Attributes:
        dev: Index of a workload's veth, or key of the ENI that it was sent by from this side.
        vlan: Of a branch ENI, else 0.
        cgroup_id: Of the sending socket.
        server: Its IPv4 or IPv6 address; never one of the resolver's.
    """

    dev: int
    vlan: int
    cgroup_id: int
    server: str


class Slot(NamedTuple):
    """One slot of an ENI's window ring. A tuple, for a tick makes a thousand of them.

    Attributes:
        number: Absolute slot number: monotonic clock divided by the slot length.
        linklocal: Packets to link-local services in this slot.
        dns: Packets to port 53 in this slot.
    """

    number: int
    linklocal: int
    dns: int


@dataclass(frozen=True, slots=True)
class EniCounters:
    """What the kernel keeps for one ENI besides its senders.

    Attributes:
        slots: The slots of the ring that hold anything, in order of number.
        overflow: Packets that found the sender table full, by (class, protocol).
        responses: Answers seen, by rcode number.
        response_buckets: Answers per latency bucket (`RESPONSE_BOUNDS_S`, then +Inf); empty where
            answers are not looked at.
        response_sum_s: Sum of the latencies, in seconds.
        unanswered: Queries over UDP that had no answer within two seconds; each counts once, with
            its retransmissions of five seconds, and is told two to three and a half seconds after
            it was sent. Not in it: one that lost its place to another while it waited, for nobody
            knows (``query_evicted`` says how many may have).
        cacheable: Queries over UDP, by class, that a cache on the node would have answered: asked
            through this ENI before, and within the TTL of the answer. The query that a cache
            would send once a TTL is taken off in parts, as that goes by. Zeros while names are
            not counted.
        retransmitted: Queries over UDP that came again before they had an answer: the same port and
            id within five seconds, or the same name and id within fifteen.
        truncated: Answers over UDP that said so: the question comes again over TCP.
        elsewhere: Answers to a query that waits, from another address than was asked.
    """

    slots: tuple[Slot, ...]
    overflow: Mapping[tuple[str, str], int]
    responses: Mapping[int, int]
    response_buckets: tuple[int, ...]
    response_sum_s: float
    unanswered: int = 0
    cacheable: Mapping[str, float] = field(default_factory=dict)
    retransmitted: int = 0
    truncated: int = 0
    elsewhere: int = 0


RESPONSE_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency buckets, the same as in bpf/answers.h."""


def _no_answer(_place: tuple[int, int], _question: int) -> None:
    """Where answers are not looked at."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Every counter of the kernel as it stood at one moment.

    Attributes:
        taken_at_ns: Monotonic clock at the start of the read.
        senders: Packets since attach by sender.
        origins: What each origin tag stands for, by (ifindex, cgroup id).
        enis: Per (interface index, VLAN id).
        sources: Packets that came in by an interface nobody owns, by
            (dev, vlan, source address, class, protocol). A bounded LRU, so only a lower bound.
        stats: Events by name (`kernel.layout.STATS`), since attach.
        remotes: Clients on other nodes, by the id that `SenderKey.asker` carries.
        asked: Queries over UDP since the last sample, by who asked and by the hash of name and
            type, case folded, as the kernel makes it; only those that there are.
        questions: How names read, by hash; one may be missing for a while.
        answer_of: What came back for a question at an ENI, by (dev, vlan) and hash. Looked up when
            it is called, for only the few that are shown are wanted.
        fallbacks: By who asks which server: queries that were followed, those of them that were
            asked again of another server, and nanoseconds until then in sum. A bounded LRU.
    """

    taken_at_ns: int
    senders: Mapping[SenderKey, int]
    origins: Mapping[tuple[int, int], Origin]
    enis: Mapping[tuple[int, int], EniCounters]
    sources: Mapping[tuple[int, int, str, str, str], int]
    stats: Mapping[str, int]
    remotes: Mapping[int, Remote] = field(default_factory=dict)
    asked: Mapping[SenderKey, Mapping[int, int]] = field(default_factory=dict)
    questions: Mapping[int, Question] = field(default_factory=dict)
    answer_of: Callable[[tuple[int, int], int], Answer | None] = _no_answer
    fallbacks: Mapping[FallbackKey, tuple[int, int, int]] = field(default_factory=dict)
