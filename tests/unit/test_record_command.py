"""`eni53 record`: from an agent that answers over HTTP, from an old file, and badly used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eni53 import presence, record
from eni53.cli import main
from eni53.errors import SourceError
from eni53.flight.files import read
from eni53.flight.recording_json import dumps
from eni53.model import Snapshot
from eni53.sinks.http import HttpDoor, View
from eni53.snapshot_json import from_json, to_json

from tests.fixtures.flights import BEGIN, Wire, recording, slots_of
from tests.fixtures.json_server import serving
from tests.fixtures.snapshots import near_limit


class Agent:
    """Looks each time it is asked, some slots further on, with packets in each of them.

    Attributes:
        every: Slots from one answer to the next.
        answer: What it says to the question of that number, counted from one; None: nothing.
    """

    def __init__(self) -> None:
        self.wire, self.now, self.number, self.every = Wire("eni-1", "eni-2"), BEGIN, 0, 10
        self.answer: Callable[[int], Snapshot | None] = lambda _: self.look()

    def look(self) -> Snapshot:
        """Its next snapshot."""
        for number in range(self.now, self.now + self.every):
            self.wire.send("eni-1", number, 1 + number % 7, number % 3)
        self.now += self.every
        return self.wire.look(self.now)

    def snapshot(self) -> Snapshot | None:
        """The next answer."""
        self.number += 1
        return self.answer(self.number)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask as often as it goes, and wait for no agent that has just started."""
    monkeypatch.setattr(record, "_ASK_EVERY_S", 0.001)
    monkeypatch.setattr("eni53.top.sources._FIRST_SNAPSHOT_S", 0.1)


class Behind:
    """Whose snapshots the door shows."""

    agent = Agent()

    def latest(self) -> Snapshot | None:
        """Its next answer."""
        return self.agent.snapshot()


@pytest.fixture(scope="module")
def door() -> Iterator[tuple[HttpDoor, Behind]]:
    """An agent's; closing one takes a moment, so it stays, and the agent behind it changes."""
    behind = Behind()
    door = HttpDoor("127.0.0.1", 0, View(behind.latest, lambda: True))
    door.start()
    yield door, behind
    door.close()


@pytest.fixture
def agent(door: tuple[HttpDoor, Behind], tmp_path: Path) -> Agent:
    """One that announced itself in the runtime directory."""
    door[1].agent = Agent()
    (tmp_path / "run").mkdir()
    presence.announce(tmp_path / "run", door[0].url)
    return door[1].agent


def taken(tmp_path: Path, *argv: str, name: str = "x.json") -> int:
    """The exit code of `eni53 record` into a file of this directory."""
    where = ["--runtime-dir", str(tmp_path / "run")]
    return main(["record", *where, *argv, str(tmp_path / name)])


