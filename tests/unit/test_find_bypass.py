"""Who asks the resolver itself, though there is a cache on the node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eni53.diagnosis import findings
from eni53.model import (
    CLASSES,
    OTHER,
    Count,
    Eni,
    EniUsage,
    Finding,
    Snapshot,
    Workload,
    WorkloadUsage,
)

SECONDS = 10.0
WEB = Workload("ecs_task", "prod", "web:1/1", "app")
SIDE = replace(WEB, container="side")
ASKER = Workload("pod", "shop", "api-1", "api")
REMOTE = Workload("remote", workload="10.0.9.9")
CACHE = Workload("cache", workload="dnsmasq.service")
HOST, KERNEL = Workload("host", workload="collector.service"), Workload("host", workload="kernel")


def row(
    workload: Workload, packets: int, via: str = "direct", to: str = "resolver"
) -> WorkloadUsage:
    """What a workload has sent."""
    return WorkloadUsage(workload, via, packets, 0.0, 0.0, {to: Count(packets, 0.0)})


def eni(*rows: WorkloadUsage, label: str = "eni-1", netns: str = "host", vlan: int = 0) -> EniUsage:
    """An ENI with these accounts."""
    classes = dict.fromkeys(CLASSES, 0)
    for one in rows:
        for name, count in one.classes.items():
            classes[name] += count.packets
    return EniUsage(
        eni=Eni(label, "02:00:00:00:00:01", "ens5", netns, 2, vlan),
        limit_pps=1024,
        basis="linklocal",
        packets=sum(classes.values()),
        window_pps={"linklocal": 0.0, "dns": 0.0},
        peak_pps={"linklocal": 200.0, "dns": 0.0},
        utilization=0.2,
        state="ok",
        classes={name: Count(n, 0.0) for name, n in classes.items()},
        protocols={},
        workloads=rows,
    )


def bypassed(*enis: EniUsage, before: tuple[EniUsage, ...] | None = None) -> list[Finding]:
    """Those of ten seconds, since *before* or since counting began."""
    first = Snapshot("node", 1000.0, 1.0, before) if before is not None else None
    found = findings(first, Snapshot("node", 1010.0, SECONDS, enis))
    return [finding for finding in found if finding.code == "cache-bypassed"]


def test_a_workload_that_goes_past_the_cache() -> None:
    """With its rate, its share, and which cache; its containers together."""
    [found] = bypassed(eni(row(WEB, 200), row(SIDE, 100), row(CACHE, 50), row(ASKER, 150, "cache")))
    assert (found.eni, found.workload, found.severity) == ("eni-1", "prod/web:1/1", "warning")
    assert found.evidence == {"pps": 30.0, "share": 0.6, "cache": "dnsmasq.service"}
    assert "dnsmasq.service" in found.summary
    assert "resolv.conf" in found.remedy


@pytest.mark.parametrize(
    "caches",
    [(row(ASKER, 20, "cache"),), (row(REMOTE, 20, "cache"),)],
    ids=["of who asked it", "of who asked it from another node"],
)
def test_how_a_cache_is_known(caches: tuple[WorkloadUsage, ...]) -> None:
    """By the packets of who asked it; also on another ENI."""
    assert len(bypassed(eni(row(WEB, 300), *caches))) == 1
    assert len(bypassed(eni(row(WEB, 300)), eni(*caches, label="eni-2"))) == 1


@pytest.mark.parametrize(
    "rows",
    [
        (row(WEB, 300),),
        (row(WEB, 300), row(ASKER, 19, "cache")),
        (row(WEB, 190), row(ASKER, 20, "cache")),
        (row(WEB, 300), row(CACHE, 2000), row(ASKER, 20, "cache")),
        (row(WEB, 300, to="dns_other"), row(ASKER, 20, "cache")),
        (row(WEB, 300, "cache"), row(CACHE, 300)),
        (row(KERNEL, 300), row(ASKER, 20, "cache")),
        (row(OTHER, 300), row(ASKER, 20, "cache")),
        (row(REMOTE, 300, "cache"), row(CACHE, 10)),
    ],
    ids=["no cache", "a guess", "few", "a small part", "another server", "by the cache", "kernel",
         "many", "remote"],
)  # fmt: skip
def test_who_does_not(rows: tuple[WorkloadUsage, ...]) -> None:
    """No cache, too little, or not past it."""
    assert bypassed(eni(*rows)) == []


def test_a_service_of_the_host_may_do_so_too() -> None:
    """It has a resolv.conf like any other."""
    [found] = bypassed(eni(row(HOST, 300), row(CACHE, 10)))
    assert found.workload == "collector.service"


@pytest.mark.parametrize("place", [{"netns": "net:[4026532201]"}, {"vlan": 3}], ids=["task", "pod"])
def test_who_cannot_reach_it_does_not_go_past_it(place: dict[str, Any]) -> None:
    """An awsvpc task, a pod with security groups: their own ENI does not lead to it."""
    here = eni(row(CACHE, 50), row(ASKER, 200, "cache"))
    assert bypassed(here, eni(row(WEB, 500), label="eni-2", **place)) == []
    assert len(bypassed(here, eni(row(WEB, 500), label="eni-2"))) == 1


def test_a_cache_that_only_the_host_asks() -> None:
    """systemd-resolved on 127.0.0.53: what a container can ask it is not known to do."""
    stub = replace(CACHE, workload="systemd-resolved.service")
    agent = Workload("host", workload="amazon-ssm-agent.service")
    rows = (row(WEB, 400), row(stub, 30), row(agent, 40, "cache"))
    assert bypassed(eni(*rows)) == []
    assert bypassed(eni(*rows, row(ASKER, 19, "cache"))) == []
    assert len(bypassed(eni(*rows, row(ASKER, 20, "cache")))) == 1
    [found] = bypassed(eni(row(HOST, 400), *rows[1:]))
    assert found.workload == "collector.service"


def test_what_was_before_the_first_look_counts_no_more() -> None:
    """A cache that is no more, a workload that has been set right; a row that is new is all new."""
    old = eni(row(WEB, 300), row(ASKER, 50, "cache"))
    assert bypassed(old, before=(old,)) == []
    assert bypassed(eni(row(WEB, 600), row(ASKER, 50, "cache")), before=(old,)) == []
    assert bypassed(eni(row(WEB, 400), row(ASKER, 60, "cache")), before=(old,)) == []
    assert len(bypassed(eni(row(WEB, 600), row(ASKER, 60, "cache")), before=(old,))) == 1
    fresh = eni(row(WEB, 300), row(ASKER, 60, "cache"), row(HOST, 300))
    assert [found.workload for found in bypassed(fresh, before=(old,))] == ["collector.service"]
