"""What strangers may send instead of a snapshot: each is refused in one line, none as a crash."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from eni53.errors import SourceError
from eni53.snapshot_json import dumps, from_json, loads

from tests.fixtures import snapshots


def document() -> dict[str, Any]:
    """A good document, as decoded from the wire."""
    decoded: dict[str, Any] = json.loads(dumps(snapshots.near_limit()))
    return decoded


BAD: list[tuple[str, Any]] = [
    ("version", 2),
    ("version", True),
    ("version", "1"),
    ("node", None),
    ("time", "yesterday"),
    ("time", "2024-13-41T99:00:00Z"),
    ("time", "2024-05-04T12:14:56+02:00"),
    ("time", 1714824896),
    ("window_seconds", float("nan")),
    ("window_seconds", -1),
    ("enis", {}),
    ("enis", [[]]),
    ("findings", None),
    ("enis/0/limit_pps", 0),
    ("enis/0/limit_pps", 10**400),
    ("enis/0/packets", 1.5),
    ("enis/0/packets", -1),
    ("enis/0/window_pps", None),
    ("enis/0/peak_pps", float("inf")),
    ("enis/0/peak_pps", 10**400),
    ("enis/0/utilization", "0.5"),
    ("enis/0/state", "fine"),
    ("enis/0/basis", ["dns"]),
    ("enis/0/classes", []),
    ("enis/0/classes", {"resolver": 5}),
    ("enis/0/classes", {"resolver": {"packets": 1}}),
    ("enis/0/classes", {3: {"packets": 1, "pps": 1}}),
    ("enis/0/windows", {"dns": {}}),
    ("enis/0/history", [1.0, "2"]),
    ("enis/0/history", [float("nan")]),
    ("enis/0/workloads", "none"),
    ("enis/0/workloads/0/kind", 1),
    ("enis/0/workloads/0/cgroup_id", "7"),
    ("enis/0/workloads/0/cgroup", 7),
    ("enis/0/workloads/0/share", [0.1]),
    ("enis/0/workloads/0/names", [{"name": "x"}]),
    ("findings/0/severity", "panic"),
    ("findings/0/evidence", {"pps": None}),
    ("findings/0/evidence", {"pps": float("-inf")}),
    ("findings/0/evidence", {"pps": True}),
]


@pytest.mark.parametrize(("place", "value"), BAD)
def test_a_wrong_value_is_one_clear_line(place: str, value: object) -> None:
    """Whatever is sent, the top says what is wrong and where, and shows no traceback."""
    wild = document()
    *path, last = place.split("/")
    inner: Any = wild
    for step in path:
        inner = inner[int(step)] if step.isdigit() else inner[step]
    inner[last] = value

    with pytest.raises(SourceError, match=r"^snapshot\S*: [^\n]+$"):
        from_json(wild)


def test_every_promised_field_is_missed_when_missing() -> None:
    """A document with a hole is refused, with the name of the hole."""
    added = {"windows", "history", "ended_packets", "vlan", "slots", "names", "unanswered"}
    added |= {"retransmitted", "truncated", "elsewhere", "cacheable", "ttl_s", "rcode", "protocols"}
    whole = document()
    later = {"slot", "servers", "resolv_confs", "on_node", "conntrack"}
    holes = [((), key) for key in whole if key not in later]
    holes += [(("enis", 0), key) for key in whole["enis"][0] if key not in added]
    row = ("enis", 0, "workloads", 0)
    holes += [(row, key) for key in whole["enis"][0]["workloads"][0] if key != "classes"]
    holes += [(("findings", 0), key) for key in whole["findings"][0]]
    for path, key in holes:
        wild: Any = copy.deepcopy(whole)
        inner = wild
        for step in path:
            inner = inner[step]
        del inner[key]

        with pytest.raises(SourceError, match=rf"^snapshot\S*\.{key}: missing$"):
            from_json(wild)


@pytest.mark.parametrize("value", [None, [], "x", 3, float("nan"), {}, {1: 2}, {"version": {}}])
def test_any_document_but_a_snapshot_is_refused(value: object) -> None:
    """The port may be somebody else's."""
    with pytest.raises(SourceError):
        from_json(value)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe\xfa", "<html>", "[" * 200_000, '{"version":' + "9" * 5000 + "}"]
)
def test_data_that_is_not_json_is_refused(data: str | bytes) -> None:
    """Neither broken bytes nor endless nesting nor endless digits get through as another error."""
    with pytest.raises(SourceError, match=r"^[^\n]+$"):
        loads(data)
