"""How `eni53 doctor` looks at a running agent: at which ENIs, from when, until when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eni53 import two_looks
from eni53.diagnosis import findings
from eni53.errors import NeedError, SourceError
from eni53.insight.look import seconds_between
from eni53.model import Count, Finding, NameRate, Snapshot
from eni53.presence import Agent
from eni53.snapshot_json import dumps
from eni53.top.sources import AgentSource, only

from tests.fixtures import snapshots
from tests.fixtures.json_server import serving

THREE = snapshots.three_enis()
pytestmark = pytest.mark.usefixtures("clock")
PATH = "/api/v1/snapshot"
DOWN = None  # for as long as nobody asks again


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


def at(
    slot: int | None, packets: int = 0, *, time_s: float = 1000.0, unanswered: int = 0
) -> Snapshot:
    """Of one ENI, *packets* on top of what it had."""
    busy = snapshots.busy_eni()
    resolver = busy.classes["resolver"]
    usage = replace(
        busy,
        packets=busy.packets + packets,
        classes={**busy.classes, "resolver": replace(resolver, packets=resolver.packets + packets)},
        unanswered=unanswered,
    )
    return Snapshot("node", time_s, 1.0, (usage,), slot=slot)


class Clock:
    """Stands in for `time`: sleeping takes none."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        """Seconds that were slept."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Goes on by so much, which has to be something."""
        assert seconds > 0
        self.now_s += seconds


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that looks go by."""
    clock = Clock()
    monkeypatch.setattr(two_looks, "time", clock)
    monkeypatch.setattr("eni53.top.sources._FIRST_SNAPSHOT_S", 0.1)
    return clock


def look(*told: Snapshot | None, seconds: float = 1.0) -> tuple[Snapshot, Snapshot, int]:
    """The two looks at an agent that tells these, the last for ever; how often it began anew."""
    anew: list[int] = []
    rest = list(told)

    def answer(asked: str) -> bytes | None:
        snapshot = rest.pop(0) if len(rest) > 1 else rest[0]
        return dumps(snapshot).encode() if snapshot is not None and asked == PATH else None

    with serving({}) as server:
        server.answers = type("Answers", (), {"get": staticmethod(answer)})  # type: ignore[assignment]
        source = AgentSource(Agent(7, server.url, "1"), ())
        first, last = two_looks.watch(source, seconds, lambda: anew.append(1))
    return first, last, len(anew)


def test_a_look_ends_with_the_first_news_after_its_time(clock: Clock) -> None:
    """Asked in the tick of the first look, the agent has nothing new to say."""
    first, last, anew = look(at(100), *[at(110)] * 5, at(150, 9), seconds=5.0)
    assert (first.slot, last.slot, anew) == (100, 110, 0)
    assert clock.now_s == 5.0
    first, last, anew = look(*[at(100)] * 10, at(150, 9), seconds=5.0)

    assert (first.slot, last.slot, anew) == (100, 150, 0)
    assert clock.now_s == pytest.approx(5.0 + 5.0 + 5 * 0.2)


@pytest.mark.parametrize("time_s", [400.0, 1000.0, 4600.0])
def test_a_look_is_as_long_as_the_slots_say(time_s: float) -> None:
    """Whatever becomes of the time of day: rates by a clock that was set are none."""
    first, last, anew = look(at(100), at(150, 9, time_s=time_s))

    assert (last.slot, anew) == (150, 0)
    assert seconds_between(first, last) == pytest.approx(5.0)
    assert seconds_between(None, replace(last, window_s=3.0)) == 3.0


def test_without_slots_the_time_of_day_has_to_do() -> None:
    """An older agent tells none."""
    first, last, _ = look(at(None), at(None, 9, time_s=1005.0))

    assert seconds_between(first, last) == 5.0
    assert seconds_between(replace(first, slot=7), last) == 5.0


@pytest.mark.parametrize("time_s", [400.0, 37000.0])
def test_findings_go_by_the_slots(time_s: float) -> None:
    """Nine hundred a second, all lost: ten hours or a negative time would hide it."""
    found = findings(at(100), at(150, 4500, time_s=time_s, unanswered=4000))

    assert "unanswered" in {finding.code for finding in found}


def test_an_agent_that_stands_still_is_left_in_one_line(clock: Clock) -> None:
    """Its door answers from the last tick for ever; so did doctor wait for the next one."""
    with pytest.raises(
        NeedError, match=r"^agent pid 7 .* its ticks have stopped.*/healthz"
    ) as told:
        look(at(100))
    assert "\n" not in str(told.value)
    assert clock.now_s == pytest.approx(1.0 + 10.0, abs=0.5)


def test_an_agent_that_is_gone_is_left_in_one_line(clock: Clock) -> None:
    """At once, or after the first look."""
    for answers in ([DOWN], [at(100), DOWN]):
        with pytest.raises(NeedError, match="answers with 404"):
            look(*answers)
    assert clock.now_s == pytest.approx(1.0 + 10.0, abs=0.5)


def fallen(what: str) -> Snapshot:
    """At slot 130, after `at(100, 5000, unanswered=50)`."""
    now = at(130, 6000, unanswered=60)
    usage = now.enis[0]
    if what == "class":
        usage = replace(usage, classes={**usage.classes, "imds": Count(0, 0.0)})
    else:
        usage = replace(usage, **{what: 1})
    return replace(now, enis=(usage,))


@pytest.mark.parametrize("what", ["packets", "unanswered", "class"])
def test_a_restart_begins_the_look_anew_once(what: str) -> None:
    """From its counts those of the agent before it cannot be taken; it may be away at first."""
    before = at(100, 5000, unanswered=50)
    assert before.enis[0].classes["imds"].packets > 0
    again = fallen(what)
    first, last, anew = look(before, DOWN, DOWN, again, replace(again, slot=180))

    assert (first.slot, last.slot, anew) == (130, 180, 1)


def test_a_restart_is_seen_also_when_the_new_one_catches_up() -> None:
    """It is asked each second, for one that was young has counted little."""
    told = (at(100, 10), at(110, 200), at(120, 50), at(130, 60), at(180, 110))
    first, last, anew = look(*told, seconds=4.0)

    assert (first.slot, last.slot, anew) == (120, 180, 1)


def test_a_restart_is_seen_also_when_the_new_one_knows_no_eni_at_first() -> None:
    """It is compared with the begin as well as with a second ago."""
    told = (at(100, 500), replace(at(110), enis=()), at(120, 50), at(170, 90))
    first, last, anew = look(*told, seconds=3.0)

    assert (first.slot, last.slot, anew) == (120, 170, 1)


def test_names_of_the_seconds_in_between_are_kept() -> None:
    """Of a burst that is over before the look is, the last snapshot knows nothing."""
    named = [NameRate("burst.example.com", "A", 300.0, 300)]
    busy = at(110, 300)
    busy = replace(busy, enis=(replace(busy.enis[0], names=named),))
    first, last, _ = look(at(100), busy, at(120, 300), at(150, 300), seconds=4.0)

    kept = {n.name: (n.packets, n.pps) for n in last.enis[0].names}
    assert kept["burst.example.com"] == (300, 0.0)
    assert "burst.example.com" in {n.name for n in first.enis[0].names}


def test_slots_that_fall_begin_the_look_anew() -> None:
    """Another machine's clock."""
    first, last, anew = look(at(100), at(7, 9), at(57, 9))

    assert (first.slot, last.slot, anew) == (7, 57, 1)


def test_an_agent_that_keeps_starting_is_left_in_one_line() -> None:
    """Twice within the look: no third."""
    with pytest.raises(NeedError, match="begun anew twice"):
        look(at(100, 90), at(130, 60), at(160, 30), at(190, 60))


def test_an_eni_that_appears_or_goes_is_no_restart() -> None:
    """There is nothing before it, or nothing after."""
    one, none = at(100), replace(at(150), enis=())
    for first, last in ((one, none), (replace(none, slot=100), replace(one, slot=150))):
        assert look(first, last)[2] == 0
