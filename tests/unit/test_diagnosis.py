"""Findings: each where its situation is, and nowhere else."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from eni53.diagnosis import findings
from eni53.doctor import show
from eni53.model import CLASSES, Count, Eni, EniUsage, Finding, NameRate, Snapshot

SECONDS = 10.0


def usage(
    names: dict[tuple[str, str], int],
    *,
    label: str = "eni-1",
    utilization: float = 0.2,
    unanswered: int | None = 0,
    **classes: int,
) -> EniUsage:
    """An ENI whose resolver packets are at least those of its names."""
    packets = dict.fromkeys(CLASSES, 0) | classes
    packets["resolver"] = max(packets["resolver"], sum(names.values()))
    return EniUsage(
        eni=Eni(label, "02:00:00:00:00:01", "ens5", "host", 2),
        limit_pps=1024,
        basis="linklocal",
        packets=sum(packets.values()),
        window_pps={"linklocal": 0.0, "dns": 0.0},
        peak_pps={"linklocal": 1024 * utilization, "dns": 0.0},
        utilization=utilization,
        state="ok",
        classes={name: Count(n, 0.0) for name, n in packets.items()},
        protocols={},
        workloads=(),
        names=tuple(NameRate(*key, n / SECONDS, n) for key, n in names.items()),
        unanswered=unanswered,
    )


def codes(*enis: EniUsage, quiet: bool = False) -> set[str]:
    """Of what happened within ten seconds on these, measured at once and between two looks."""
    last = Snapshot("node", 1010.0, SECONDS, enis)
    alone = {finding.code for finding in findings(None, last)}
    before = tuple(
        replace(
            one,
            classes={name: Count(0, 0.0) for name in CLASSES},
            names=tuple(replace(name, packets=0) for name in one.names),
            unanswered=None if one.unanswered is None else 0,
        )
        for one in enis
    )
    between = {f.code for f in findings(Snapshot("node", 1000.0, 1.0, before), last)}
    assert between == alone
    # The same counts, but all of them from before the first look: nothing happened.
    standing = {f.code for f in findings(replace(last, time_s=1000.0), last)}
    assert standing - {"uneven-enis"} == set()
    return alone


SPREAD = {(f"host-{at}.example.com", "A"): 100 for at in range(10)}


def test_a_quiet_or_ordinary_node_has_none() -> None:
    """Nothing sent; a thousand queries for many names; a pattern below the least rate."""
    assert codes() == set()
    assert codes(usage({})) == set()
    assert codes(usage(SPREAD)) == set()
    assert codes(usage({("a.example.com", "A"): 90, ("a.example.com", "AAAA"): 90})) == set()
    assert codes(usage({}, imds=190, unanswered=5)) == set()


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("hot-name", {**SPREAD, ("hot.example.com", "A"): 1100}),
        (
            "aaaa-doubling",
            {(f"h{at}.example.com", kind): 50 for at in range(5) for kind in ("A", "AAAA")},
        ),
        (
            "search-domains",
            {
                ("db.example.com", "A"): 100,
                ("db.example.com.shop.svc.cluster.local", "A"): 100,
                ("db.example.com.svc.cluster.local", "A"): 100,
                ("other.example.com", "A"): 100,
                ("third.example.com", "A"): 100,
            },
        ),
    ],
)
def test_patterns_of_names(code: str, names: dict[tuple[str, str], int]) -> None:
    """Each is found alone; at a third of the rate it is not worth a word."""
    assert codes(usage(names)) == {code}
    assert codes(usage({key: n // 10 for key, n in names.items()})) == set()


def test_a_pattern_in_a_small_part_of_the_load_is_none() -> None:
    """Thirty a second, doubled or searched, among three hundred others."""
    others = {(f"host-{at}.example.com", "A"): 100 for at in range(30)}
    pair = {("db.example.com", "A"): 300, ("db.example.com", "AAAA"): 300}
    searched = {("db.example.com", "A"): 10, ("db.example.com.svc.cluster.local", "A"): 300}
    assert codes(usage(others | pair)) == set()
    assert codes(usage(others | searched)) == set()


def test_names_of_the_cluster_itself_are_no_search() -> None:
    """A service asked for by its whole name has no shorter one beside it."""
    names = {(f"s{at}.shop.svc.cluster.local", "A"): 100 for at in range(10)}
    assert codes(usage(names)) == set()


def test_unanswered_needs_a_share_and_to_be_known() -> None:
    """Five in a hundred; a driver of rumours is none."""
    assert codes(usage(SPREAD, unanswered=60)) == {"unanswered"}
    assert codes(usage(SPREAD, unanswered=30)) == set()
    assert codes(usage(SPREAD, unanswered=None)) == set()


@pytest.mark.parametrize(
    ("state", "utilization", "dropped", "helps"),
    [
        ("ok", 0.2, False, "the limit is far"),
        ("ok", 0.69, False, "the limit is far"),
        ("warning", 0.75, False, "the limit is close"),
        ("warning", 0.2, False, "the limit is close"),
        ("ok", 0.91, False, "AWS drops what is over"),
        ("exceeded", 1.2, False, "AWS drops what is over"),
        ("ok", 0.2, True, "AWS drops what is over"),
    ],
)
def test_what_was_not_answered_is_seen_beside_the_limit(
    state: str, utilization: float, dropped: bool, helps: str
) -> None:
    """That nothing was dropped must not stand beside the driver's word that something was."""
    one = replace(usage(SPREAD, utilization=utilization, unanswered=60), state=state)
    drops = Finding("driver-drops", "critical", "", eni="eni-1" if dropped else "eni-2")
    last = replace(Snapshot("node", 1010.0, SECONDS, (one,)), findings=(drops,))
    (found,) = (each for each in findings(None, last) if each.code == "unanswered")
    assert found.remedy.startswith(helps)


