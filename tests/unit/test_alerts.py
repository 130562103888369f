"""States: up at once, down when it has been calm."""

import pytest
from eni53.alerts import EniState, Levels, worst


@pytest.mark.parametrize(
    ("utilization", "expected"),
    [(0, "ok"), (0.699, "ok"), (0.7, "warning"), (0.899, "warning"), (0.9, "critical"),
     (1.0, "critical"), (1.001, "exceeded"), (9, "exceeded")],
)  # fmt: skip
def test_levels_begin_where_they_say(utilization, expected):
    """Warning and critical from their mark on; the limit itself is still allowed."""
    assert EniState(Levels()).update(utilization, 0.0) == expected


def test_one_window_raises():
    """A single window over the mark is enough, and it is seen at that look."""
    state = EniState(Levels())
    assert [state.update(u, t) for t, u in enumerate((0.1, 1.2))] == ["ok", "exceeded"]


def test_it_is_lowered_only_after_the_calm():
    """Every window of the last five seconds counts, so a state never flickers within them."""
    state = EniState(Levels())
    state.update(1.5, 0.0)
    seen = [state.update(0.1, float(t)) for t in range(1, 8)]
    assert seen == ["exceeded"] * 5 + ["ok"] * 2


def test_a_second_burst_starts_the_calm_anew():
    """Five seconds of calm are five seconds after the last burst."""
    state = EniState(Levels())
    state.update(0.95, 0.0)
    state.update(0.95, 4.0)
    assert state.update(0.0, 8.0) == "critical"
    assert state.update(0.0, 9.1) == "ok"


def test_between_the_marks_it_stays_warned():
    """Under the warning mark and over the calm one, a raised state falls to warning, not to ok."""
    state = EniState(Levels())
    assert state.update(0.65, 0.0) == "ok"
    state.update(1.1, 10.0)
    assert state.update(0.65, 16.0) == "warning"
    assert state.update(0.65, 30.0) == "warning"
    assert state.update(0.59, 36.0) == "ok"


def changes(pairs, levels=None):
    """What the state becomes, one word for each change, over (utilization, second) in order."""
    state, seen = EniState(levels or Levels()), ["ok"]
    for utilization, now_s in pairs:
        if state.update(utilization, now_s) != seen[-1]:
            seen.append(state.state)
    return seen[1:]


MARKS = {"warning": 0.7, "critical": 0.9, "exceeded": 1.0}
PERIODS = (1, 4, 20)  # looks from one side to the other and back: quicker and slower than 5 s


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize(("state", "mark"), MARKS.items())
def test_a_wobble_around_a_mark_raises_once_and_clears_once(state, mark, period):
    """5 % to both sides for two minutes, then calm: each severity comes once and goes once."""
    wobble = [(mark * (0.95 if at // period % 2 else 1.05), float(at)) for at in range(120)]
    calm = [(0.1, float(at)) for at in range(120, 130)]
    assert changes(wobble + calm) == [state, "ok"]


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize(("state", "mark"), MARKS.items())
def test_a_wobble_around_a_clear_mark_clears_once(state, mark, period):
    """Having been reached, it ends once, and what is milder stays until its own mark."""
    clear = mark * 0.6 / 0.7
    wobble = [(clear * (0.95 if at // period % 2 else 1.05), float(at)) for at in range(1, 120)]
    seen = changes([(mark * 1.01, 0.0), *wobble])
    milder = {"warning": "ok", "critical": "warning", "exceeded": "critical"}[state]
    assert seen[0] == state
    # Slower than the calm must be, it is over; quicker, it never is.
    assert seen[1:] in (([],) if period < 5 else ([milder],))


@pytest.mark.parametrize(
    ("began", "utilization", "expected"),
    [(1.5, 0.858, "exceeded"), (1.5, 0.857, "critical"), (0.95, 0.772, "critical"),
     (0.95, 0.771, "warning"), (0.75, 0.6, "warning"), (0.75, 0.599, "ok"), (1.5, 0.599, "ok")],
)  # fmt: skip
def test_each_state_ends_as_far_below_its_beginning(began, utilization, expected):
    """In proportion: 0.6 of 0.7, so 0.771 of 0.9 and 0.857 of 1."""
    state = EniState(Levels(clear_after_s=0.0))
    state.update(began, 0.0)
    assert state.update(utilization, 1.0) == expected


def test_worse_is_seen_at_once_whatever_stands():
    """From between its marks straight up."""
    state = EniState(Levels())
    looks = ((0.75, 0), (0.65, 1), (0.95, 2), (0.8, 9), (1.01, 10), (0.9, 17), (1.2, 18))
    seen = [state.update(u, float(t)) for u, t in looks]
    assert seen == ["warning", "warning", "critical", "critical", *["exceeded"] * 3]


def test_the_mark_is_the_one_that_was_set():
    """To the last digit, also where a quotient is not exact."""
    for part in range(1, 70):
        levels = Levels(clear_below=part / 100, clear_after_s=0.0)
        assert changes([(0.7, 0.0), (part / 100, 1.0)], levels) == ["warning"]


def test_it_steps_down_by_what_is_left():
    """After the worst has passed, the state is that of the highest window still in view."""
    state = EniState(Levels())
    state.update(1.1, 0.0)
    state.update(0.75, 3.0)
    assert state.update(0.0, 6.0) == "warning"


def test_no_wait_at_all_may_be_configured():
    """clear_after = 0 looks at the present window only."""
    state = EniState(Levels(clear_after_s=0.0))
    state.update(1.1, 0.0)
    assert state.update(0.0, 0.1) == "ok"


def test_the_worst_of_several():
    """Calm to worst; no ENI at all is calm."""
    assert worst(["warning", "exceeded", "ok"]) == "exceeded"
    assert worst([]) == "ok"
