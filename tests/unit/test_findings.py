"""What a snapshot's ENIs have to say: close, over, dropped, growing; each with its evidence."""

from dataclasses import replace

import pytest
from eni53.findings import DropWatch, eni_findings, name
from eni53.model import Workload
from eni53.snapshot_json import finding_to_json

from tests.fixtures.alerts import usage
from tests.fixtures.hostile import HOSTILE_NAMES


def findings(*enis, dropped=()):
    """Findings, the drivers having counted *dropped* before (a list of counts for each look)."""
    watch = DropWatch()
    for count in dropped:
        watch.update([replace(one, allowances=usage(drops=count).allowances) for one in enis])
    return list(eni_findings(enis, watch))


@pytest.mark.parametrize(
    ("state", "code", "severity"),
    [("warning", "near-limit", "warning"), ("critical", "near-limit", "critical"),
     ("exceeded", "over-limit", "critical")],
)  # fmt: skip
def test_close_and_over_are_two_findings(state, code, severity):
    """With the peak, the limit, and who sends most."""
    one = usage(state)
    (finding,) = findings(one)
    assert (finding.code, finding.severity, finding.eni) == (code, severity, "eni-1")
    peak = one.peak_pps["linklocal"]
    assert finding.evidence == {
        "peak_pps": peak, "limit_pps": 1024, "utilization": round(peak / 1024, 3),
        "top_workload": "prod/checkout-api:42/9b1fd2c07a3e4c5db6a80c3a11f2e9d4",
        "top_share": 0.6,
    }  # fmt: skip
    assert finding.workload == finding.evidence["top_workload"]


def test_over_is_said_only_beside_a_peak_that_is_over():
    """The state lasts until it is calm; 970 of 1024 are not over the limit."""
    one = usage("exceeded")
    (finding,) = findings(replace(one, peak_pps={**one.peak_pps, "linklocal": 970.0}))
    assert (finding.code, finding.severity) == ("near-limit", "critical")


def test_calm_says_nothing():
    """No finding for an ENI that is ok."""
    assert findings(usage("ok")) == []


def test_an_eni_over_its_limit_by_nobody():
    """The evidence has no workload rather than an empty one."""
    (finding,) = findings(replace(usage("exceeded"), workloads=()))
    assert "top_workload" not in finding.evidence
    assert finding.workload is None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], None),
        ([None], None),
        ([500], None),  # before the agent began
        ([500, 500], None),
        ([500, 507, 507], 7),
        ([500, None, 507], 7),  # it did not answer for a while
        ([500, 507, 2, 5], 10),  # reset in between
    ],
)
def test_drops_are_those_that_were_seen_to_happen(counts, expected):
    """Apart from how close the ENI is: the driver's word is another finding."""
    found = findings(usage("ok"), dropped=counts)
    assert [(f.code, f.evidence["linklocal_allowance_exceeded"]) for f in found] == (
        [] if expected is None else [("driver-drops", expected)]
    )


def test_a_drop_watch_does_not_grow_with_tasks_that_come_and_go():
    """An awsvpc task brings an ENI with a name of its own."""
    watch = DropWatch()
    for number in range(100):
        for count in (1, 5):
            watch.update([usage(label=f"eni-{number}", drops=count)])
    assert watch.since_start == {"eni-99": 4}
    assert set(watch._before) == {"eni-99"}


def test_growth_is_news_only_while_all_is_well():
    """Close to the limit, that it grows says nothing new."""
    growing = replace(usage("ok"), minutes_to_limit=42.4)
    (finding,) = findings(growing)
    assert (finding.code, finding.severity) == ("growing", "info")
    assert finding.evidence == {"minutes": 42.4, "limit_pps": 1024}
    assert [f.code for f in findings(replace(growing, state="warning"))] == ["near-limit"]


@pytest.mark.parametrize("hostile", [text for text in HOSTILE_NAMES if text])
def test_a_name_makes_no_second_line(hostile):
    """A newline in a container's name must not look like a line of ours."""
    one = usage("warning")
    row = replace(one.workloads[0], workload=Workload("container", hostile, hostile))
    (finding,) = findings(replace(one, workloads=(row,)))
    body = finding_to_json(finding)
    for text in (finding.summary, body["summary"], body["workload"]):
        assert text.isprintable()
        assert "\n" not in text


def test_a_workload_without_a_name_goes_by_its_kind():
    """Never an empty word."""
    assert name(Workload("unattributed")) == "unattributed"
    assert name(Workload("pod", "shop", "web-1", "app")) == "shop/web-1"
