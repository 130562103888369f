"""Findings from containers' own resolv.conf: each where its situation is, and nowhere else."""

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
    NameRate,
    ResolvConf,
    Snapshot,
    Workload,
    WorkloadUsage,
)
from eni53.snapshot_json import dumps, loads

SECONDS = 10.0
WEB, API = Workload("pod", "shop", "web-1", "app"), Workload("ecs_task", "prod", "api:1/x", "app")
VPC, CACHE, CLUSTER = "10.0.0.2", "169.254.20.10", "172.20.0.10"


def node(
    *confs: ResolvConf, on_node: tuple[str, ...] = (), enis: tuple[EniUsage, ...] = ()
) -> Snapshot:
    """A node with a container for each."""
    whose = {Workload("container", "", f"c{at}"): conf for at, conf in enumerate(confs)}
    return Snapshot("node", 1010.0, SECONDS, enis, resolv_confs=whose, on_node=on_node)


def found(last: Snapshot, first: Snapshot | None = None) -> dict[str, Finding]:
    """By code; the same of a snapshot that came as JSON."""
    by_code = {finding.code: finding for finding in findings(first, last)}
    sent = None if first is None else loads(dumps(first))
    assert {f.code: f for f in findings(sent, loads(dumps(last)))} == by_code
    return by_code


# --- loopback-resolver ------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["127.0.0.1", "127.0.0.53", "::1"])
def test_loopback_without_a_listener(server: str) -> None:
    """Alone it is critical; with another behind it, names still resolve."""
    alone = found(node(ResolvConf((server,), listening=())))
    assert set(alone) == {"loopback-resolver"}
    told = alone["loopback-resolver"]
    assert (told.severity, told.workload) == ("critical", "c0")
    assert told.evidence == {"nameserver": server, "containers": 1, "workloads": "c0"}
    assert f"asks {server} by its resolv.conf, and nothing listens" in told.summary
    assert ("names no server" in told.remedy) is (server == "127.0.0.1")
    helped = found(node(ResolvConf((server, VPC), listening=())))
    assert helped["loopback-resolver"].severity == "warning"


@pytest.mark.parametrize(
    "conf",
    [
        ResolvConf(("127.0.0.11",)),
        ResolvConf(("127.0.0.11",), listening=()),
        ResolvConf(("127.0.0.1", VPC), listening=("127.0.0.1",)),
        ResolvConf(("127.0.0.53",), listening=("127.0.0.53",)),
        ResolvConf(("127.0.0.1",)),
        ResolvConf((VPC,)),
    ],
)
def test_loopback_that_is_served_or_not_known_is_none(conf: ResolvConf) -> None:
    """Docker's, a sidecar's, systemd's; and what nobody could look at."""
    assert found(node(conf)) == {}


def test_many_containers_are_one_finding() -> None:
    """With the first few by name."""
    told = found(node(*[ResolvConf(("127.0.0.1",), listening=())] * 7))["loopback-resolver"]
    assert (told.workload, told.evidence["containers"]) == (None, 7)
    assert told.evidence["workloads"] == "c0, c1, c2, c3, c4 and 2 more"


# --- cache-not-first --------------------------------------------------------------------------


def eni(*rows: WorkloadUsage, names: tuple[NameRate, ...] = ()) -> EniUsage:
    """An ENI on which these have sent."""
    packets = sum(row.packets for row in rows)
    zero = dict.fromkeys(CLASSES, Count(0, 0.0))
    return EniUsage(
        eni=Eni("eni-1", "02:00:00:00:00:01", "ens5", "host", 0),
        limit_pps=1024,
        basis="linklocal",
        packets=packets,
        window_pps={"linklocal": 0.0},
        peak_pps={"linklocal": 0.0},
        utilization=0.1,
        state="ok",
        classes=zero | {"resolver": Count(packets, 0.0)},
        protocols={},
        workloads=rows,
        names=names,
        unanswered=0,
    )


def row(workload: Workload, packets: int, via: str = "direct",
        names: tuple[NameRate, ...] = ()) -> WorkloadUsage:  # fmt: skip
    """What one has sent to the resolver."""
    count = Count(packets, packets / SECONDS)
    return WorkloadUsage(workload, via, packets, count.pps, 0.5, {"resolver": count}, names=names)


