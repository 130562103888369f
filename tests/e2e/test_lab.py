"""The lab itself: beside another one, and after one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.agent import Agent
from tests.lab.lab import Lab

RESOLVER = "10.53.0.2"
BASE = Path("/run/eni53-lab")


def namespaces(lab_id: str) -> list[str]:
    """Network namespaces of a lab that are there."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in listed.stdout.splitlines() if f"-{lab_id}-" in line]


def test_two_labs_and_two_agents_side_by_side() -> None:
    """Equal addresses, two agents, and each counts its own packets to the last one."""
    with (
        Lab(docker=False, limit_pps=None) as one,
        Lab(docker=False, limit_pps=None) as two,
        Agent(one, docker=False) as first,
        Agent(two, docker=False) as second,
    ):
        one.send("udp", "--to", RESOLVER, "--count", "211")
        two.send("udp", "--to", RESOLVER, "--count", "307")
        counts = [
            agent.settled(packets=packets)["enis"][0]["classes"]["resolver"]["packets"]
            for agent, packets in ((first, 211), (second, 307))
        ]

        assert counts == [211, 307]


def test_what_a_killed_lab_left_goes_with_the_next() -> None:
    """kill -9 of a whole lab, dockerd and all: the next lab's start sweeps it."""
    argv = [sys.executable, "-m", "tests.lab", "up", "--id", "killed"]
    owner = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert owner.stdout is not None
    assert "is up" in owner.stdout.readline()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait(10)
    owner.stdout.close()
    assert len(namespaces("killed")) == 2
    with Lab(docker=False, resolver=False, imds=False):
        deadline = time.monotonic() + 10
        while namespaces("killed") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert namespaces("killed") == []
        assert not (BASE / "killed").exists()
