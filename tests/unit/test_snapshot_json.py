"""The JSON of a snapshot: its shape, there and back, and what strangers may send."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eni53.model import EniUsage, Snapshot
from eni53.snapshot_json import dumps, from_json, loads, to_json
from eni53.text import MAX_NAME

from tests.fixtures import snapshots
from tests.fixtures.hostile import hostile

ALL = [snapshots.near_limit, snapshots.three_enis, snapshots.empty, hostile]


def as_sent(snapshot: Snapshot) -> Snapshot:
    """*snapshot* without what JSON has no place for."""

    def strip(usage: EniUsage) -> EniUsage:
        return replace(usage, eni=replace(usage.eni, ifindex=0), over_threshold_s={})

    return replace(snapshot, enis=tuple(strip(usage) for usage in snapshot.enis))


def document() -> dict[str, Any]:
    """A good document, as decoded from the wire."""
    decoded: dict[str, Any] = json.loads(dumps(snapshots.near_limit()))
    return decoded


def test_the_shape_is_the_promised_one() -> None:
    """Scripts rely on these names: fields may be added, never renamed."""
    sent = to_json(snapshots.near_limit())
    eni, finding = sent["enis"][0], sent["findings"][0]

    assert (sent["version"], sent["window_seconds"]) == (1, 1.0)
    assert sent["time"] == "2024-05-04T12:14:56.789Z"
    assert {"node", "enis", "findings"} < set(sent)
    promised = "eni mac interface netns limit_pps basis packets window_pps peak_pps utilization"
    assert {*promised.split(), "state", "classes", "workloads"} < set(eni)
    assert (980.0, {"window_pps": eni["window_pps"], "peak_pps": 980.0}) == (
        eni["peak_pps"],
        eni["windows"]["linklocal"],
    )
    promised = "kind namespace workload container cgroup cgroup_id via packets pps share names"
    assert {*promised.split(), "classes"} == set(eni["workloads"][0])
    assert eni["workloads"][0]["names"][1] == {
        "name": "orders",
        "type": "AAAA",
        "pps": 80.0,
        "packets": 0,
        "ttl_s": 30,
        "rcode": "NXDOMAIN",
    }
    assert eni["workloads"][0]["classes"]["imds"] == {"packets": 200, "pps": 2.0}
    promised = "code severity eni workload summary evidence remedy"
    assert set(promised.split()) == set(finding)


@pytest.mark.parametrize("make", ALL)
def test_what_was_written_reads_back_the_same(make: Callable[[], Snapshot]) -> None:
    """The live top of a running agent shows what the agent knows, names only cleaned."""
    once = loads(dumps(make()))

    assert once == loads(dumps(once))
    if make is not hostile:
        assert [u.workload for u in as_sent(make()).enis[0].workloads] == [
            u.workload for u in once.enis[0].workloads
        ]


def test_a_snapshot_of_plain_numbers_survives_whole() -> None:
    """Nothing but agent internals is lost on the way."""
    snapshot = snapshots.near_limit()
    usage = replace(
        snapshot.enis[0],
        utilization=0.957031,
        workloads=tuple(
            replace(u, share=0.5, pps=2.0, cgroup="/a/b", cgroup_id=7)
            for u in snapshot.enis[0].workloads
        ),
    )
    counted = {("resolver", "udp"): 48, ("resolver", "tcp"): 2, ("dns_other", "udp"): 1}
    usage = replace(usage, window_pps={"linklocal": 1.5, "dns": 2.5}, protocols=counted)
    snapshot = replace(snapshot, enis=(usage,))
    back = loads(dumps(snapshot))
    sums = replace(back.enis[0], classes=snapshot.enis[0].classes)

    assert as_sent(snapshot) == replace(back, enis=(sums,))


def test_fields_added_later_may_be_missing_or_more() -> None:
    """An older agent lacks them and a newer one has others: both must be readable."""
    old = document()
    later = ("unanswered", "retransmitted", "truncated", "elsewhere", "cacheable")
    for key in ("windows", "history", "ended_packets", "vlan", "protocols", *later):
        del old["enis"][0][key]
    for row in old["enis"][0]["workloads"]:
        del row["classes"]
    old["novelty"] = old["enis"][0]["novelty"] = [{}]
    eni = from_json(old).enis[0]

    assert (
        eni.peak_pps,
        eni.history_pps,
        eni.workloads[0].classes,
        *(getattr(eni, name) for name in later),
    ) == ({"linklocal": 980.0}, (), {}, *(None,) * 5)


def test_names_are_cleaned_in_both_directions() -> None:
    """Neither a hostile container at the agent nor a hostile agent reaches the terminal."""
    sent = to_json(hostile())
    names = [row["container"] for row in sent["enis"][0]["workloads"]]
    wild = document()
    wild["node"] = wild["enis"][0]["workloads"][0]["workload"] = "\x1b[2Jx"
    read = from_json(wild)

    assert names[0] == "\\x1b[2J\\x1b[31mred\\x07\\x0d\\x0anext"
    assert max(len(name) for name in names) <= MAX_NAME
    assert "\\x1b[2Jx" == read.node == read.enis[0].workloads[0].workload.workload
    assert dumps(hostile()).isascii()


def test_the_resident_agent_does_not_pay_for_the_terminal() -> None:
    """The agent imports this module, and its memory has no room for rich and textual."""
    code = "import sys, eni53.snapshot_json; print(sorted({'rich', 'textual'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
