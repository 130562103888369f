"""Findings from which servers are asked, and by what: each where its situation is, else none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eni53.diagnosis import findings
from eni53.model import (
    CLASSES,
    Count,
    Eni,
    EniUsage,
    Finding,
    ServerAsked,
    Snapshot,
    Workload,
    WorkloadUsage,
)
from eni53.snapshot_json import dumps, loads

WEB = Workload("pod", "shop", "web-1", "app")
JOB = Workload("pod", "shop", "job-1", "app")
TASK = Workload("ecs_task", "prod", "api:1/1", "app")
SECONDS = 10.0


def usage(
    packets: dict[tuple[str, str], int],
    *,
    unanswered: int | None = 0,
    vlan: int = 0,
    netns: str = "host",
    workloads: tuple[Workload, ...] = (),
    state: str = "ok",
) -> EniUsage:
    """An ENI with *packets* by class and protocol; all to other servers are of each workload."""
    classes = {
        name: Count(sum(n for (its, _), n in packets.items() if its == name), 0.0)
        for name in CLASSES
    }
    other = {"dns_other": classes["dns_other"]}
    return EniUsage(
        eni=Eni("eni-1", "02:00:00:00:00:01", "ens5", netns, 2, vlan),
        limit_pps=1024,
        basis="linklocal",
        packets=sum(packets.values()),
        window_pps={"linklocal": 0.0, "dns": 0.0},
        peak_pps={"linklocal": 0.0, "dns": 0.0},
        utilization=0.1,
        state=state,
        classes=classes,
        protocols=packets,
        workloads=tuple(WorkloadUsage(w, "direct", 1, 0.0, 0.0, other) for w in workloads),
        unanswered=unanswered,
    )


def looks(one: EniUsage, *servers: ServerAsked) -> tuple[Snapshot, Snapshot]:
    """Two looks at an agent, ten seconds apart; all of *one* happened between them."""
    last = Snapshot("node", 1010.0, SECONDS, (one,), servers=servers)
    nothing = replace(
        one,
        classes={name: Count(0, 0.0) for name in CLASSES},
        protocols={},
        workloads=(),
        unanswered=None if one.unanswered is None else 0,
        truncated=None if one.truncated is None else 0,
    )
    return loads(dumps(Snapshot("node", 1000.0, 1.0, (nothing,)))), loads(dumps(last))


def found(one: EniUsage) -> list[Finding]:
    """Of what happened in ten seconds: measured at once, and between two looks at an agent."""
    first, last = looks(one)
    alone = list(findings(None, last))
    assert [f for f in findings(first, last) if f.code != "unanswered"] == [
        f for f in alone if f.code != "unanswered"
    ]
    # The same counts, but all of them from before the first look: nothing happened.
    assert {f.code for f in findings(replace(last, time_s=1000.0), last)} <= {"over-limit"}
    return alone


def between(one: EniUsage, *servers: ServerAsked) -> dict[str, Finding]:
    """By code, between two looks: there what is told in them is as much as was lost in them."""
    return {finding.code: finding for finding in findings(*looks(one, *servers))}


def codes(one: EniUsage) -> set[str]:
    """Of the findings."""
    return {finding.code for finding in found(one)}


def test_tcp_that_makes_a_third_of_the_packets() -> None:
    """To any server on port 53; with its rate and share."""
    mixed = {("resolver", "udp"): 600, ("resolver", "tcp"): 300, ("dns_other", "tcp"): 100}
    (finding,) = found(usage(mixed))
    assert (finding.code, finding.severity) == ("tcp-overhead", "warning")
    assert finding.evidence == {"tcp_pps": 40.0, "share": 0.4}


@pytest.mark.parametrize(
    ("truncated", "helps"),
    [
        (None, {"use-vc", "where answers come truncated", "EDNS"}),
        (0, {"use-vc"}),
        (19, {"use-vc"}),
        (50, {"use-vc", "EDNS"}),
        (80, {"EDNS"}),
        (100, {"EDNS"}),
    ],
)
def test_why_it_is_tcp(truncated: int | None, helps: set[str]) -> None:
    """A hundred lookups: what answers said tells truncation from a client's own will."""
    one = usage({("resolver", "udp"): 550, ("resolver", "tcp"): 550})
    (finding,) = found(replace(one, truncated=truncated))
    words = ("use-vc", "where answers come truncated", "EDNS")
    assert {word for word in words if word in finding.remedy} == helps
    assert finding.evidence.get("truncated") == truncated
    assert (f"{truncated} answers" in finding.summary) is (truncated is not None)


@pytest.mark.parametrize(
    "packets",
    [
        {("resolver", "udp"): 1000, ("resolver", "tcp"): 400},
        {("resolver", "udp"): 100, ("resolver", "tcp"): 190},
        {("imds", "tcp"): 5, ("resolver", "udp"): 1000},
        {("imds", "tcp"): 300, ("resolver", "udp"): 800},
        {},
    ],
)
def test_tcp_that_is_no_load(packets: dict[tuple[str, str], int]) -> None:
    """Too small a share, too slow, or no DNS at all."""
    assert codes(usage(packets)) == set()


