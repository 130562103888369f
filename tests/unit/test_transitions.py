"""From snapshots to alerts: each severity of each ENI raised once, cleared once."""

from dataclasses import replace

import pytest
from eni53.alerts import Transitions
from eni53.model import SEVERITIES

from tests.fixtures.alerts import moment, usage
from tests.fixtures.snapshots import NOON_S


def told(alerts):
    """What is said, in short."""
    return [(alert.transition, alert.severity) for alert in alerts]


def walk(*states):
    """What each of these states of one ENI, a second apart, has to tell."""
    transitions = Transitions()
    return [told(transitions.update(moment(usage(state), at_s=at)))
            for at, state in enumerate(states)]  # fmt: skip


def test_from_mild_to_worst_and_back():
    """A jump raises all it passes, mild first; a fall clears all it passes, the worst first."""
    up = [("raised", severity) for severity in SEVERITIES]
    down = [("cleared", severity) for severity in reversed(SEVERITIES)]
    assert walk("ok", "exceeded", "exceeded", "ok", "ok") == [[], up, [], down, []]
    assert walk("warning", "critical", "exceeded") == [[alert] for alert in up]
    assert walk("exceeded", "critical", "warning", "ok")[1:] == [[alert] for alert in down]


def test_down_and_up_again_is_raised_anew():
    """What has been cleared may be raised again, and nothing milder with it that still stands."""
    assert walk("critical", "warning", "critical")[1:] == [
        [("cleared", "critical")], [("raised", "critical")],
    ]  # fmt: skip


def test_began_is_when_it_was_raised():
    """The severities of one ENI began when each of them was raised, and end with that."""
    transitions = Transitions()
    transitions.update(moment(usage("warning"), at_s=1))
    transitions.update(moment(usage("exceeded"), at_s=5))
    cleared = transitions.update(moment(usage("ok"), at_s=20))
    assert {alert.severity: alert.began_s - NOON_S for alert in cleared} == {
        "exceeded": pytest.approx(5), "critical": pytest.approx(5), "warning": pytest.approx(1),
    }  # fmt: skip
    assert {alert.time_s for alert in cleared} == {NOON_S + 20}


def test_enis_do_not_mix():
    """Each ENI has severities of its own."""
    transitions = Transitions()
    transitions.update(moment(usage("warning"), usage("ok", label="eni-2")))
    changed = transitions.update(moment(usage("ok"), usage("warning", label="eni-2")))
    assert [(a.transition, a.eni.label) for a in changed] == [
        ("raised", "eni-2"), ("cleared", "eni-1"),
    ]  # fmt: skip
    assert transitions.active == {("eni-2", "warning")}


def test_an_eni_that_is_gone_is_calm():
    """Its alerts are cleared, with what was last known of it, and then forgotten."""
    transitions = Transitions()
    transitions.update(moment(usage("critical")))
    changed = transitions.update(moment(at_s=9))
    assert told(changed) == [("cleared", "critical"), ("cleared", "warning")]
    assert {alert.peak_pps for alert in changed} == {1000.0}
    assert transitions.update(moment(at_s=10)) == ()
    assert transitions._last == {}


def drops_of(*counts):
    """What alerts say of drops, by transition, for these counts of the driver."""
    transitions = Transitions()
    states = ["warning"] * (len(counts) - 1) + ["ok"]
    found = {}
    for at, (state, count) in enumerate(zip(states, counts, strict=True)):
        for alert in transitions.update(moment(usage(state, drops=count), at_s=at)):
            found[alert.transition] = alert.allowance_exceeded
    return found


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((50, 50), {"raised": 0, "cleared": 0}),
        ((50, 62), {"raised": 0, "cleared": 12}),
        ((50, 62, 3), {"raised": 0, "cleared": 0}),  # the driver's count was reset
        ((None, 62), {"raised": None, "cleared": None}),  # since when is not known
        ((50, None), {"raised": 0, "cleared": None}),
    ],
)
def test_drops_are_those_since_it_was_raised(counts, expected):
    """The driver's count is since its last reset; what it does not say is not zero."""
    assert drops_of(*counts) == expected


def test_at_most_five_workloads_and_none_without_packets():
    """The busiest five, in the snapshot's order."""
    one = usage("warning")
    silent = replace(one.workloads[0], packets=0, share=0.0)
    one = replace(one, workloads=(silent, *one.workloads))
    (alert,) = Transitions().update(moment(one))
    assert alert.workloads == one.workloads[1:6]


def test_ongoing_says_all_that_is_raised_as_it_is_now():
    """For a receiver that forgets: still since then, with the peak of now."""
    transitions = Transitions()
    transitions.update(moment(usage("warning", drops=1), at_s=0))
    transitions.update(moment(usage("critical", drops=3), at_s=30))
    ongoing = transitions.ongoing(moment(usage("critical", drops=9), at_s=60))
    assert {(a.severity, round(a.began_s - NOON_S), a.allowance_exceeded) for a in ongoing} == {
        ("warning", 0, 8), ("critical", 30, 6),
    }  # fmt: skip
    assert {alert.peak_pps for alert in ongoing} == {1000.0}
    assert transitions.ongoing(moment()) == ()
