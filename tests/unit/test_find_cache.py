"""Findings of what a cache would do, and of answers: where they are, and where they are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eni53.diagnosis import findings
from eni53.model import (
    CLASSES,
    Count,
    Eni,
    EniUsage,
    Finding,
    NameRate,
    Snapshot,
    Workload,
    WorkloadUsage,
)
from eni53.sample import Answer

SECONDS = 10.0
POD = Workload("pod", "shop", "api", "app")
EniOf = Callable[..., EniUsage]


def usage(**fields: Any) -> EniUsage:
    """An ENI with a thousand queries to the resolver in ten seconds, each for a name of its own."""
    classes = dict.fromkeys(CLASSES, 0) | {"resolver": 1000} | fields.pop("packets", {})
    known: dict[str, Any] = {"unanswered": 0, "retransmitted": 0, "truncated": 0, "elsewhere": 0}
    return EniUsage(
        eni=Eni("eni-1", "02:00:00:00:00:01", "ens5", "host", 2),
        limit_pps=1024,
        basis=fields.pop("basis", "linklocal"),
        packets=sum(classes.values()),
        window_pps={"linklocal": 0.0, "dns": 0.0},
        peak_pps={"linklocal": 0.0, "dns": 0.0},
        utilization=fields.pop("utilization", 0.2),
        state="ok",
        classes={name: Count(n, 0.0) for name, n in classes.items()},
        protocols={},
        workloads=(),
        **known | {"cacheable": {"resolver": 0.0, "dns_other": 0.0}} | fields,
    )


def found(last: EniUsage, first: EniUsage | None = None) -> dict[str, Finding]:
    """By code, of ten seconds; those of two looks are those of one that began with nothing."""
    now = Snapshot("node", 1010.0, SECONDS, (last,))
    alone = {f.code: f for f in findings(None, now)}
    before = first or replace(
        last,
        classes={name: Count(0, 0.0) for name in CLASSES},
        workloads=(),
        names=tuple(replace(name, packets=0) for name in last.names),
        cacheable=last.cacheable and dict.fromkeys(last.cacheable, 0.0),
        **{
            name: None if getattr(last, name) is None else 0
            for name in ("unanswered", "retransmitted", "truncated", "elsewhere")
        },
    )
    between = {f.code: f for f in findings(Snapshot("node", 1000.0, 1.0, (before,)), now)}
    assert first is not None or between.keys() == alone.keys()
    # What is told late is another part of the queries where counting began with nothing.
    assert first is not None or all(
        between[code] == alone[code] for code in alone if code != "unanswered"
    )
    return between


def spared(resolver: float, other: float = 0.0) -> dict[str, float]:
    """Queries that a cache would have answered."""
    return {"resolver": resolver, "dns_other": other}


def test_a_cache_that_would_halve_the_load() -> None:
    """From a half on, and from fifty a second on; with what it would leave."""
    finding = found(usage(cacheable=spared(900.5)))["no-cache"]
    assert finding.evidence == {
        "pps": 100.0,
        "predicted_pps": pytest.approx(9.95, abs=0.1),
        "limit_pps": 1024,
        "workloads": "unknown",
    }
    assert finding.severity == "info"
    much = usage(packets={"resolver": 5120}, cacheable=spared(5000))
    assert found(much)["no-cache"].severity == "warning"
    assert found(replace(much, limit_pps=1025))["no-cache"].severity == "info"
    assert "no-cache" in found(usage(cacheable=spared(500)))
    assert found(usage(cacheable=spared(499))) == {}
    few = {"packets": {"resolver": 499}}
    assert found(usage(cacheable=spared(499), **few)) == {}


def test_without_names_nothing_is_predicted() -> None:
    """Not counted is not zero, at either end."""
    assert found(usage(cacheable=None)) == {}
    known = usage(cacheable=spared(900))
    assert found(known, replace(known, cacheable=None, classes={})) == {}


def test_only_what_the_limit_counts_is_compared() -> None:
    """Other servers are another matter, unless the basis is all of port 53."""
    other = {"packets": {"resolver": 100, "dns_other": 1000}, "cacheable": spared(0, 1000)}
    assert found(usage(**other)) == {}
    evidence = found(usage(**other, basis="dns"))["no-cache"].evidence
    assert (evidence["pps"], evidence["predicted_pps"]) == (110.0, 10.0)


@pytest.mark.parametrize(
    ("kind", "netns", "remedy"),
    [
        ("ecs_task", "host", "dnsmasq-ecs"),
        ("ecs_task", "net:[4]", "unbound-awsvpc"),
        ("container", "host", "dnsmasq-ecs"),
        ("pod", "host", "nodelocaldns-eks"),
        ("host", "host", "dnsmasq-host"),
        ("unattributed", "host", "`eni53 remedy`"),
    ],
)
def test_the_cache_that_is_advised_fits_who_asks(kind: str, netns: str, remedy: str) -> None:
    """By who asks most; and that one is named, when it is the only one."""
    row = WorkloadUsage(
        Workload(kind, "prod", "shop"), "direct", 1000, 100.0, 1.0, {"resolver": Count(1000, 100.0)}
    )
    last = replace(usage(cacheable=spared(900)), workloads=(row,))
    finding = found(replace(last, eni=replace(last.eni, netns=netns)))["no-cache"]
    assert remedy in finding.remedy
    assert (finding.workload, finding.evidence["workloads"]) == ("prod/shop", "prod/shop 100")


def test_a_cache_that_is_here_is_not_advised_again() -> None:
    """It is asked by few, or keeps little; one that only the host can ask is no help."""

    def told(past: int, client: Workload) -> Finding:
        cache = Workload("cache", "kube-system", "node-local-dns-x")
        by_via = ((POD, "direct", past), (client, "cache", 400), (cache, "direct", 600 - past))
        rows = tuple(
            WorkloadUsage(who, via, n, 0.0, 0.0, {"resolver": Count(n, 0.0)})
            for who, via, n in by_via
        )
        return found(replace(usage(cacheable=spared(900)), workloads=rows))["no-cache"]

    other = Workload("pod", "shop", "batch", "app")
    past = told(600, other)
    assert "the cache on this node (kube-system/node-local-dns-x), if all asked it" in past.summary
    assert "would leave 10 of 100" in past.summary
    assert "resolv.conf" in past.remedy and "eni53 remedy" not in past.remedy
    small = told(499, other)
    assert "if all asked it" not in small.summary
    assert "would leave 10 of 100" in small.summary
    assert "how many names" in small.remedy
    assert "nodelocaldns-eks" in told(600, Workload("host", workload="ssm.service")).remedy


def test_unanswered_tells_the_two_causes_apart() -> None:
    """At the limit AWS drops; far from it a server is dead, and who asks other ones is named."""
    row = WorkloadUsage(
        Workload("ecs_task", "prod", "shop"), "direct", 100, 10.0, 0.1,
        {"dns_other": Count(100, 10.0)},
    )  # fmt: skip
    far = replace(usage(unanswered=100, packets={"dns_other": 100}), workloads=(row,))
    finding = found(far)["unanswered"]
    assert "dead" in finding.remedy
    assert (finding.workload, finding.evidence["ask_other_servers"]) == (
        "prod/shop",
        "prod/shop 10",
    )
    near = found(replace(far, utilization=0.95))["unanswered"]
    assert "drops" in near.remedy
    assert near.workload is None


def test_what_was_before_does_not_count() -> None:
    """A cache has been put in place between the two: the difference alone is looked at."""
    before = usage(packets={"resolver": 10000}, cacheable=spared(9900))
    assert found(usage(packets={"resolver": 10600}, cacheable=spared(9901)), before) == {}


@pytest.mark.parametrize(
    ("code", "field", "enough"),
    [("retry-storm", "retransmitted", 200), ("answered-elsewhere", "elsewhere", 10)],
)
def test_answers(code: str, field: str, enough: int) -> None:
    """From a share on; not known is no finding."""
    assert set(found(usage(**{field: enough}))) == {code}
    assert found(usage(**{field: enough - 1})) == {}
    assert found(usage(**{field: None})) == {}
    few = {"packets": {"resolver": 9}}
    assert found(usage(**{field: 9}, **few)) == {}  # less than one a second is nothing


def names(*entries: tuple[str, int, int | None]) -> tuple[NameRate, ...]:
    """(name, queries in ten seconds, TTL) of names that were asked for."""
    return tuple(
        NameRate(name, "A", queries / SECONDS, queries, Answer(ttl, "NOERROR"))
        for name, queries, ttl in entries
    )


def test_short_ttls() -> None:
    """A quarter of the load, and twenty a second: what is kept for 5 s, or not at all by TTL 0."""
    told = names(("a.svc.internal", 200, 2), ("b.svc.internal", 50, 0), ("c.example.com", 300, 60))
    evidence = found(usage(names=told))["short-ttl"].evidence
    assert evidence == {
        "pps": 25.0,
        "share": 0.25,
        "name": "a.svc.internal",
        "ttl_s": 2,
        "workloads": "unknown",
    }
    assert found(usage(names=names(("a.svc.internal", 249, 2)))) == {}
    assert found(usage(names=names(("a.svc.internal", 400, 6)))) == {}
    assert found(usage(names=names(("a.svc.internal", 400, None)))) == {}
    few = {"packets": {"resolver": 199}}
    assert "short-ttl" not in found(usage(names=names(("a.svc.internal", 199, 2)), **few))