def test_a_cache_that_is_not_asked_first() -> None:
    """With what it would have had to answer; little of that is only worth a mention."""
    who = Workload("container", "", "c0")
    last = node(ResolvConf((VPC, CACHE)), on_node=(CACHE,), enis=(eni(row(who, 500)),))
    told = found(last)["cache-not-first"]
    assert (told.severity, told.workload) == ("warning", "c0")
    assert told.evidence == {"first": VPC, "cache": CACHE, "pps": 50.0, "containers": 1,
                             "workloads": "c0"}  # fmt: skip
    begun = replace(last, time_s=1000.0, enis=(eni(row(who, 400)),))
    told = found(last, begun)["cache-not-first"]
    assert (told.severity, told.evidence["pps"]) == ("info", 10.0)
    by_cache = replace(last, enis=(eni(row(who, 500, "cache")),))
    assert found(by_cache)["cache-not-first"].evidence["pps"] == 0.0


def test_servers_that_are_asked_in_turn() -> None:
    """With rotate no answer is waited for; who has it and who has not are told apart."""
    turns = ResolvConf((VPC, CACHE), flags=("rotate",))
    told = found(node(turns, on_node=(CACHE,)))["cache-not-first"]
    assert told.summary == f"c0: asks {VPC} and the cache on this node, {CACHE}, in turn"
    assert "`options rotate` out" in told.remedy
    plain = found(node(replace(turns, flags=()), on_node=(CACHE,)))["cache-not-first"]
    assert "only when that does not answer" in plain.summary
    assert "rotate" not in plain.remedy
    both = [f for f in findings(None, node(turns, ResolvConf((VPC, CACHE)), on_node=(CACHE,)))]
    assert sorted(f.workload or "" for f in both) == ["c0", "c1"]


@pytest.mark.parametrize(
    ("conf", "on_node"),
    [
        (ResolvConf((CACHE, VPC)), (CACHE,)),
        (ResolvConf((VPC, CACHE)), ()),
        (ResolvConf((CACHE, "172.17.0.1")), (CACHE, "172.17.0.1")),
        (ResolvConf((VPC, "10.0.0.3")), (CACHE,)),
        (ResolvConf(("127.0.0.1", CACHE), listening=("127.0.0.1",)), (CACHE,)),
    ],
)
def test_a_cache_that_is_asked_or_is_none(conf: ResolvConf, on_node: tuple[str, ...]) -> None:
    """It is first; nobody listens there; another cache is first."""
    assert found(node(conf, on_node=on_node)) == {}


# --- no-fallback ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conf", "on_node"),
    [
        (ResolvConf((CACHE,)), (CACHE,)),
        (ResolvConf(("172.17.0.1",)), ("172.17.0.1",)),
        (ResolvConf(("127.0.0.1",), listening=("127.0.0.1",)), ()),
    ],
)
def test_a_single_server_on_this_node(conf: ResolvConf, on_node: tuple[str, ...]) -> None:
    """NodeLocal DNSCache, a cache on the bridge, one in the same task."""
    told = found(node(conf, conf, on_node=on_node))
    assert set(told) == {"no-fallback"}
    assert told["no-fallback"].evidence == {
        "nameserver": conf.nameservers[0], "containers": 2, "workloads": "c0, c1"
    }  # fmt: skip
    assert told["no-fallback"].severity == "info"


@pytest.mark.parametrize(
    ("conf", "on_node"),
    [
        (ResolvConf((CLUSTER,)), (CACHE,)),
        (ResolvConf((VPC,)), ()),
        (ResolvConf((CACHE, VPC)), (CACHE,)),
        (ResolvConf(("127.0.0.11",)), ()),
        (ResolvConf(("127.0.0.53",), listening=("127.0.0.53",)), ()),
    ],
)
def test_a_single_server_that_is_usual(conf: ResolvConf, on_node: tuple[str, ...]) -> None:
    """The cluster's address, VPC+2, Docker's own, systemd's on the host's network."""
    assert found(node(conf, on_node=on_node)) == {}


