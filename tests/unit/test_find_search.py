"""Names that are found by way of a search list, and those for which it is in vain."""

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
from eni53.sample import Answer

SECONDS = 10.0
WEB, API = Workload("pod", "app", "web-1", "app"), Workload("pod", "app", "api-1", "app")
SEARCH = ("app.svc.cluster.local", "svc.cluster.local", "cluster.local")
SHORT = "redis.prod"
FIRST, FOUND, LAST = (f"{SHORT}.{domain}" for domain in SEARCH)


def look(
    asked: dict[str, int],
    *,
    answers: dict[str, str] | None = None,
    search: tuple[str, ...] = SEARCH,
    whose: Workload = WEB,
) -> Finding | None:
    """What is found of a pod that has asked for these, as A, within ten seconds."""
    said = {name: Answer(30, rcode) for name, rcode in (answers or {}).items()}
    names = tuple(NameRate(n, "A", m / SECONDS, m, said.get(n)) for n, m in asked.items())
    packets = sum(asked.values())
    zero = dict.fromkeys(CLASSES, Count(0, 0.0))
    to = {"dns_other": Count(packets, packets / SECONDS)}
    row = WorkloadUsage(WEB, "direct", packets, packets / SECONDS, 1.0, to, names=names)
    usage = EniUsage(
        eni=Eni("eni-1", "02:00:00:00:00:01", "ens5", "host", 0),
        limit_pps=1024,
        basis="linklocal",
        packets=packets,
        window_pps={"linklocal": 0.0},
        peak_pps={"linklocal": 0.0},
        utilization=0.1,
        state="ok",
        classes=zero | to,
        protocols={},
        workloads=(row,),
        names=names,
    )
    confs = {whose: ResolvConf(("172.20.0.10",), search, 5)}
    last = Snapshot("node", 1010.0, SECONDS, (usage,), resolv_confs=confs)
    told = {finding.code: finding for finding in findings(None, last)}
    nothing = replace(usage, classes=zero, workloads=(), names=())
    begin = replace(last, time_s=1000.0, enis=(nothing,))
    assert {f.code: f for f in findings(begin, last)} == told
    return told.get("search-domains")


@pytest.mark.parametrize("stray", [{}, {SHORT: 30}], ids=["never plain", "plain by somebody"])
def test_a_service_that_only_the_search_list_finds(stray: dict[str, int]) -> None:
    """A dot behind the short name would break it: the whole name is told, and who should write it.

    That somebody asked for the short name three times a second changes nothing.
    """
    told = look({FIRST: 1000, FOUND: 1000, **stray})
    assert told is not None
    saved = 100.0 - sum(stray.values()) / SECONDS
    assert (told.workload, told.evidence["saved_pps"]) == ("app/web-1/app", saved)
    assert (told.evidence["name"], told.evidence["found"]) == (FIRST, FOUND)
    assert (told.evidence["pps"], told.evidence["ndots"]) == (saved, 5)
    assert f"({FOUND}.)" in told.remedy
    assert "or ndots: 1 in" not in told.remedy


def test_answers_tell_where_it_is_found() -> None:
    """What has been answered NXDOMAIN is not the end of it."""
    told = look({FIRST: 500, FOUND: 1000, LAST: 500}, answers={FOUND: "NOERROR", LAST: "NXDOMAIN"})
    assert told is not None
    assert (told.evidence["found"], told.evidence["saved_pps"]) == (FOUND, 50.0)


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ({FIRST: 190, FOUND: 190}, {}),
        ({FIRST: 300, FOUND: 300, "other.example.com": 700}, {}),
        ({FIRST: 1000, FOUND: 20}, {}),
        ({FIRST: 1000}, {FIRST: "NXDOMAIN"}),
        ({FIRST: 1000, FOUND: 1000}, {FIRST: "NOERROR", FOUND: "NOERROR"}),
        ({FIRST: 1000, FOUND: 1000}, {FIRST: "NXDOMAIN", FOUND: "NXDOMAIN"}),
        ({FOUND: 1000, LAST: 1000}, {}),
        ({FIRST: 1000, "db.prod.svc.cluster.local": 1000}, {}),
    ],
    ids=["slow", "a small part", "seldom goes on", "first", "both are there", "neither is there",
         "not from the first on", "another name"],
)  # fmt: skip
def test_where_nothing_is_searched_in_vain(asked: dict[str, int], answers: dict[str, str]) -> None:
    """Too few, or no way along the list."""
    assert look(asked, answers=answers) is None


def test_lists_of_others_say_nothing() -> None:
    """Only that of who asks here; and only in its own order."""
    assert look({FIRST: 1000, FOUND: 1000}, whose=API) is None
    told = look({FIRST: 1000, FOUND: 1000}, search=SEARCH[1::-1])
    assert told is not None
    assert told.evidence["found"] == FIRST


def test_a_name_from_outside_beside_it() -> None:
    """A dot helps that one; ndots: 1 would cost the short one a query more."""
    outside = {f"db.example.com.{domain}": 1000 for domain in SEARCH} | {"db.example.com": 1000}
    told = look(outside)
    assert told is not None
    assert told.evidence["saved_pps"] == 300.0
    assert "a dot at the end" in told.remedy and "ndots: 1 in" in told.remedy
    both = look({**outside, FIRST: 300, FOUND: 300})
    assert both is not None
    assert "a dot at the end" in both.remedy and "ndots" not in both.remedy
