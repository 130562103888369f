"""What must never be misread, lost or obeyed on a screen of the top."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from eni53.model import EniUsage, NameRate, Snapshot
from eni53.sample import Answer
from eni53.top.render import render
from eni53.top.view import SORT_KEYS, ViewState

from tests.fixtures import snapshots
from tests.fixtures.hostile import hostile

PLAIN = ViewState(source="agent pid 4711")
DRILLED = replace(PLAIN, selected="eni-0a1b2c3d4e5f60718", drilled=True)


def lines_of(snapshot: Snapshot, view: ViewState, width: int, height: int | None) -> list[str]:
    """The screen as plain lines."""
    return render(snapshot, view, width, height).plain.split("\n")


def only_eni(snapshot: Snapshot, **changes: object) -> Snapshot:
    """*snapshot* with its one ENI changed."""
    eni: EniUsage = snapshot.enis[0]
    return replace(snapshot, enis=(replace(eni, **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize("ascii_only", [False, True])
def test_hostile_names_reach_the_terminal_as_harmless_text(ascii_only: bool) -> None:
    """No control, format or combining character of a stranger's name is ever drawn."""
    view = replace(PLAIN, ascii_only=ascii_only, drilled=True)
    view = replace(view, selected=hostile().enis[0].eni.label)
    for width in (60, 80, 120, 400):
        drawn = render(hostile(), view, width, None).plain
        bad = {unicodedata.category(c) for c in drawn if c != "\n"}

        assert not bad & {"Cc", "Cf", "Cs", "Co", "Cn", "Mn", "Me", "Zl", "Zp"}
        assert not ascii_only or drawn.isascii()


def test_markup_in_a_name_is_shown_and_not_obeyed() -> None:
    """A container called ``[bold red]`` must be found under that name."""
    drawn = render(hostile(), PLAIN, 400, None)

    assert "[bold red]loud[/] [link=http://x]y[/link]" in drawn.plain
    assert not any("link" in str(span.style) for span in drawn.spans)


def test_unknown_is_a_dash_and_never_zero() -> None:
    """A zero would hide a resolver at its limit."""
    blind = only_eni(
        snapshots.near_limit(),
        window_pps={},
        peak_pps={"linklocal": float("nan")},
        utilization=float("nan"),
        history_pps=(),
    )
    lines = lines_of(blind, PLAIN, 80, 24)

    assert "   \N{EN DASH}/1024 pps  peak    \N{EN DASH}   (\N{EN DASH} %)" in lines[3]
    assert lines[6] == "  60 s  \N{EN DASH}"


def test_peak_and_number_tell_a_burst_that_the_last_second_hides() -> None:
    """The limit hurts in bursts: 980 pps a while ago stay marked while only 520 flow now."""
    bar = lines_of(snapshots.near_limit(), PLAIN, 80, 24)[3]

    assert "520/1024 pps  peak  980  (96 %)" in bar
    assert bar.index("█") < bar.index("◆")


def test_beyond_the_limit_is_said_in_words_and_colour() -> None:
    """Without colour the word EXCEEDED and the arrow remain; with colour it is red."""
    drawn = render(snapshots.three_enis(), PLAIN, 80, 24)
    first_panel = drawn.plain.split("\n")[2:4]
    red = " ".join(drawn.plain[s.start : s.end] for s in drawn.spans if "bold red" in str(s.style))

    assert first_panel[0].endswith("EXCEEDED")
    assert "▶" in first_panel[1]
    assert "1210" in red
    assert "(128 %)" in red


def test_hottest_eni_comes_first_and_all_are_seen() -> None:
    """At 3 a.m. the ENI that fails is at the top, and none of the others is lost."""
    lines = lines_of(snapshots.three_enis(), PLAIN, 60, 12)
    labels = [line[2:6] for line in lines if line.startswith(("▾", "▸"))]

    assert labels == ["eni-", "eni-", "mac:"]
    assert "0ff1c" in lines[1]


def test_many_enis_fit_and_say_how_many_do_not() -> None:
    """Fifteen branch ENIs on 80x24: the chosen one is open, the rest one line each, or counted."""
    snapshot = snapshots.three_enis()
    calm = snapshot.enis[0]
    more = tuple(
        replace(calm, eni=replace(calm.eni, label=f"eni-{at:017x}"), utilization=at / 100)
        for at in range(30)
    )
    snapshot = replace(snapshot, enis=snapshot.enis + more)
    lines = lines_of(snapshot, replace(PLAIN, selected="eni-00000000000000005"), 80, 24)

    assert len(lines) <= 24
    assert any(line.startswith("▾ eni-00000000000000005") for line in lines)
    counted = next(line for line in lines if line.endswith("more ENIs"))
    assert len(snapshot.enis) == sum(line.startswith(("▾", "▸")) for line in lines) + int(
        counted.split()[0]
    )