def test_what_stands_in_for_it_knows_the_same_names() -> None:
    """The VPC's resolver knows none of a cluster's: a pod needs the cluster's own behind it."""
    last = node(ResolvConf((CACHE,)), on_node=(CACHE,))
    assert "VPC's resolver behind it" in found(last)["no-fallback"].remedy
    pod = replace(last, resolv_confs={WEB: ResolvConf((CACHE,))})
    assert "kube-dns-upstream" in found(pod)["no-fallback"].remedy
    assert "VPC's resolver behind it" not in found(pod)["no-fallback"].remedy
    both = replace(last, resolv_confs={**last.resolv_confs, **pod.resolv_confs})
    assert {f.workload for f in findings(None, both)} == {"c0", "shop/web-1/app"}


# --- search-domains ---------------------------------------------------------------------------


def rates(names: dict[tuple[str, str], int]) -> tuple[NameRate, ...]:
    """Queries within ten seconds."""
    return tuple(NameRate(*key, n / SECONDS, n) for key, n in names.items())


PLAIN, BELOW = "db.example.com", "db.example.com.shop.svc.cluster.local"
ASKED = {(PLAIN, "A"): 300, (PLAIN, "AAAA"): 300, (BELOW, "A"): 300, (BELOW, "AAAA"): 300}


def searching(
    *who: Workload, ndots: int | None = None, names: dict[tuple[str, str], int] = ASKED
) -> Snapshot:
    """Each asks for *names*."""
    rows = tuple(row(workload, sum(names.values()), names=rates(names)) for workload in who)
    asked = {key: n * len(who) for key, n in names.items()}
    confs = {workload: ResolvConf((CLUSTER,), ("corp.test",), ndots) for workload in who}
    last = Snapshot("node", 1010.0, SECONDS, (eni(*rows, names=rates(asked)),))
    return last if ndots is None else replace(last, resolv_confs=confs)


def test_who_searches_and_what_it_would_save() -> None:
    """By workload, with the ndots of their files."""
    told = found(searching(WEB, API, ndots=5))["search-domains"]
    assert told.evidence == {
        "pps": 120.0, "share": 0.5, "saved_pps": 120.0, "ndots": 5,
        "workloads": "prod/api:1/x/app 60, shop/web-1/app 60",
    }  # fmt: skip
    assert told.workload is None
    assert "ndots: 1" in told.remedy and "120 a second fewer" in told.remedy


def test_between_two_looks_only_what_happened_counts() -> None:
    """What was asked before the first look is not said of anybody."""
    last = searching(WEB, ndots=5)
    assert found(last, replace(last, time_s=1000.0)) == {}
    half = {key: n // 2 for key, n in ASKED.items()}
    first = replace(searching(WEB, ndots=5, names=half), time_s=1000.0)
    told = found(last, first)["search-domains"]
    assert (told.evidence["pps"], told.evidence["workloads"]) == (30.0, "shop/web-1/app 30")


def test_without_the_file_nothing_is_said_of_ndots() -> None:
    """Unknown is not 1."""
    told = found(searching(WEB))["search-domains"]
    assert "ndots" not in told.evidence
    assert (told.workload, "ndots: 1" in told.remedy) == ("shop/web-1/app", True)


def test_with_ndots_1_only_a_dot_helps() -> None:
    """The file has what the remedy would say."""
    told = found(searching(WEB, ndots=1))["search-domains"]
    assert (told.evidence["ndots"], "ndots" in told.remedy) == (1, False)
    unset = replace(searching(WEB), resolv_confs={WEB: ResolvConf((CLUSTER,))})
    assert found(unset)["search-domains"].evidence["ndots"] == 1


def test_what_is_found_below_a_search_domain_is_not_saved() -> None:
    """Of three hundred, a hundred went on to the name itself."""
    told = found(searching(WEB, ndots=5, names={**ASKED, (PLAIN, "A"): 100}))["search-domains"]
    assert told.evidence["saved_pps"] == 40.0


def test_a_search_domain_of_ones_own() -> None:
    """Known from the file alone; no other container's file makes one of it."""
    names = {(PLAIN, "A"): 300, (f"{PLAIN}.corp.test", "A"): 300}
    told = found(searching(WEB, ndots=2, names=names))["search-domains"]
    assert "(corp.test)" in told.summary
    assert "search-domains" not in found(searching(WEB, names=names))
    strangers = {API: ResolvConf((VPC,), ("corp.test",))}
    other = replace(searching(WEB, names=names), resolv_confs=strangers)
    assert "search-domains" not in found(other)
