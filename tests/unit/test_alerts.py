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
