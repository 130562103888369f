"""Findings from what comes back. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..model import Finding
from .look import EniLook
from .who import only, rates, senders

LEAST_A_SECOND = 1.0
UNANSWERED_SHARE = 0.05
AT_LIMIT = 0.9
RETRY_SHARE = 0.2
ELSEWHERE_SHARE = 0.01
COVERED = 0.8
"""Not all of it: what is told now was lost some seconds ago."""


def unanswered(look: EniLook) -> Iterator[Finding]:
    """Queries that had no answer within two seconds."""
    lost = look.risen(lambda usage: usage.unanswered)
    queries = look.queries * look.told_s
    share = min(1.0, (lost or 0) / queries) if queries else 0.0
    if (lost or 0) / look.told_s < LEAST_A_SECOND or share < UNANSWERED_SHARE:
        return
    others = senders(look, ("dns_other",))
    evidence: dict[str, float | int | str] = {
        "unanswered": lost or 0,
        "share": round(share, 3),
        "peak_pps": round(look.usage.peak_pps[look.usage.basis], 1),
        "limit_pps": look.usage.limit_pps,
    }
    if others:
        evidence["ask_other_servers"] = rates(others)
    over = look.dropped or look.usage.utilization >= AT_LIMIT
    near = look.usage.state != "ok"
    theirs, helps = _silent(look, lost or 0)
    yield Finding(
        "unanswered",
        "warning",
        f"{look.label}: {lost} queries had no answer within two seconds",
        eni=look.label,
        workload=only(others) if not (over or near) and theirs else None,
        evidence=evidence,
        remedy="AWS drops what is over the limit: a cache on the node (`eni53 remedy`), or fewer"
        " queries by those who send most"
        if over
        else f"the limit is close, and may have cost them: `eni53 remedy`. Or {helps}"
        if near
        else f"the limit is far, so nothing was dropped for it: {helps}",
    )


def retry_storm(look: EniLook) -> Iterator[Finding]:
    """The same query again and again, before it has an answer."""
    again = look.risen(lambda usage: usage.retransmitted)
    share = _share(again, look)
    if _counts(again, look) and share >= RETRY_SHARE:
        yield Finding(
            "retry-storm",
            "warning",
            f"{look.label}: {share:.0%} of the queries repeat one that has not been answered yet:"
            " what is dropped comes back as more load",
            eni=look.label,
            evidence={
                "retransmitted": again or 0,
                "pps": round((again or 0) / look.seconds, 1),
                "share": round(share, 3),
            },
            remedy="clients that wait longer before they try again (`options timeout:`,"
            " `attempts:`), and fewer queries: a cache on the node answers at once",
        )


def answered_elsewhere(look: EniLook) -> Iterator[Finding]:
    """Answers that come from another address than was asked: clients throw them away."""
    strange = look.risen(lambda usage: usage.elsewhere)
    share = _share(strange, look)
    if _counts(strange, look) and share >= ELSEWHERE_SHARE:
        yield Finding(
            "answered-elsewhere",
            "warning",
            f"{look.label}: {strange} answers came from another address than was asked, and are"
            " thrown away by who waits for them",
            eni=look.label,
            evidence={"answers": strange or 0, "share": round(share, 3)},
            remedy="the server answers by another of its addresses, or something on the way"
            " rewrites them: bind it to the address that is asked, look at NAT rules for port 53",
        )


def _silent(look: EniLook, lost: int) -> tuple[bool, str]:
    """Whether servers other than the VPC's resolver may have lost all of it, and what helps.

    It is one number for all servers: only from how many each was asked can it be told whose it is.
    """
    theirs = look.class_pps(("dns_other",)) * look.told_s >= COVERED * lost
    resolvers = look.class_pps(("resolver",)) * look.told_s >= COVERED * lost
    helps = []
    if theirs or not resolvers:
        helps.append(
            "a server that was asked is dead or out of reach, and who waits for it waits five"
            " seconds on each name; see who asks other servers than the VPC's resolver, and their"
            " resolv.conf"
        )
    if resolvers or not theirs:
        helps.append(
            "the VPC's resolver did not answer; see Route 53 Resolver's forwarding rules whose"
            " target is dead, and zones that are delegated to dead servers"
        )
    return theirs, ". Or ".join(helps)


def _counts(number: int | None, look: EniLook) -> bool:
    return number is not None and number / look.seconds >= LEAST_A_SECOND


def _share(number: int | None, look: EniLook) -> float:
    """Part of the queries; 0 when that is not known, or there were none."""
    queries = look.queries * look.seconds
    return min(1.0, (number or 0) / queries) if queries else 0.0