def refused(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one line of a command that ended with exit code 2."""
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == ""
    [line] = told.err.splitlines()
    assert line.startswith("eni53: ")
    return line


class TestFromAnAgent:
    """As many seconds as were wanted, to the packet."""

    @pytest.mark.parametrize(("seconds", "every"), [("1", 1), ("7.5", 7), ("600", 59)])
    def test_every_slot_from_the_first_look_on(
        self,
        agent: Agent,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        seconds: str,
        every: int,
    ) -> None:
        """Also of ten minutes, which a look that comes late goes beyond."""
        agent.every = every
        assert taken(tmp_path, "--seconds", seconds) == 0
        told, begin = read(tmp_path / "x.json"), BEGIN + every
        assert (told.slots, told.reason, told.moment, told.eni) == (
            round(float(seconds) * 10), "requested", None, None,
        )  # fmt: skip
        for dns in (False, True):
            truth = agent.wire.truth("eni-1", begin, begin + told.slots, dns=dns)
            assert slots_of(told, "eni-1", dns=dns) == truth
        assert [one.eni.label for one in told.enis] == ["eni-1"]  # the other sent nothing
        begun, line = capsys.readouterr().err.splitlines()
        assert begun == f"eni53: an agent runs here; recording for {seconds} s"
        assert line == (
            f"eni53: {told.slots / 10:.1f} s of 1 ENI in {tmp_path}/x.json; play it with"
            f" `eni53 top --replay {tmp_path}/x.json`"
        )

    def test_a_node_that_sends_nothing(
        self, agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """There is nothing in it to play: it is said what it holds, and not how to."""

        def look(_number: int) -> Snapshot:
            agent.now += 10
            return agent.wire.look(agent.now)

        agent.answer = look
        assert taken(tmp_path, "--seconds", "1") == 0
        assert read(tmp_path / "x.json").enis == ()
        [_, line] = capsys.readouterr().err.splitlines()
        assert line == (
            f"eni53: {tmp_path}/x.json: no ENI sent anything that is counted in these 1.0 s"
        )

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_stopped_early_it_keeps_what_there_is(
        self, agent: Agent, tmp_path: Path, number: signal.Signals
    ) -> None:
        """And leaves the signals as they were."""
        before = signal.getsignal(number)

        def answer(at: int) -> Snapshot:
            if at == 5:
                os.kill(os.getpid(), number)
            return agent.look()

        agent.answer = answer
        assert taken(tmp_path) == 0
        told = read(tmp_path / "x.json")
        assert 30 <= told.slots <= 50
        assert None not in slots_of(told, "eni-1")
        assert signal.getsignal(number) == before

    def test_an_agent_that_ends_meanwhile(
        self, agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What it said until then is kept, and that it ended is told."""
        agent.answer = lambda at: agent.look() if at < 5 else None
        assert taken(tmp_path, "--seconds", "30") == 0
        assert read(tmp_path / "x.json").slots == 30
        assert "the recording ends here" in capsys.readouterr().err

    def test_without_names(self, agent: Agent, tmp_path: Path) -> None:
        """There is none in the file."""
        assert taken(tmp_path, "--seconds", "1", "--no-names") == 0
        text = (tmp_path / "x.json").read_text()
        assert [w for w in ("node-1", "02:4e:11", "ens5") if w in text] == []
        assert '"named":false' in text

    def test_only_the_eni_that_is_wanted(
        self, agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """And one that is not there is refused before anything is recorded."""
        assert taken(tmp_path, "--seconds", "1", "--eni", "eni-2") == 0
        assert read(tmp_path / "x.json").enis == ()
        capsys.readouterr()
        argv = ["record", "--runtime-dir", str(tmp_path / "run"), "--eni", "eth9"]
        assert "eth9" in refused(capsys, [*argv, str(tmp_path / "y.json")])

    def test_an_agent_that_is_older_than_the_command(
        self, agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It tells no slots."""
        agent.answer = lambda _: near_limit()
        argv = ["record", "--runtime-dir", str(tmp_path / "run"), str(tmp_path / "x.json")]
        assert "older than this command" in refused(capsys, argv)
        assert not (tmp_path / "x.json").exists()


def impostor(**changes: object) -> bytes:
    """A snapshot of somebody who is no agent."""
    told = to_json(Wire().look(BEGIN, eni1={"packets": 9}))
    classes = {"smtp": {"packets": 3, "pps": 1e300}, "imds": {"packets": 2**64, "pps": 1e308}}
    row = to_json(near_limit())["enis"][0]["workloads"][0]
    told["enis"][0] |= {"classes": classes, "workloads": [row | {"pps": 1e308, "share": 1e9}]}
    told["enis"] *= 2
    return json.dumps(told | changes).encode()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (impostor(), impostor(slot=2**62)),
        (impostor(slot=2**64), b""),
        (impostor(slot=0, time="1970-01-01T00:00:00Z"), impostor(slot=2**63 - 1)),
        (impostor(time="0001-01-01T00:00:00Z"), b""),
        (impostor(), impostor(time="9999-12-31T23:59:59.999Z", slot=BEGIN + 5)),
        (impostor(), impostor(slot=3)),
        (impostor(), b"[" * 100_000),
        (impostor(), impostor(enis=[{}])),
        (impostor(), b"\xff"),
    ],
)  # fmt: skip
def test_whoever_answers_ends_nothing_but_the_recording(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    first: bytes,
    then: bytes,
) -> None:
    """The port of an agent that is gone may be somebody else's: a file, or one line."""
    monkeypatch.setattr(record, "_PATIENCE_S", -0.7)
    monkeypatch.setattr(record, "_ASK_EVERY_S", 0.1)
    path = "/api/v1/snapshot"
    with serving({path: first}) as server:
        presence.make_directory(tmp_path / "run")
        presence.announce(tmp_path / "run", server.url)
        answered = iter(range(10**6))

        def answers(asked: str) -> bytes | None:
            return (first if next(answered) == 0 else then) if asked == path else None

        monkeypatch.setattr(server, "answers", type("Answers", (), {"get": staticmethod(answers)}))
        code = taken(tmp_path, "--seconds", "1")
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.isascii()
    if code:
        assert (code, err.count("\n")) == (2, 1)
        assert not (tmp_path / "x.json").exists()
    else:
        assert len(read(tmp_path / "x.json").enis) <= 1


@pytest.mark.parametrize(
    ("slot", "slots", "why"),
    [
        ("7", [], "slot: must be a whole number"),
        (-1, [], "slot: must be from 0"),
        (1.5, [], "slot: must be a whole number"),
        (7, {}, "slots: must be a list"),
        (7, [7], r"slots\[0\]: must be a list"),
        (7, [[1, 2, 3], [1, 2]], r"slots\[1\]: must have 3 numbers, not 2"),
        (7, [[1, 2, 3, 4]], r"slots\[0\]: must have 3 numbers, not 4"),
        (7, [[1, 2, -3]], r"slots\[0\]: must be from 0"),
        (7, [[1, 2, True]], r"slots\[0\]: must be a whole number"),
        (7, [[1, None, 2]], r"slots\[0\]: must be a whole number"),
    ],
)
def test_slots_of_a_snapshot_are_read_strictly(slot: object, slots: object, why: str) -> None:
    """They come from whoever answers."""
    told = to_json(Wire().look(BEGIN, eni1={"packets": 9}))
    told["slot"], told["enis"][0]["slots"] = slot, slots
    with pytest.raises(SourceError, match=rf"^snapshot\S*{why}"):
        from_json(told)


def test_slots_of_a_snapshot_come_back() -> None:
    """The latest of them, at most a ring; an older agent's has none."""
    wire = Wire()
    for number in range(BEGIN, BEGIN + 64):
        wire.send("eni-1", number, 3, 2)
    snapshot = wire.look(BEGIN + 64)
    told = to_json(snapshot)
    read_back = from_json(told)
    assert (read_back.slot, read_back.enis[0].slots) == (BEGIN + 64, snapshot.enis[0].slots)
    told["enis"][0]["slots"] = [[n, 1, 0] for n in range(500)]
    assert [slot.number for slot in from_json(told).enis[0].slots] == [*range(436, 500)]
    del told["slot"], told["enis"][0]["slots"]
    assert (from_json(told).slot, from_json(told).enis[0].slots) == (None, ())


class TestFromAFile:
    """`--from OLD`: a copy."""

    @pytest.fixture
    def old(self, tmp_path: Path) -> Path:
        """A recording."""
        path = tmp_path / "old.json"
        path.write_text(dumps(recording()))
        return path

    def test_a_copy_is_the_same(
        self, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """No agent is asked."""
        assert taken(tmp_path, "--from", str(old)) == 0
        assert (tmp_path / "x.json").read_bytes() == old.read_bytes()
        assert "4.0 s of 2 ENIs in" in capsys.readouterr().err

    def test_it_is_all_of_it(
        self,
        old: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Nothing narrows it: a flag that would is refused, a setting is of this node."""
        monkeypatch.setenv("ENI53_ENI_INTERFACES", "eth7")
        argv = ["record", "--from", str(old), "--eni", "ens5", str(tmp_path / "x.json")]
        assert "--from" in refused(capsys, argv)
        assert taken(tmp_path, "--from", str(old)) == 0
        assert (tmp_path / "x.json").read_bytes() == old.read_bytes()

    def test_without_names(self, old: Path, tmp_path: Path) -> None:
        """And without them once more it is the same."""
        assert taken(tmp_path, "--no-names", "--from", str(old)) == 0
        text = (tmp_path / "x.json").read_text()
        names = ("checkout", "prod", "eni-0a1b", "02:4e", "ens5", "ip-10", "web", "4026532301")
        assert [name for name in names if name in text] == []
        assert taken(tmp_path, "--from", str(tmp_path / "x.json"), name="y.json") == 0
        assert (tmp_path / "y.json").read_text() == text

    @pytest.mark.parametrize(
        "source", ["absent", ".", "/dev/zero", "garbage", "snapshot", "", "n" * 300, "new\nline"]
    )
    def test_what_is_no_recording(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str
    ) -> None:
        """One line, nothing written."""
        (tmp_path / "garbage").write_bytes(os.urandom(1000))
        (tmp_path / "snapshot").write_text('{"version": 1, "node": "x", "enis": []}')
        path = str(tmp_path / source) if source else ""
        argv = ["record", "--no-names", "--from", path, str(tmp_path / "x.json")]
        line = refused(capsys, argv)
        assert line.isprintable()
        assert not (tmp_path / "x.json").exists()


class TestBadUse:
    """Nothing is asked, nothing recorded, one line."""

    @pytest.mark.parametrize("seconds", ["0", "0.9", "-1", "601", "nan", "inf", "x", "", "1e9"])
    def test_seconds(self, capsys: pytest.CaptureFixture[str], seconds: str) -> None:
        """The line says what is allowed here, not for `top`."""
        line = refused(capsys, ["record", "--seconds", seconds, "/nowhere/x.json"])
        assert f"{seconds!r} is not a number from 1 to 600" in line

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("there", "is there already"),
            (".", "is there already"),
            ("dangling", "is there already"),
            ("absent/x.json", "is no directory"),
            ("there/x.json", "is no directory"),
            ("n" * 300, "File name too long"),
            ("loop/x.json", "Too many levels|is no directory"),
        ],
    )
    def test_a_place_that_cannot_be(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, why: str
    ) -> None:
        """It is said before a minute goes by; what is there stays as it is."""
        (tmp_path / "there").write_text("mine")
        (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        line = refused(capsys, ["record", str(tmp_path / name)])
        assert any(words in line for words in why.split("|"))
        assert (tmp_path / "there").read_text() == "mine"
        assert not (tmp_path / "nothing").exists()

    @pytest.mark.parametrize("argv", [[], ["--from"], ["a", "b"], ["--frm", "x"], ["--seconds"]])
    def test_words(self, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
        """And where help is."""
        assert " --help`" in refused(capsys, ["record", *argv])


def test_a_disk_that_is_full_leaves_no_half_file(tmp_path: Path) -> None:
    """It would be no recording, and in the way of the next try."""
    (tmp_path / "old.json").write_text(dumps(recording()))
    argv = [sys.executable, "-m", "eni53", "record", "--from", "old.json", "x.json"]
    limited = ["sh", "-c", 'ulimit -f 2 && exec "$@"', "sh", *argv]
    done = subprocess.run(limited, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "eni53: cannot write x.json: File too large\n")
    assert not (tmp_path / "x.json").exists()
