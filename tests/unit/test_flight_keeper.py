"""What is frozen into files, when, and that a disk that fails costs nothing else."""

import os
import threading
import time

import pytest
from eni53.alerts import Transitions
from eni53.flight import files
from eni53.flight.keeper import AFTER_SLOTS, BEFORE_SLOTS, Keeper

from tests.fixtures.alerts import until
from tests.fixtures.flights import BEGIN, EXCEEDED, Wire, drops, slots_of


class Agent:
    """An agent's last stage: it looks once a second, raises alerts, and feeds the keeper."""

    def __init__(self, directory, *labels):
        self.directory, self.wire, self.now = directory, Wire(*labels), BEGIN
        self.keeper, self.transitions, self.failures = Keeper(directory), Transitions(), []
        self.keeper.failed = self.failures.append

    def look(self, after=10, **changes):
        """Some slots later, with a packet in each slot of each ENI until then."""
        for number in range(self.now, self.now + after):
            for label in self.wire.sent:
                self.wire.send(label, number, 1 + number % 3)
        self.now += after
        self.update(self.wire.look(self.now, **changes))

    def update(self, snapshot):
        """Another snapshot."""
        self.keeper.update(snapshot, self.transitions.update(snapshot))

    def looks(self, number, **changes):
        """A second apart."""
        for _ in range(number):
            self.look(**changes)

    def written(self, number):
        """Wait until so many were written, the half ones too."""

        def told():
            self.keeper._reap()
            return self.keeper.written >= number

        assert until(told), self.failures
        return self.files()

    def files(self):
        """Names in the directory."""
        if not self.directory.is_dir():
            return []
        return sorted(entry.name for entry in self.directory.iterdir())

    def read(self, at=-1):
        """One of the recordings."""
        return files.read(self.directory / self.files()[at])


@pytest.fixture
def agent(tmp_path):
    """With two ENIs and seventy seconds behind it."""
    agent = Agent(tmp_path / "recordings", "eni-1", "eni-2")
    agent.looks(70)
    yield agent
    agent.keeper.stop()


def truth(agent, recording, label="eni-1"):
    """What the recording's slots really held."""
    first = recording_begin(agent, recording)
    return agent.wire.truth(label, first, first + recording.slots)


def recording_begin(agent, recording):
    """Number of its first slot, by its time: within one of what it must be."""
    since_now_s = agent.wire.look(agent.now).time_s - recording.begin_s
    return agent.now - round(since_now_s * 10)


