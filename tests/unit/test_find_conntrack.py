"""The kernel's table of connections: read, told, and found nearly full or losing races."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from eni53.diagnosis import findings
from eni53.errors import SourceError
from eni53.inventory.conntrack import ConntrackWatch, parse_stat
from eni53.model import Conntrack, Finding, Snapshot
from eni53.sinks.metrics import render
from eni53.snapshot_json import dumps, from_json, loads

HEAD = (
    "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop"
    " early_drop icmp_error  expect_new expect_create expect_delete search_restart\n"
)
OLD_HEAD = (
    "entries  searched found new invalid ignore delete delete_list insert insert_failed drop"
    " early_drop\n"
)


def stat(*rows: tuple[int, int]) -> str:
    """A line for each processor: insert_failed, drop."""
    line = "00000a00  00000001 00000002 00000003 00000004 00000005 00000006 00000007 00000008"
    return HEAD + "".join(
        f"{line} {failed:08x} {drop:08x} 00000009 00000000  0 0 0 0\n" for failed, drop in rows
    )


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A procfs with a table in it."""
    (tmp_path / "sys/net/netfilter").mkdir(parents=True)
    (tmp_path / "net/stat").mkdir(parents=True)
    write(tmp_path, count="1830", max="262144", stat=stat((5, 6), (0x10, 1)))
    return tmp_path


def write(proc: Path, **said: str) -> None:
    """What the kernel says now."""
    for name, text in said.items():
        where = (
            "net/stat/nf_conntrack" if name == "stat" else f"sys/net/netfilter/nf_conntrack_{name}"
        )
        (proc / where).write_text(text + "\n")


def test_columns_go_by_their_names_and_numbers_are_hexadecimal() -> None:
    """Of all processors together; of Linux 5.10 as of 6.18."""
    assert parse_stat(stat((5, 6), (0x10, 0xFFFFFFFF))) == (21, 0x100000005)
    row = "1  2 3 4 5 6 7 8 9 b c d\n"
    assert parse_stat(OLD_HEAD + row * 2) == (0x16, 0x18)


@pytest.mark.parametrize("text", ["", "entries\n1\n", HEAD + "1 2\n", HEAD + "x " * 17, "\0" * 99])
def test_what_is_no_statistic_is_not_known(text: str) -> None:
    """Which is not zero."""
    assert parse_stat(text) is None


def test_it_counts_from_its_begin(proc: Path) -> None:
    """What was refused before is nobody's news; a module loaded anew begins at zero."""
    watch = ConntrackWatch(proc)
    assert watch.read() == Conntrack(1830, 262144, 0, 0)
    write(proc, count="2000", stat=stat((8, 10), (0x10, 1)))
    assert watch.read() == Conntrack(2000, 262144, 3, 4)
    write(proc, stat=stat((1, 2), (0, 0)))
    assert watch.read() == Conntrack(2000, 262144, 4, 6)


def test_without_a_table_nothing_is_said(proc: Path) -> None:
    """No module; one that is loaded later; statistics that this kernel lacks; no limit."""
    assert ConntrackWatch(proc / "sys").read() is None
    (proc / "net/stat/nf_conntrack").unlink()
    watch = ConntrackWatch(proc)
    assert watch.read() == Conntrack(1830, 262144, None, None)
    write(proc, stat=stat((2, 3)), max="0")
    assert watch.read() == Conntrack(1830, None, 2, 3)
    (proc / "net/stat/nf_conntrack").unlink()
    assert watch.read() == Conntrack(1830, None, None, None)
    write(proc, stat=stat((2, 3)) * 2000)
    assert watch.read() == Conntrack(1830, None, None, None)
    write(proc, count="many")
    assert watch.read() is None


# --- findings ---------------------------------------------------------------------------------

CALM = Conntrack(1000, 10_000, 0, 0)


def found(
    now: Conntrack | None, before: Conntrack | None = CALM, *, alone: bool = False
) -> dict[str, Finding]:
    """Of ten seconds, by code; the same of snapshots that came as JSON."""
    last = Snapshot("n", 1010.0, 10.0, (), conntrack=now)
    first = None if alone else Snapshot("n", 1000.0, 1.0, (), conntrack=before)
    by_code = {f.code: f for f in findings(first, last)}
    sent = None if first is None else loads(dumps(first))
    assert {f.code: f for f in findings(sent, loads(dumps(last)))} == by_code
    return by_code


def test_nearly_full() -> None:
    """From 90 % on a warning, whatever the first look says."""
    full = found(Conntrack(9000, 10_000, 0, 0))["conntrack-full"]
    assert (full.severity, full.evidence) == (
        "warning", {"entries": 9000, "dropped": 0, "limit": 10_000, "share": 0.9}
    )  # fmt: skip
    assert found(Conntrack(9000, 10_000, None, None), alone=True).keys() == {"conntrack-full"}
    assert found(Conntrack(8999, 10_000, 0, 0)) == {}