@pytest.mark.parametrize("name", ["imds", "ntp"])
def test_other_services_that_eat_the_allowance(name: str) -> None:
    """A third of it and more."""
    assert codes(usage(SPREAD, **{name: 500})) == {f"{name}-load"}
    assert codes(usage(SPREAD, **{name: 400})) == set()


def test_one_eni_hot_beside_an_idle_one() -> None:
    """Two of the host's; a branch ENI or a task's own is nobody's neighbour."""
    hot, idle = usage({}, utilization=0.6), usage({}, label="eni-2", utilization=0.05)
    assert codes(hot, idle) == {"uneven-enis"}
    assert codes(hot, replace(idle, eni=replace(idle.eni, vlan=7))) == set()
    assert codes(replace(hot, utilization=0.4), idle) == set()


def test_an_eni_that_nobody_uses_is_not_idle() -> None:
    """A trunk, or one kept warm for pods to come; a third that has a little to do is."""
    hot, warm = usage({}, utilization=0.6), usage({}, label="eni-2", utilization=0.0)
    assert codes(hot, warm) == set()
    little = usage({}, label="eni-3", utilization=0.001)
    assert codes(hot, warm, little) == {"uneven-enis"}


def test_what_a_snapshot_says_itself_comes_first() -> None:
    """Its own findings are kept as they are."""
    own = Finding("over-limit", "critical", "too much")
    last = Snapshot("node", 1.0, 1.0, (), findings=(own,))
    assert list(findings(None, last)) == [own]


def test_the_page_is_clean_and_says_what_helps() -> None:
    """A hostile name moves no cursor; nothing found is said as well."""
    out = io.StringIO()
    hostile = Finding("hot-name", "info", "all for \x1b[2Jx", evidence={"name": "\x1b[2Jx"},
                      remedy="cache\nit")  # fmt: skip
    show([hostile], Snapshot("node", 1.0, 1.0, ()), out)
    assert "\x1b" not in out.getvalue()
    assert "helps: cache it" in out.getvalue()
    out = io.StringIO()
    show([], Snapshot("node", 1.0, 1.0, (usage({}),)), out)
    assert out.getvalue().endswith(
        "\n\nNothing to report of 1 ENI in 1 s (highest second 205 of 1024).\n"
    )