class TestFreeze:
    """On an ENI that exceeds."""

    def test_nothing_is_written_for_nothing(self, agent):
        """Warnings, criticals and what is cleared are no reason."""
        for state in ("warning", "critical", "ok"):
            agent.looks(10, eni1={"state": state})
        assert (agent.files(), agent.keeper.written, agent.failures) == ([], 0, [])

    def test_it_is_there_at_once_and_whole_a_minute_later(self, agent):
        """The minute before; then the minute after as well, under the same name."""
        agent.look(eni2=EXCEEDED)
        moment = agent.now
        [name] = agent.written(1)
        assert name == files.name_for(agent.wire.look(moment).time_s, "exceeded", "eni-2")
        first = agent.read()
        assert (first.reason, first.eni, first.named) == ("exceeded", "eni-2", True)
        assert (first.slots, first.moment) == (BEFORE_SLOTS, BEFORE_SLOTS)
        assert recording_begin(agent, first) == moment - BEFORE_SLOTS
        for label in ("eni-1", "eni-2"):
            assert slots_of(first, label) == truth(agent, first, label)
        last = {one.eni.label: one.seconds[-1] for one in first.enis}
        assert (last["eni-2"].at, last["eni-2"].state) == (BEFORE_SLOTS, "exceeded")

        agent.looks(59)
        assert agent.keeper.written == 1
        agent.look()
        assert agent.written(2) == [name]
        whole = agent.read()
        assert (whole.slots, whole.moment) == (BEFORE_SLOTS + AFTER_SLOTS, BEFORE_SLOTS)
        assert recording_begin(agent, whole) == moment - BEFORE_SLOTS
        assert slots_of(whole, "eni-2") == truth(agent, whole, "eni-2")
        assert None not in slots_of(whole, "eni-2")
        agent.looks(60)
        assert agent.keeper.written == 2

    def test_a_look_that_comes_late_does_not_make_it_longer(self, agent):
        """Two minutes are two minutes."""
        agent.look(eni1=EXCEEDED)
        agent.looks(59)
        agent.look(after=55)
        agent.written(2)
        recording = agent.read()
        assert (recording.slots, recording.moment) == (1200, 600)
        assert slots_of(recording, "eni-1") == truth(agent, recording)

    def test_an_agent_that_has_just_started_knows_what_it_knows(self, tmp_path):
        """What was before it is unknown."""
        agent = Agent(tmp_path / "recordings")
        agent.looks(3)
        agent.look(eni1=EXCEEDED)
        agent.written(1)
        known = slots_of(agent.read(), "eni-1")
        assert known[:570] == (None,) * 570
        assert None not in known[570:]
        agent.keeper.stop()

    def test_what_else_happens_within_the_minute_is_in_the_same_file(self, agent):
        """Another ENI, the same again, drops: no second file; after the minute there is one."""
        agent.look(eni1=EXCEEDED)
        for changes in ({"eni2": EXCEEDED}, {"eni1": EXCEEDED}, {"eni2": drops(1)}) * 9:
            agent.looks(2, **changes)
        assert len(agent.written(1)) == 1
        agent.looks(6)
        agent.look(eni2=EXCEEDED)  # at the very end of the minute: a new one begins
        [_, second] = agent.written(3)
        assert second.endswith("-exceeded-eni-2.json")
        assert agent.read().moment == BEFORE_SLOTS

    def test_stopped_in_between_it_is_written_as_far_as_it_goes(self, agent):
        """The agent is restarted in the very minute that matters."""
        agent.look(eni1=EXCEEDED)
        agent.looks(23)
        agent.keeper.stop()
        recording = agent.read()
        assert (recording.slots, recording.moment) == (BEFORE_SLOTS + 230, BEFORE_SLOTS)
        assert slots_of(recording, "eni-1") == truth(agent, recording)
        assert (agent.keeper.written, len(agent.files())) == (2, 1)
        agent.keeper.stop()
        assert agent.keeper.written == 2

    def test_stopped_in_a_quiet_minute_there_is_nothing_to_write(self, agent):
        """And nothing is."""
        agent.keeper.stop()
        assert agent.files() == []


class TestDrops:
    """On what the driver says AWS dropped."""

    def begun(self, agent, *counts, seconds=5):
        """Which of these counts, so many seconds apart, began a file."""
        found = []
        for at, count in enumerate(counts):
            before = agent.keeper._pending
            agent.looks(seconds, eni1=drops(count))
            if agent.keeper._pending not in {None, before}:
                assert agent.keeper._pending.reason == "driver-drops"
                found.append(at)
        return found

    def test_the_first_rise_and_not_what_was_there_before(self, agent):
        """A driver counts since its last reset, which may be weeks ago."""
        assert self.begun(agent, 900, 900, 907, 907) == [2]
        [name] = agent.written(1)
        assert name.endswith("-driver-drops-eni-1.json")
        assert agent.read().eni == "eni-1"
        [one] = [one for one in agent.read().enis if one.eni.label == "eni-1"]
        assert [second.dropped for second in one.seconds[-11:]] == [900] * 10 + [907]

    def test_drops_without_end_are_one_file(self, agent):
        """Minutes of them, with fifty seconds' rest at most: the file of the beginning."""
        assert self.begun(agent, *[0] * 2, *range(1, 40), *[40] * 9, *range(41, 50)) == [2]

    def test_after_a_minute_without_it_begins_anew(self, agent):
        """What was over is news again."""
        assert self.begun(agent, 0, 1, *[1] * 12, 2) == [1, 14]
        agent.keeper.stop()
        assert len(agent.files()) == 2

    def test_a_driver_that_does_not_answer_in_between_is_not_forgotten(self, agent):
        """What rose meanwhile rose."""
        assert self.begun(agent, 3, None, None, 3, None, 4) == [5]

    def test_a_driver_that_never_answers_drops_nothing(self, agent):
        """Nor one that was reset."""
        assert self.begun(agent, None, None, None) == []
        assert self.begun(agent, 500, 20, 20) == []
        assert self.begun(agent, 21) == [0]

    def test_a_clock_that_is_set_back_does_not_silence_it(self, agent):
        """An hour back: the next trouble is written all the same."""
        assert self.begun(agent, 0, 1) == [1]
        agent.looks(70, eni1=drops(1))
        snapshot = agent.wire.look(agent.now + 10, eni1=drops(2))
        object.__setattr__(snapshot, "time_s", snapshot.time_s - 3600)
        agent.update(snapshot)
        assert agent.keeper._pending is not None

    def test_an_eni_that_is_gone_is_forgotten(self, agent):
        """The next of its name begins at its own count."""
        assert self.begun(agent, 3) == []
        agent.wire.go("eni-1")
        agent.update(agent.wire.look(agent.now + 1))
        agent.wire.come("eni-1")
        assert self.begun(agent, 9, 10) == [1]


