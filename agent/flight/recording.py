"""A stretch of one node's time as a frozen value: what a file holds, and what is played back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..model import Count, Eni, Workload

REASONS = ("exceeded", "driver-drops", "requested")


@dataclass(frozen=True, slots=True)
class Top:
    """One of the busiest workloads of one second.

    Attributes:
        packets: Since the agent attached.
        pps: In that second, all classes.
        share: Of the ENI's packets on its basis, 0 to 1.
    """

    workload: Workload
    via: str
    packets: int
    pps: float
    share: float


@dataclass(frozen=True, slots=True)
class Second:
    """What a snapshot said of one ENI.

    Attributes:
        at: Slots from the recording's begin to the moment it was taken.
        state: One of `model.STATES`.
        dropped: The driver's count of dropped link-local packets; None where it has none.
        classes: Packets since attach, and their rate, by class; those never seen are absent.
        top: Busiest first, at most five.
    """

    at: int
    state: str
    dropped: int | None
    classes: Mapping[str, Count]
    top: tuple[Top, ...]


@dataclass(frozen=True, slots=True)
class RecordedEni:
    """One ENI.

    Attributes:
        linklocal: Packets to link-local services in each slot; None where that is not known.
        dns: Packets to port 53 likewise.
        seconds: In order of time.
    """

    eni: Eni
    limit_pps: int
    basis: str
    linklocal: tuple[int | None, ...]
    dns: tuple[int | None, ...]
    seconds: tuple[Second, ...]

    @property
    def counted(self) -> tuple[int | None, ...]:
        """The slots on the ENI's basis."""
        return self.dns if self.basis == "dns" else self.linklocal


@dataclass(frozen=True, slots=True)
class Recording:
    """The ENIs of one node over the same stretch of time; those that sent nothing are left out.

    Attributes:
        agent: Version that recorded it.
        reason: One of `REASONS`.
        eni: Label of the ENI it was made for; None when for all.
        begin_s: Wall clock at the begin of the first slot, seconds since the epoch.
        moment: Slots from the begin to what it was made for; None when it was just asked for.
        slots: How many there are.
        named: Names of workloads, ENIs and node are the real ones.
    """

    node: str
    agent: str
    reason: str
    eni: str | None
    begin_s: float
    moment: int | None
    slots: int
    enis: tuple[RecordedEni, ...]
    named: bool = True


def without_names(recording: Recording) -> Recording:
    """*recording* with a number in the place of every name and address: the rates stay."""
    labels = {one.eni.label: f"eni-{at}" for at, one in enumerate(recording.enis, 1)}
    known: dict[Workload, Workload] = {}

    def nameless(workload: Workload) -> Workload:
        if workload not in known:
            named = any((workload.namespace, workload.workload, workload.container))
            number = f"{workload.kind}-{len(known) + 1}" if named else ""
            known[workload] = Workload(workload.kind, workload=number)
        return known[workload]

    def stripped(at: int, one: RecordedEni) -> RecordedEni:
        netns = "host" if one.eni.netns == "host" else f"netns-{at}"
        eni = Eni(labels[one.eni.label], "", f"eth{at}", netns, one.eni.ifindex, one.eni.vlan)
        seconds = (
            replace(
                second,
                top=tuple(replace(row, workload=nameless(row.workload)) for row in second.top),
            )
            for second in one.seconds
        )
        return replace(one, eni=eni, seconds=tuple(seconds))

    return replace(
        recording,
        node="node",
        eni=labels.get(recording.eni, "eni-0") if recording.eni is not None else None,
        enis=tuple(stripped(at, one) for at, one in enumerate(recording.enis, 1)),
        named=False,
    )
