"""The page of `eni53 doctor`: who looked, where a finding begins, and that there was none."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from eni53 import doctor
from eni53.config import Config
from eni53.model import Finding, Snapshot
from eni53.presence import Agent
from eni53.top.sources import AgentSource

from tests.fixtures import snapshots

LONG = "needs more than the one line that a terminal of eighty cells has for it, " * 3
REMEDY = "Name the VPC's resolver, or the cache's address on the bridge of Docker: " * 2
FIRST, LAST = replace(snapshots.near_limit(), findings=()), replace(
    snapshots.near_limit(), time_s=snapshots.near_limit().time_s + 5.04, findings=()
)  # fmt: skip


def finding(code: str, who: str, remedy: str = REMEDY) -> Finding:
    """One of a container's."""
    return Finding(code, "warning", f"{who} {LONG}", evidence={"who": who}, remedy=remedy)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def page(*found: Finding, snapshot: Snapshot = LAST, **more: str | Snapshot) -> list[str]:
    """Its lines."""
    stream = io.StringIO()
    doctor.show(found, snapshot, stream, **more)  # type: ignore[arg-type]
    return stream.getvalue().split("\n")


def test_only_a_finding_begins_in_the_first_column() -> None:
    """A continuation there looks like a finding of its own; blanks at an end tell nobody."""
    lines = page(finding("no-cache", "web"), finding("hot-name", "db"), agent="agent pid 7")
    begin = lines.index("")

    assert [line.split(":")[0] for line in lines[begin:] if line[:1].strip()] == [
        "warning   no-cache",
        "warning   hot-name",
    ]
    assert all(line.startswith(" " * 10) for line in lines[begin:] if line and line[0] == " ")
    assert sum(line.startswith(" " * 10) for line in lines) > 8
    assert max(len(line) for line in lines[begin:]) <= 80
    assert lines == [line.rstrip() for line in lines]


def test_a_blank_line_stands_between_findings_and_none_at_the_end() -> None:
    """Where one ends is seen at a glance."""
    lines = page(finding("no-cache", "web"), finding("no-cache", "db"), agent="agent pid 7")
    second = next(at for at, line in enumerate(lines) if line.startswith("warning   no-cache: db"))

    assert lines[second - 1] == ""
    assert lines.count("") == 3, "behind the header, between the two, after the last newline"
    assert lines[-2:] == ["          helps: as above", ""]


def test_one_remedy_is_told_once_for_one_code() -> None:
    """Three containers with one file; another remedy, or another code, speaks for itself."""
    others = (
        finding("hot-name", "a"),
        finding("hot-name", "b", "wait"),
        finding("no-cache", "c", "wait"),
    )
    text = "\n".join(page(*(finding("no-cache", who) for who in "xyz"), *others, agent="agent"))

    assert text.count("helps: as above") == 2
    assert text.count("helps: Name the VPC's") == 2
    assert text.count("helps: wait") == 2


def test_no_remedy_is_none_also_the_second_time() -> None:
    """Nothing is above that could be meant."""
    assert "helps" not in "".join(page(finding("a", "x", ""), finding("a", "y", "")))


def test_evidence_is_told_to_its_end() -> None:
    """Five tasks with the long names that ECS gives them, and how many more: all of it, cleaned."""
    tasks = [f"production-eu-west-1/checkout:{at}/{'9b1f' * 8}/application" for at in "abcde"]
    long = replace(finding("a", "x"), evidence={"workloads": ", ".join(tasks) + " and 2 \x1b[2J"})
    text = "".join("\n".join(page(long)).split())

    assert "".join(tasks[-1].split()) + "and2\\x1b[2J" in text
    endless = "".join(page(replace(long, evidence={"workloads": "x" * 9000})))
    assert endless.count("x") < 2100


def test_the_header_says_who_looked_when_and_for_how_long() -> None:
    """Between two looks at an agent, or all that was counted here."""
    host = "eni53 doctor  ip-10-0-1-23.eu-west-1.compute.internal  2024-05-04 12:15:01 UTC"
    alone = page(snapshot=replace(LAST, window_s=3.0))

    assert page(first=FIRST, agent="agent pid 7")[0] == f"{host}  looked for 5 s  agent pid 7"
    assert alone[0] == f"{host}  looked for 3 s  own count (no agent)"


@pytest.mark.parametrize(
    ("enis", "agent", "told"),
    [
        (1, "agent pid 7", "1 ENI in 5 s (highest second of the last minute 980 of 1024)."),
        (1, "", "1 ENI in 5 s (highest second 980 of 1024)."),
        (2, "", "2 ENIs in 5 s (highest second on eni-hot 1001 of 1024)."),
        (0, "", "0 ENIs in 5 s."),
    ],
)
def test_nothing_found_says_how_much_was_looked_at(enis: int, agent: str, told: str) -> None:
    """A look at nothing, or at an idle node, is not taken for a clean bill."""
    calm = LAST.enis[0]
    hot = replace(
        calm,
        eni=replace(calm.eni, label="eni-hot"),
        peak_pps={calm.basis: 1001.0},
        utilization=0.98,
    )
    last = replace(LAST, enis=(calm, hot)[:enis], window_s=5.0)
    lines = page(snapshot=last, first=FIRST, agent=agent) if agent else page(snapshot=last)

    assert lines[1:] == ["", f"Nothing to report of {told}", ""]


def test_a_peak_that_is_not_known_is_not_zero() -> None:
    """As everywhere."""
    blind = replace(LAST.enis[0], peak_pps={}, utilization=float("nan"))

    assert "(highest second unknown, of 1024)" in "".join(
        page(snapshot=replace(LAST, enis=(blind,)))
    )


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("attach", ["auto", "packet"])
def test_alone_it_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    as_json: bool,
    attach: str,
) -> None:
    """Loading takes seconds that are none of the look; JSON has nothing beside it."""

    async def counted(_config: Config, _seconds: float, attached: Callable[[], None]) -> Snapshot:
        begun.append(capsys.readouterr().err)
        attached()
        return LAST

    begun: list[str] = []
    monkeypatch.setattr(doctor, "measure", counted)
    config = replace(Config(), runtime_dir=tmp_path, attach=attach)

    assert doctor.run(config, seconds=2.0, as_json=as_json, fail=False) == 0
    out, err = capsys.readouterr()
    loading = not as_json and attach == "auto"
    assert begun == ["eni53: loading the programs\n" if loading else ""]
    assert err == ("" if as_json else "eni53: looking for 2 s\n")
    if as_json:
        assert set(json.loads(out)) == {"version", "findings"}
    else:
        assert "own count (no agent)" in out


def test_an_agent_is_named_by_its_pid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It loads nothing, and is looked at from the first moment on."""
    monkeypatch.setattr(doctor.presence, "find", lambda _path: Agent(1569, "http://[::1]:1", "1"))
    monkeypatch.setattr(
        doctor, "watch", lambda source, _seconds, _anew: (asked.append(source), (FIRST, LAST))[1]
    )
    asked: list[AgentSource] = []

    assert doctor.run(Config(), seconds=5.0, as_json=False, fail=True) == 0
    out, err = capsys.readouterr()
    assert [source.name for source in asked] == ["agent pid 1569"]
    assert "looked for 5 s  agent pid 1569" in out
    assert err == "eni53: looking for 5 s\n"
