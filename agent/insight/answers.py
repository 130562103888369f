"""Findings from what comes back. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Finding
from .look import EniLook

UNANSWERED_SHARE = 0.05


def unanswered(look: EniLook) -> Iterator[Finding]:
    """Queries that had no answer within two seconds."""
    usage, before = look.usage, look.before
    if usage.unanswered is None or (before is not None and before.unanswered is None):
        return
    lost = usage.unanswered - ((before.unanswered or 0) if before is not None else 0)
    queries = look.queries * look.seconds
    if lost / look.seconds >= 1 and queries and lost / queries >= UNANSWERED_SHARE:
        yield Finding(
            "unanswered",
            "warning",
            f"{look.label}: {lost} queries had no answer within two seconds",
            eni=look.label,
            evidence={"unanswered": lost, "share": round(min(1.0, lost / queries), 3)},
            remedy="over the limit AWS drops them; below it, the server that was asked is dead or"
            " out of reach: who waits for it waits five seconds on each name",
        )