class TestTrouble:
    """A disk that does not do what it should."""

    def test_what_stands_in_the_way_is_told_and_later_it_works(self, agent):
        """The first is lost and said to be; the minute after finds the place free."""
        agent.directory.write_text("in the way")
        agent.look(eni1=EXCEEDED)
        assert until(lambda: agent.keeper._reap() or agent.failures)
        assert agent.failures == [f"cannot write to {agent.directory}: File exists"]
        assert (agent.files(), agent.keeper.written) == ([], 0)
        agent.directory.unlink()
        agent.looks(60)
        assert len(agent.written(1)) == 1
        assert None not in slots_of(agent.read(), "eni-1")
        assert len(agent.failures) == 1

    def test_a_defect_of_ours_is_told_as_well(self, agent, monkeypatch):
        """It ends neither the agent nor the thread that writes."""
        with monkeypatch.context() as patch:
            patch.setattr(files, "fitted", lambda _: 1 // 0)
            agent.look(eni1=EXCEEDED)
            assert until(lambda: agent.keeper._reap() or agent.failures)
        assert agent.failures == ["integer division or modulo by zero"]
        agent.keeper.stop()
        assert len(agent.files()) == 1

    def test_a_disk_that_hangs_holds_nothing_up_and_fills_no_memory(self, agent):
        """A pipe that nobody reads: looks go on; what would wait for too long is given up."""
        agent.directory.mkdir()
        name = files.name_for(agent.wire.look(agent.now + 10).time_s, "exceeded", "eni-1")
        pipe = agent.directory / f".{name}.part"
        os.mkfifo(pipe)
        reader = threading.Thread(target=pipe.read_bytes)
        began_s = time.monotonic()
        try:
            for _ in range(6):
                agent.look(eni1=EXCEEDED)
                agent.looks(65)
            assert time.monotonic() - began_s < 30
            assert agent.keeper.written == 0
            assert len(agent.keeper._writing) == 4
            assert len(agent.failures) == 8
            assert {failure.split(": ")[1] for failure in agent.failures} == {
                "those before it are not written yet"
            }
        finally:
            reader.start()
        agent.written(4)
        reader.join()
        agent.look(eni1=EXCEEDED)
        agent.written(5)

    def test_ten_files_stay(self, agent):
        """Of a night with a dozen troubles the last ten."""
        agent.directory.mkdir()
        (agent.directory / "mine.json").write_text("mine")
        for at in range(12):
            agent.look(eni1=EXCEEDED)
            agent.looks(61)
            agent.written(2 * at + 2)
        assert len(agent.files()) == 11
        assert agent.files()[-1] == "mine.json"
        times = [files.read(agent.directory / name).begin_s for name in agent.files()[:-1]]
        assert times == sorted(times)
        assert times[-1] > agent.wire.look(agent.now).time_s - 130
