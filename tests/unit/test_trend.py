"""Minutes to the limit: only from growth that is steady, and never far ahead."""

import random

import pytest
from eni53.trend import Trend


def follow(pps, minutes=10.0, every=1.0, begin=1000.0):
    """A trend that was told the load at each second; *pps* is of the seconds since it began."""
    trend = Trend()
    for n in range(round(minutes * 60 / every) + 1):
        trend.update(pps(n * every), begin + n * every)
    return trend


@pytest.mark.parametrize("every", [1.0, 0.4, 1.07, 3.0])
def test_a_steady_growth_says_when(every):
    """From 200 by one a second: 800 after ten minutes, and 224 seconds to 1024 from there."""
    found = follow(lambda s: 200 + s, every=every).minutes_to(1024)
    assert found == pytest.approx(224 / 60, abs=0.2)


def test_noise_on_growth_is_still_growth():
    """A tenth up and down does not hide it."""
    rng = random.Random(7)
    found = follow(lambda s: (200 + s) * rng.uniform(0.9, 1.0)).minutes_to(1024)
    assert found == pytest.approx(224 / 60, abs=1.5)


@pytest.mark.parametrize(
    "pps",
    [
        lambda _: 0.0,
        lambda _: 700.0,
        lambda s: 900 - s,
        lambda s: 900.0 if s % 60 < 10 else 100.0,
        lambda s: 100.0 if s < 580 else 900.0,  # a jump is no trend
        lambda s: s / 100,  # an idle ENI that doubles
        lambda s: 700 + s / 1000,  # a week ahead
    ],
    ids=["silence", "flat", "fall", "saw", "jump", "idle", "far"],
)
def test_what_is_no_steady_growth_says_nothing(pps):
    """None, rather than a number that the next minute takes back."""
    assert follow(pps).minutes_to(1024) is None


def test_it_waits_for_enough_to_go_by():
    """Two minutes say nothing, four do."""
    assert follow(lambda s: 200 + s, minutes=2).minutes_to(1024) is None
    assert follow(lambda s: 200 + s, minutes=4).minutes_to(1024) == pytest.approx(9.7, abs=0.2)


def test_over_the_limit_it_is_now():
    """No negative minutes."""
    assert follow(lambda s: 600 + s).minutes_to(1024) == 0.0


def test_a_growth_that_ended_is_forgotten():
    """Ten minutes after, nothing of it is left."""
    trend = follow(lambda s: 200 + s)
    for n in range(1, 601):
        trend.update(800.0, 1600.0 + n)
    assert trend.minutes_to(1024) is None


def test_a_burst_between_two_steps_is_in_one():
    """The highest window of each step counts, wherever in it."""
    steady = follow(lambda s: (200 + s) if s % 10 == 4 else 0.0)
    assert steady.minutes_to(1024) == pytest.approx(224 / 60, abs=0.2)


def test_a_sleep_leaves_a_gap_and_no_growth_is_made_up():
    """Four minutes of growth, an hour's sleep, and the same load goes on: that is slow growth."""
    trend = Trend()
    for n in range(240):
        trend.update(200.0 + n, float(n))
    for n in range(240):
        trend.update(440.0 + n, 3840.0 + n)
    found = trend.minutes_to(1024)
    assert found is None or found > 20
