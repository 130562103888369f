"""What one snapshot says of its ENIs reaches `doctor`: from an agent, through JSON, and alone."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from eni53.diagnosis import findings
from eni53.doctor import show
from eni53.findings import DropWatch, eni_findings, resolver_unknown
from eni53.model import EniUsage, Finding, Snapshot
from eni53.snapshot_json import dumps, loads

from tests.fixtures.alerts import moment, usage


def diagnosed(
    *enis: EniUsage, more: tuple[Finding, ...] = (), drops: int | None = None
) -> set[str]:
    """(code, severity) of what doctor finds in these, whose drivers counted *drops* meanwhile."""
    watch = DropWatch()
    for at_s, dropped in enumerate((0, drops)):
        if dropped is not None:
            counted = usage(drops=100 + dropped).allowances
            watch.update([replace(one, allowances=counted) for one in enis], 5.0 * at_s)
    last = replace(moment(*enis, at_s=5), findings=(*eni_findings(enis, watch), *more))
    told = list(findings(moment(*enis), loads(dumps(last))))
    assert [f.code for f in findings(None, last)][: len(told)] == [f.code for f in told]
    page = io.StringIO()
    show(told, last, page)
    for finding in told:
        assert finding.code in page.getvalue()
    return {f"{finding.code} {finding.severity}" for finding in told}


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ("ok", set()),
        ("warning", {"near-limit warning"}),
        ("critical", {"near-limit critical"}),
        ("exceeded", {"over-limit critical"}),
    ],
)
def test_near_and_over_the_limit(state: str, wanted: set[str]) -> None:
    """By the state, beside an ENI that is well."""
    assert diagnosed(usage(state), usage(label="eni-2")) == wanted


@pytest.mark.parametrize(
    ("drops", "wanted"), [(None, set()), (0, set()), (1, {"driver-drops critical"})]
)
def test_drops_that_the_driver_tells(drops: int | None, wanted: set[str]) -> None:
    """Those since the agent began: what it found there at its start is none."""
    assert diagnosed(usage(), drops=drops) == wanted


def test_a_resolver_that_is_not_known() -> None:
    """Said by the node, of no ENI."""
    unknown = resolver_unknown(["169.254.169.253"])
    assert diagnosed(usage(), more=(unknown,)) == {"resolver-unknown warning"}
    assert diagnosed(usage()) == set()


def test_growth() -> None:
    """Said only while all is well."""
    growing = replace(usage(), minutes_to_limit=12.0)
    assert diagnosed(growing) == {"growing info"}
    assert diagnosed(replace(growing, state="warning")) == {"near-limit warning"}


def test_a_snapshot_of_nothing() -> None:
    """No ENI, nothing to say."""
    assert list(findings(None, Snapshot("node", 1.0, 1.0, ()))) == []