def test_rows_that_do_not_fit_are_counted_with_their_rate() -> None:
    """Nobody may take the rows on the screen for all there are."""
    lines = lines_of(snapshots.near_limit(), PLAIN, 60, 10)

    assert lines[-1] == "  +7 more, 33 pps together"


def test_drilled_in_eni_that_is_gone_is_said_to_be_gone() -> None:
    """Another ENI must not silently take its place."""
    view = replace(PLAIN, selected="eni-gone", drilled=True)

    assert "eni-gone is gone" in lines_of(snapshots.near_limit(), view, 80, 24)[2]


def test_drilled_in_shows_what_workloads_ask_for_when_it_fits() -> None:
    """Names are what leads to the line of code that asks too often."""
    assert any(
        "asks orders.internal.example.com A 80" in line
        for line in lines_of(snapshots.near_limit(), DRILLED, 120, 60)
    )


@pytest.mark.parametrize(("rows", "height", "shown"), [
    (1, 24, 5), (2, 24, 4), (3, 24, 3), (4, 24, 0), (2, 28, 8), (8, 40, 10), (11, None, 10),
])  # fmt: skip
def test_drilled_in_names_take_the_lines_that_workloads_leave(
    rows: int, height: int | None, shown: int
) -> None:
    """No row is lost to them; where only one or two of ten would fit, one line tells as much."""
    names = tuple(NameRate(f"host-{at}.test", "A", 10.0 - at) for at in range(10))
    crowd = snapshots.near_limit().enis[0].workloads[:rows]
    lines = lines_of(only_eni(snapshots.near_limit(), names=names, workloads=crowd), DRILLED,
                     80, height)  # fmt: skip
    table = [at for at, line in enumerate(lines) if line.startswith("  host-")]

    assert len(table) == shown
    assert any(line.startswith("  asked ") and "host-0.test A" in line for line in lines) == (
        not shown
    )
    below = next(at for at, line in enumerate(lines) if line.startswith("  workload ")) + 1
    assert sum(line.startswith("  ") and line[2] != " " for line in lines[below:]) == rows
    assert not any("more," in line for line in lines)
    if shown:
        assert lines[table[0] - 2] == ""
        assert ("asked for (" in lines[table[0] - 1]) == (shown < 10)
        assert lines[table[-1] + 1] == ""


def test_a_name_without_an_answer_says_so() -> None:
    """A dash would look like a name of which nothing is known, which is not what is wrong."""
    names = (NameRate("dead.test", "A", 9.0), NameRate("kept.test", "A", 8.0,
             answer=Answer(None, "SERVFAIL")))  # fmt: skip
    lines = lines_of(only_eni(snapshots.near_limit(), names=names), DRILLED, 120, 60)
    told = [line.split() for line in lines if line.startswith(("  dead.test", "  kept.test"))]

    assert told == [
        ["dead.test", "A", "9.0", "\N{EN DASH}", "none", "seen"],
        ["kept.test", "A", "8.0", "\N{EN DASH}", "SERVFAIL"],
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("pid", [7, 4194304])
def test_a_long_pid_does_not_cost_the_header_its_source(width: int, pid: int) -> None:
    """Whose numbers these are is said before how many ENIs there are and what the limit is on."""
    view = replace(PLAIN, source=f"agent pid {pid}")
    node = "ip-10-123-101-233.eu-west-1.compute.internal"
    header = lines_of(replace(snapshots.near_limit(), node=node), view, width, 24)[0]

    assert header.startswith("eni53 ip-10-123-101-233")
    assert "12:14:56 UTC" in header
    assert f"agent pid {pid}" in header
    assert width < 120 or "1 ENI  limit on link-local" in header


def test_a_task_keeps_its_revision_and_the_end_of_its_id() -> None:
    """Family may be cut, but revision and id are what is typed into the next command."""
    lines = lines_of(snapshots.near_limit(), PLAIN, 80, 24)

    assert any("…:118/…01bc " in line and " indexer " in line for line in lines)


def test_no_eni_says_what_to_do() -> None:
    """An empty screen would look like a quiet node."""
    nothing = replace(snapshots.empty(), enis=())

    assert "eni53 check" in lines_of(nothing, PLAIN, 80, 24)[2]


@pytest.mark.parametrize("sort", SORT_KEYS)
def test_every_sort_key_marks_its_column_at_80(sort: str) -> None:
    """Who looks must see by what the rows are ordered."""
    heading = lines_of(snapshots.near_limit(), replace(PLAIN, sort=sort), 80, 24)[7]

    assert sum(heading.count(arrow) for arrow in "▾▴") == 1
