"""What a snapshot's ENIs have to say: close, over, dropped, growing; each with its evidence."""

from dataclasses import replace

import pytest
from eni53.findings import DropWatch, eni_findings, name
from eni53.model import Count, Workload
from eni53.snapshot_json import finding_to_json

from tests.fixtures.alerts import usage
from tests.fixtures.hostile import HOSTILE_NAMES


def findings(*enis, dropped=()):
    """Findings, the drivers having counted *dropped* before (a list of counts for each look)."""
    watch = DropWatch()
    for at_s, count in enumerate(dropped):
        counted = usage(drops=count).allowances
        watch.update([replace(one, allowances=counted) for one in enis], 5.0 * at_s)
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
            watch.update([usage(label=f"eni-{number}", drops=count)], float(number))
    assert watch.lately("eni-99") == 4
    assert watch.lately("eni-98") == 0
    assert set(watch._before) == set(watch._risen) == {"eni-99"}


def test_a_drop_is_told_of_for_a_quarter_of_an_hour():
    """One packet that was lost last week is no reason to wake anybody."""
    watch = DropWatch()
    told = {}
    for at_s, count in ((0, 7), (5, 9), (100, 9), (900, 12), (906, 12), (1801, 12)):
        watch.update([usage(drops=count)], float(at_s))
        for finding in eni_findings([usage()], watch):
            told[at_s] = finding.summary.partition(" dropped ")[2], finding.evidence["seconds"]
    assert told == {
        5: ("2 packets to link-local services in the last 5 seconds, says the driver", 5),
        100: ("2 packets to link-local services in the last 2 minutes, says the driver", 100),
        900: ("5 packets to link-local services in the last 15 minutes, says the driver", 900),
        906: ("3 packets to link-local services in the last 15 minutes, says the driver", 900),
    }


@pytest.mark.parametrize(
    ("name", "helps"),
    [("imds", "instance metadata"), ("ntp", "time service"), ("resolver", "a cache on the node")],
)
def test_what_helps_depends_on_what_is_asked_for(name, helps):
    """No DNS cache helps who asks the metadata service for each request."""
    counts = {"resolver": Count(40, 4.0), name: Count(900, 90.0)}
    (finding,) = findings(replace(usage("warning"), classes=counts))
    assert helps in finding.remedy


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