FULL = replace(CALM, entries=9990)


def test_dropped_meanwhile() -> None:
    """Critical in a full table; what was dropped before the first look is not."""
    lost = found(replace(FULL, dropped=12), FULL)
    assert lost.keys() == {"conntrack-full"}
    assert lost["conntrack-full"].evidence["dropped"] == 12
    assert lost["conntrack-full"].severity == "critical"
    assert "100% full, and had no place for 12 packets" in lost["conntrack-full"].summary
    assert found(replace(FULL, dropped=1), FULL)["conntrack-full"].severity == "critical"
    old = replace(FULL, dropped=12, insert_failed=50)
    assert found(old, old)["conntrack-full"].severity == "warning"
    assert found(replace(FULL, dropped=12), alone=True)["conntrack-full"].severity == "critical"
    unknown = found(replace(FULL, dropped=12), replace(FULL, dropped=None))
    assert unknown["conntrack-full"].severity == "warning"


@pytest.mark.parametrize("limit", [10_000, None])
def test_dropped_though_there_is_room(limit: int | None) -> None:
    """From one a second on, and never critical: it is not for want of a place."""
    lost = found(Conntrack(1000, limit, 0, 10))
    assert lost.keys() == {"conntrack-drops"}
    told = lost["conntrack-drops"]
    assert (told.severity, "full" in told.summary) == ("warning", False)
    room = {} if limit is None else {"limit": limit, "share": 0.1}
    assert told.evidence == {"entries": 1000, "dropped": 10, "per_second": 1.0, **room}
    assert found(Conntrack(1000, limit, 0, 9)) == {}
    old = Conntrack(1000, limit, 0, 10)
    assert found(old, old) == {}
    assert found(old, alone=True).keys() == {"conntrack-drops"}
    assert found(old, Conntrack(1000, limit, None, None)) == {}


def test_races_that_were_lost() -> None:
    """One a second; the kernel counts each as dropped, too, and that is no full table."""
    lost = found(replace(CALM, insert_failed=10, dropped=10))
    assert lost.keys() == {"conntrack-insert-failed"}
    assert lost["conntrack-insert-failed"].evidence == {"insert_failed": 10, "per_second": 1.0}
    assert found(replace(CALM, insert_failed=9, dropped=9)) == {}
    both = found(replace(CALM, insert_failed=10, dropped=20))
    assert both.keys() == {"conntrack-insert-failed", "conntrack-drops"}
    assert both["conntrack-drops"].evidence["dropped"] == 10
    assert found(replace(FULL, insert_failed=9, dropped=9), FULL)["conntrack-full"].severity == (
        "warning"
    )


@pytest.mark.parametrize("before", [None, Conntrack(1, 2, None, None)])
def test_what_is_not_known_is_no_finding(before: Conntrack | None) -> None:
    """Neither before nor now."""
    assert found(None) == {}
    assert found(replace(CALM, insert_failed=99, dropped=99), before) == {}


# --- sinks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [None, CALM, Conntrack(1, None, None, None)])
def test_json_there_and_back(table: Conntrack | None) -> None:
    """An older eni53 says nothing of it."""
    assert loads(dumps(Snapshot("n", 1.0, 1.0, (), conntrack=table))).conntrack == table
    document = json.loads(dumps(Snapshot("n", 1.0, 1.0, (), conntrack=table)))
    del document["conntrack"]
    assert from_json(document).conntrack is None


@pytest.mark.parametrize(
    "said",
    [[], 1, {}, {"entries": -1}, {"limit": 0}, {"limit": "1"}, {"dropped": 1.5},
     {"insert_failed": True}],
)  # fmt: skip
def test_json_from_anybody(said: object) -> None:
    """One line that says where."""
    document = json.loads(dumps(Snapshot("n", 1.0, 1.0, (), conntrack=CALM)))
    document["conntrack"] = (
        document["conntrack"] | said if isinstance(said, dict) and said else said
    )
    with pytest.raises(SourceError, match=r"^snapshot\.conntrack\S*: [^\n]+$"):
        from_json(document)


def samples(table: Conntrack | None) -> set[str]:
    """Of the table, as scraped."""
    lines = render(lambda: Snapshot("n", 1.0, 1.0, (), conntrack=table)).decode().splitlines()
    return {line for line in lines if line.startswith("eni53_node_conntrack")}


def test_metrics_are_absent_when_not_known() -> None:
    """Absent is not zero."""
    assert samples(None) == set()
    assert samples(Conntrack(7, None, None, None)) == {"eni53_node_conntrack_entries 7.0"}
    assert samples(Conntrack(7, 8, 0, 1)) == {
        "eni53_node_conntrack_entries 7.0",
        "eni53_node_conntrack_limit 8.0",
        "eni53_node_conntrack_insert_failed_total 0.0",
        "eni53_node_conntrack_dropped_total 1.0",
    }
