"""Findings from the kernel's table of connections. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Conntrack, Finding, Snapshot

FULL_SHARE = 0.9
LEAST_DROPPED = 1.0
"""A second, where there is room; fewer are some stranger's broken packets."""
LEAST_FAILED = 1.0
"""Failed insertions a second; fewer are nobody's trouble."""


def conntrack_full(first: Snapshot | None, last: Snapshot, seconds: float) -> Iterator[Finding]:
    """It is nearly full, and has perhaps dropped what found no place."""
    table = last.conntrack
    if table is None or not _is_full(table):
        return
    share = table.entries / (table.limit or 1)
    dropped = _dropped(first, last)
    lost = f", and had no place for {dropped} packets" if dropped else ""
    yield Finding(
        "conntrack-full",
        "critical" if dropped else "warning",
        f"The node's table of connections: {share:.0%} full{lost}",
        evidence=_evidence(table, dropped),
        remedy="what finds no place is dropped without a word, and each query through NAT takes one"
        " for half a minute: raise net.netfilter.nf_conntrack_max, or let a cache answer"
        " (`eni53 remedy`)",
    )


def conntrack_drops(first: Snapshot | None, last: Snapshot, seconds: float) -> Iterator[Finding]:
    """It has dropped packets although it has room."""
    table = last.conntrack
    if table is None or _is_full(table):
        return
    dropped = _dropped(first, last)
    if dropped / seconds < LEAST_DROPPED:
        return
    yield Finding(
        "conntrack-drops",
        "warning",
        f"The node's table of connections dropped {dropped} packets, though it has room",
        evidence=_evidence(table, dropped) | {"per_second": round(dropped / seconds, 1)},
        remedy="packets that are malformed or fit no connection, or it was full for a moment:"
        " `conntrack -S` counts them by processor, net.netfilter.nf_conntrack_log_invalid says"
        " which they are",
    )


def conntrack_insert_failed(
    first: Snapshot | None, last: Snapshot, seconds: float
) -> Iterator[Finding]:
    """Packets that were dropped since another one of the same socket took their place."""
    failed = _rise(first, last, "insert_failed")
    if failed is None or failed / seconds < LEAST_FAILED:
        return
    yield Finding(
        "conntrack-insert-failed",
        "warning",
        f"{failed} packets lost the race for a place in the node's connection table",
        evidence={"insert_failed": failed, "per_second": round(failed / seconds, 1)},
        remedy="as when one socket asks for A and AAAA at the same moment through NAT: the second"
        " is lost, and its name takes five seconds. `options single-request-reopen` (glibc),"
        " or a cache on the node that is reached without NAT",
    )


def _is_full(table: Conntrack) -> bool:
    return table.limit is not None and table.entries >= table.limit * FULL_SHARE


def _dropped(first: Snapshot | None, last: Snapshot) -> int:
    """Packets, without those that lost the race for their place: such a one is in both columns."""
    failed = _rise(first, last, "insert_failed") or 0
    return max(0, (_rise(first, last, "dropped") or 0) - failed)


def _evidence(table: Conntrack, dropped: int) -> dict[str, float | int | str]:
    evidence: dict[str, float | int | str] = {"entries": table.entries, "dropped": dropped}
    if table.limit:
        evidence |= {"limit": table.limit, "share": round(table.entries / table.limit, 3)}
    return evidence


def _rise(first: Snapshot | None, last: Snapshot, what: str) -> int | None:
    """By how much it rose since *first*, or since counting began; None when that is not known."""
    now = getattr(last.conntrack, what, None)
    before = getattr(first.conntrack, what, None) if first is not None else 0
    return None if now is None or before is None else max(0, now - before)
