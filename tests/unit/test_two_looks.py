"""How `eni53 doctor` looks at a running agent: at which ENIs, from when, until when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eni53.errors import SourceError
from eni53.model import Finding, Snapshot
from eni53.top.sources import only

from tests.fixtures import snapshots

THREE = snapshots.three_enis()


def of(*enis: str | None) -> Snapshot:
    """A snapshot with a finding of each."""
    findings = tuple(Finding("near-limit", "critical", f"of {eni}", eni=eni) for eni in enis)
    return replace(THREE, findings=findings)


def test_findings_of_enis_that_were_not_asked_for_are_left_out() -> None:
    """Or `doctor --eni eth1 --fail` fails for eth0; what is said of the node is said of each."""
    hot, cold, _ = (usage.eni for usage in THREE.enis)
    snapshot = of(hot.label, cold.label, None)

    assert [f.eni for f in only(snapshot, [cold.label]).findings] == [cold.label, None]
    named = replace(THREE.enis[1], eni=replace(cold, interface="ens9"))
    there = replace(snapshot, enis=(THREE.enis[0], named))
    assert [f.eni for f in only(there, ["ens9"]).findings] == [cold.label, None]
    assert only(snapshot, [hot.label, cold.label]).findings == snapshot.findings
    assert only(snapshot, []) is snapshot
    with pytest.raises(SourceError, match="no ENI eth9"):
        only(snapshot, ["eth9"])