STRICT = {("resolver", "udp"): 25, ("dns_other", "udp"): 60}


@pytest.mark.parametrize(
    "packets", [STRICT, {("dns_other", "udp"): 60}, {**STRICT, ("dns_other", "tcp"): 10}]
)
@pytest.mark.parametrize("sent_again", [1, 2])
def test_a_branch_eni_whose_pods_ask_a_cache_in_vain(
    packets: dict[tuple[str, str], int], sent_again: int
) -> None:
    """Whether they have a second server or not; who is named, and the setting that does it."""
    one = usage(packets, unanswered=60 // sent_again, vlan=7, workloads=(WEB, JOB))
    finding = next(f for f in found(one) if f.code == "cache-unreachable")
    assert (finding.severity, finding.eni) == ("critical", "eni-1")
    assert finding.workload == "shop/job-1"
    assert finding.evidence["workloads"] == "shop/job-1, shop/web-1"
    assert finding.evidence["unanswered"] == 60 // sent_again
    assert "POD_SECURITY_GROUP_ENFORCING_MODE=standard" in finding.remedy


def test_a_task_that_asks_its_hosts_cache() -> None:
    """An ENI in its own namespace, or a branch of one: another remedy."""
    for place in ({"netns": "net:[4026532000]"}, {"vlan": 9}):
        one = usage(STRICT, unanswered=58, workloads=(TASK,), **place)  # type: ignore[arg-type]
        finding = next(f for f in found(one) if f.code == "cache-unreachable")
        assert "unbound-awsvpc" in finding.remedy
        assert "POD_SECURITY" not in finding.remedy


@pytest.mark.parametrize(
    "one",
    [
        usage(STRICT, unanswered=3, vlan=7, workloads=(WEB,)),
        usage(STRICT, unanswered=60, workloads=(WEB,)),
        usage(STRICT, unanswered=None, vlan=7),
        usage({("resolver", "udp"): 1000, ("dns_other", "udp"): 20}, unanswered=90, vlan=7),
        usage(STRICT, unanswered=60, vlan=7, state="exceeded"),
        usage({("dns_other", "udp"): 2}, unanswered=2, vlan=7),
        usage({("resolver", "udp"): 60}, unanswered=60, vlan=7),
    ],
    ids=["answered", "host", "unknown", "resolver", "over-limit", "two", "none-asked"],
)
def test_where_the_cache_can_be_reached(one: EniUsage) -> None:
    """A few losses, an ENI of the host's, or what is lost is something else."""
    assert "cache-unreachable" not in codes(one)


BOTH = {("resolver", "udp"): 60, ("dns_other", "udp"): 60}
LEFT = ServerAsked(WEB, "169.254.20.10", 30, 28, 5.0)


def test_losses_that_the_resolver_may_have_had() -> None:
    """As many as it was asked: only if somebody was seen to leave the other server it is known."""
    one = usage(BOTH, unanswered=60, vlan=7, workloads=(WEB,))
    assert between(one).keys() == {"unanswered"}
    evidence = between(one, LEFT)["cache-unreachable"].evidence
    assert evidence == {
        "dns_other": 60, "resolver": 60, "unanswered": 60, "servers": "169.254.20.10",
        "workloads": "shop/web-1",
    }  # fmt: skip
    for other in (
        replace(LEFT, workload=JOB),
        replace(LEFT, fallbacks=20),
        replace(LEFT, queries=2, fallbacks=2),
    ):
        assert "cache-unreachable" not in between(one, other)
    more = usage(BOTH, unanswered=61, vlan=7, workloads=(WEB,))
    assert between(more)["cache-unreachable"].evidence["resolver"] == 60


THEIRS, RESOLVERS = "see who asks other servers", "Route 53 Resolver's forwarding rules"


@pytest.mark.parametrize(
    ("packets", "lost", "named", "helps"),
    [
        ({("resolver", "udp"): 2000, ("dns_other", "udp"): 10}, 400, False, {RESOLVERS}),
        ({("resolver", "udp"): 2000}, 400, False, {RESOLVERS}),
        ({("resolver", "udp"): 600, ("dns_other", "udp"): 400}, 300, True, {THEIRS, RESOLVERS}),
        ({("resolver", "udp"): 100, ("dns_other", "udp"): 400}, 400, True, {THEIRS}),
        ({("dns_other", "udp"): 390}, 400, True, {THEIRS}),
        ({("resolver", "udp"): 500, ("dns_other", "udp"): 500}, 1000, False, {THEIRS, RESOLVERS}),
    ],
    ids=["a probe", "nobody else asked", "either", "theirs", "theirs alone", "both"],
)
def test_whose_losses_they_can_be(
    packets: dict[tuple[str, str], int], lost: int, named: bool, helps: set[str]
) -> None:
    """One number for all servers: nobody is named whose queries are fewer than those lost."""
    asking = (WEB,) if ("dns_other", "udp") in packets else ()
    told = between(usage(packets, unanswered=lost, workloads=asking))["unanswered"]
    assert told.workload == ("shop/web-1/app" if named else None)
    assert {text for text in (THEIRS, RESOLVERS) if text in told.remedy} == helps
