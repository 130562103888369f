"""Puts one `Snapshot` together from the accounts, the windows and the states. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .ledger import Account, Cell, Ledger, Row
from .model import (
    BASIS_CLASSES,
    CLASSES,
    COUNTED_CLASSES,
    Count,
    Eni,
    EniUsage,
    NameRate,
    WorkloadUsage,
)
from .questions import Questions
from .rates import Windows
from .sample import EniCounters, Slot


@dataclass(frozen=True, slots=True)
class EniView:
    """What is known of one ENI besides its accounts.

    Attributes:
        limit_pps: Its limit.
        basis: ``linklocal`` or ``dns``.
        state: As `alerts` has it.
        over_threshold_s: Seconds over each threshold.
        slots: Of the ring, without the one in progress.
        names_counted: Whether the kernel looks at names.
        name_queries: As in `EniUsage`.
    """

    eni: Eni
    limit_pps: int
    basis: str
    windows: Windows
    state: str
    over_threshold_s: Mapping[float, float]
    counters: EniCounters | None
    allowances: Mapping[str, int] | None = None
    minutes_to_limit: float | None = None
    slots: tuple[Slot, ...] = ()
    names_counted: bool = True
    name_queries: Mapping[tuple[str, str], int] = field(default_factory=dict)


def eni_usage(
    view: EniView, ledger: Ledger, questions: Questions, window_s: float, *, since_start: bool
) -> EniUsage:
    """One ENI of a snapshot.

    Args:
        view: The ENI.
        ledger: Its accounts, just updated.
        questions: Its names, just updated.
        window_s: Seconds that the increases cover.
        since_start: Rates over the whole time since attach, not since the last update.
    """
    place = (view.eni.ifindex, view.eni.vlan)
    totals = ledger.totals(place)
    recent = totals if since_start else ledger.recent(place)
    total, lately = _by_class(totals), _by_class(recent)
    on_basis = _on_basis(lately, view.basis)
    rows = (
        _workload_usage(
            account,
            row,
            view.basis,
            on_basis,
            window_s,
            questions.of_account(place, account, window_s, since_start=since_start),
            since_start=since_start,
        )
        for account, row in ledger.rows.get(place, {}).items()
    )
    peak_pps = view.windows.peak_pps[view.basis]
    # Without buckets answers are not looked at: that is not zero of them.
    seen = view.counters if view.counters and view.counters.response_buckets else None
    return EniUsage(
        eni=view.eni,
        limit_pps=view.limit_pps,
        basis=view.basis,
        packets=sum(totals.values()),
        window_pps=view.windows.window_pps,
        peak_pps=view.windows.peak_pps,
        utilization=peak_pps / view.limit_pps,
        state=view.state,
        classes={
            c: Count(total.get(c, 0), lately.get(c, 0) / window_s)
            for c in COUNTED_CLASSES
            if c in CLASSES or c in total
        },
        protocols=dict(totals),
        workloads=tuple(sorted(rows, key=lambda r: (-r.pps, -r.packets, r.workload))),
        ended_packets=sum(ledger.ended.get(place, {}).values()),
        history_pps=view.windows.history_pps[view.basis],
        over_threshold_s=view.over_threshold_s,
        counters=view.counters,
        allowances=view.allowances,
        minutes_to_limit=view.minutes_to_limit,
        names=questions.of_eni(place, window_s, since_start=since_start),
        slots=view.slots,
        unanswered=seen.unanswered if seen else None,
        retransmitted=seen.retransmitted if seen else None,
        truncated=seen.truncated if seen else None,
        elsewhere=seen.elsewhere if seen else None,
        name_queries=view.name_queries,
        cacheable=seen.cacheable if seen and view.names_counted else None,
    )


def _workload_usage(
    account: Account,
    row: Row,
    basis: str,
    on_basis: int,
    window_s: float,
    names: Sequence[NameRate],
    *,
    since_start: bool,
) -> WorkloadUsage:
    workload, via = account
    total = _by_class(row.packets)
    recent = total if since_start else _by_class(row.recent)
    path, cgroup_id = next(iter(row.cgroups)) if len(row.cgroups) == 1 else (None, None)
    return WorkloadUsage(
        workload=workload,
        via=via,
        packets=sum(total.values()),
        pps=sum(recent.values()) / window_s,
        share=_on_basis(recent, basis) / on_basis if on_basis else 0.0,
        classes={
            c: Count(total[c], recent.get(c, 0) / window_s) for c in COUNTED_CLASSES if c in total
        },
        cgroup=path,
        cgroup_id=cgroup_id,
        names=names,
    )


def _by_class(packets: Mapping[Cell, int]) -> dict[str, int]:
    """Over all protocols; a class without an entry is absent."""
    result: dict[str, int] = {}
    for (packet_class, _), n in packets.items():
        result[packet_class] = result.get(packet_class, 0) + n
    return result


def _on_basis(packets: Mapping[str, int], basis: str) -> int:
    return sum(n for packet_class, n in packets.items() if packet_class in BASIS_CLASSES[basis])
