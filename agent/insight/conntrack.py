"""Findings from the kernel's table of connections. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Finding, Snapshot

FULL_SHARE = 0.9
LEAST_FAILED = 1.0
"""Failed insertions a second; fewer are nobody's trouble."""


def conntrack_full(first: Snapshot | None, last: Snapshot, seconds: float) -> Iterator[Finding]:
    """It is nearly full, or has dropped what found no place."""
    table = last.conntrack
    if table is None:
        return
    share = table.entries / table.limit if table.limit else 0.0
    dropped = _rise(first, last, "dropped") or 0
    # A packet that lost the race for its place is in both columns.
    dropped = max(0, dropped - (_rise(first, last, "insert_failed") or 0))
    if share < FULL_SHARE and not dropped:
        return
    evidence: dict[str, float | int | str] = {"entries": table.entries, "dropped": dropped}
    if table.limit:
        evidence |= {"limit": table.limit, "share": round(share, 3)}
    full = f"{share:.0%} full" if table.limit else f"{table.entries} connections"
    lost = f", and had no place for {dropped} packets" if dropped else ""
    yield Finding(
        "conntrack-full",
        "critical" if dropped else "warning",
        f"The node's table of connections: {full}{lost}",
        evidence=evidence,
        remedy="what finds no place is dropped without a word, and each query through NAT takes one"
        " for half a minute: raise net.netfilter.nf_conntrack_max, or let a cache answer"
        " (`eni53 remedy`)",
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


def _rise(first: Snapshot | None, last: Snapshot, what: str) -> int | None:
    """By how much it rose since *first*, or since counting began; None when that is not known."""
    now = getattr(last.conntrack, what, None)
    before = getattr(first.conntrack, what, None) if first is not None else 0
    return None if now is None or before is None else max(0, now - before)
