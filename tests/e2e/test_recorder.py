"""The flight recorder in the lab: to the packet, when an ENI exceeds, by hand, and played back."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agent import ENI53, Agent
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.load import parse_sent
from tests.lab.tally import until

RESOLVER = "10.53.0.2"


@pytest.fixture(scope="module")
def batch(lab: Lab) -> Iterator[Container]:
    """A task that can send."""
    task = lab.run_task("batch")
    yield task
    task.remove()


def recordings(agent: Agent) -> list[Path]:
    """What the agent has frozen."""
    return sorted((agent.runtime_dir / "recordings").glob("*.json"))


def total(recording: dict[str, Any], slots: str = "dns") -> int:
    """Packets in all its slots that are known."""
    return sum(packets or 0 for eni in recording["enis"] for packets in eni[slots])


def exceed(agent: Agent, task: Container) -> int:
    """Half a second of calm, a second and a half over the limit; returns the queries sent."""
    before = set(recordings(agent))  # of other tests too; there are ten at most, the oldest go
    load = task.start_send("udp", "--to", RESOLVER, "--steps", "100:0.5,1600:1.5")
    assert until(lambda: set(recordings(agent)) - before)
    return parse_sent(load.communicate()[0]).sent


def test_an_eni_that_exceeds_is_frozen_to_the_packet(lab: Lab, batch: Container) -> None:
    """The file is there at once; with what came after it holds every packet in its slot."""
    with Agent(lab) as agent:
        for old in recordings(agent):
            old.unlink()
        sent = exceed(agent, batch)
        first = json.loads(recordings(agent)[0].read_text())
        agent.settled(packets=sent)
        assert agent.total("eni53_agent_recordings_total") == 1
        agent.stop()
        [path] = recordings(agent)
        whole = json.loads(path.read_text())

        assert path.name.endswith(f"-exceeded-{lab.enis[0].eni_id}.json")
        assert "eni53.recording" in agent.log.read_text()
        assert (first["reason"], first["eni"]) == ("exceeded", lab.enis[0].eni_id)
        assert first["slots"] == first["moment"] == 600
        assert whole["slots"] > whole["moment"] == 600
        assert total(whole) == sent
        [eni] = whole["enis"]
        assert len(eni["linklocal"]) == len(eni["dns"]) == whole["slots"]
        assert eni["linklocal"][0] is None  # before the agent was there
        slots = [packets or 0 for packets in eni["dns"]]
        assert max(sum(slots[at : at + 10]) for at in range(len(slots))) > 1024
        names = [row["workload"] for row in whole["workloads"]]
        assert f"batch:42/{batch.task_id}" in names
        assert "exceeded" in {second["state"] for second in eni["seconds"]}


def test_what_was_frozen_outlives_a_kill_and_is_played_back(lab: Lab, batch: Container) -> None:
    """kill -9 a moment after: the very second is still to be seen, with the same screen."""
    with Agent(lab) as agent:
        exceed(agent, batch)
        agent.kill()
        path = str(recordings(agent)[-1])
        screen = agent.run("top", "--replay", path).stdout
        snapshot = json.loads(agent.run("top", "--json", "--replay", path).stdout)

        assert "batch:42/" in screen
        assert lab.enis[0].eni_id in screen
        assert "replay, exceeded" in screen
        assert [line for line in screen.splitlines() if len(line) > 80] == []
        [eni] = snapshot["enis"]
        assert eni["window_pps"] == eni["peak_pps"] > 0
        assert eni["workloads"][0]["workload"] == f"batch:42/{batch.task_id}"


def test_a_recording_by_hand_holds_every_packet_and_no_name(lab: Lab, batch: Container) -> None:
    """`record` beside an agent, then the same without names."""
    with Agent(lab) as agent:
        plain, bare = lab.directory / "by-hand.json", lab.directory / "bare.json"
        argv = [ENI53, "record", "--runtime-dir", str(agent.runtime_dir), "--seconds", "12"]
        recording = lab.node_popen([*argv, str(plain)])
        assert recording.stderr is not None
        assert "an agent runs here; recording for" in recording.stderr.readline()
        sent = batch.send("udp", "--to", RESOLVER, "--rate", "300", "--count", "900").sent
        _, told = recording.communicate(timeout=40)
        assert recording.returncode == 0, told
        found = json.loads(plain.read_text())
        agent.run("record", "--no-names", "--from", str(plain), str(bare))
        text = bare.read_text()

        assert total(found) == total(json.loads(text)) == sent == 900
        assert found["slots"] == 120
        assert f"top --replay {plain}" in told
        secrets = [lab.enis[0].eni_id, lab.enis[0].mac, "batch", batch.task_id, found["node"]]
        assert [word for word in secrets if f'"{word}' in text or f"/{word}" in text] == []
        again = agent.run("record", "--seconds", "1", str(plain), check=False)
        assert (again.returncode, again.stderr.count("\n")) == (2, 1)
        assert "is there already" in again.stderr


def test_without_an_agent_it_counts_by_itself_until_it_is_stopped(
    lab: Lab, batch: Container
) -> None:
    """Nothing runs here: `record` attaches; Ctrl-C ends it early and loses nothing."""
    path = lab.directory / "alone.json"
    argv = [ENI53, "record", "--runtime-dir", "/run/eni53-none", "--seconds", "60", str(path)]
    argv += ["--docker-socket", str(lab.docker_socket)]
    argv += ["--containerd-socket", str(lab.containerd_socket)]
    recording = lab.node_popen(argv)
    assert recording.stderr is not None
    assert "no agent runs here" in recording.stderr.readline()
    sent = batch.send("udp", "--to", RESOLVER, "--rate", "200", "--count", "500").sent
    batch.send("udp", "--to", RESOLVER, "--rate", "1", "--count", "3")
    recording.send_signal(signal.SIGINT)
    _, told = recording.communicate(timeout=30)
    found = json.loads(path.read_text())

    assert recording.returncode == 0, told
    assert sent <= total(found) <= sent + 3
    assert 20 < found["slots"] < 600
    assert found["workloads"][0]["workload"] == f"batch:42/{batch.task_id}"
