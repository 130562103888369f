"""What eni53 leaves behind: nothing of its own, and everything of others'."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.lab.agent import ENI53, Agent
from tests.lab.lab import Lab

MODES = ("tcx", "clsact")


def traces(lab: Lab) -> str:
    """Every qdisc and filter of the node, as tc shows them."""
    links = json.loads(lab.node_exec(["ip", "-j", "link"]).stdout)
    shown = lab.node_exec(["tc", "qdisc", "show"]).stdout
    for link in links:
        for direction in ("ingress", "egress"):
            argv = ["tc", "filter", "show", "dev", link["ifname"], direction]
            shown += lab.node_exec(argv, check=False).stdout
    return shown


def still_counting(lab: Lab) -> set[int]:
    """The programs of ours that the kernel still has, whoever holds them, by id."""
    names = {"eni_egress", "eni_ingress", "workload_ingress"}
    programs = json.loads(lab.node_exec(["bpftool", "-j", "prog", "show"]).stdout)
    return {program["id"] for program in programs if program.get("name") in names}


def until(condition: object, timeout: float = 10) -> bool:
    """Whether *condition* comes true in time: the kernel frees programs a moment later."""
    deadline = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("mode", MODES)
def test_sigterm_leaves_nothing(lab: Lab, mode: str) -> None:
    """After SIGTERM: exit 0, no filter, link, qdisc, program or file of ours."""
    before = traces(lab)
    programs = still_counting(lab)
    one = lab.run_task("checkout")
    during = traces(lab)
    with Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
        assert ("eni53:" in traces(lab)) == (mode == "clsact")
        assert agent.stop() == 0
        assert traces(lab) == during
        assert agent.left() == []
    one.remove()
    assert traces(lab) == before
    assert until(lambda: still_counting(lab) <= programs)


@pytest.mark.parametrize("mode", MODES)
def test_after_kill_the_next_start_replaces_what_was_left(lab: Lab, mode: str) -> None:
    """Kill -9 leaves clsact filters; the next start counts each packet once all the same, and its
    own SIGTERM leaves nothing, the dead one's qdiscs included.
    """
    one = lab.run_task("checkout")
    before = traces(lab)
    programs = still_counting(lab)
    with Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
        agent.kill()
        assert ("eni53:" in traces(lab)) == (mode == "clsact")
        agent.start()
        one.send("udp", "--to", "10.53.0.2", "--count", "101")
        snapshot = agent.settled(packets=101)
        assert snapshot["enis"][0]["packets"] == 101
        assert agent.total("eni53_workload_sent_packets_total") == 101
        assert agent.stop() == 0
    assert traces(lab) == before
    assert until(lambda: still_counting(lab) <= programs)
    one.remove()


@pytest.mark.parametrize("mode", MODES)
def test_filters_of_others_are_never_touched(lab: Lab, mode: str) -> None:
    """A qdisc and a filter that were there before, and a filter that came while we ran, are there
    afterwards as they were.
    """
    one = lab.run_task("checkout")
    foreign = [sys.executable, "-m", "tests.lab.foreign", "ens5"]
    try:
        lab.node_exec([*foreign, "egress", "1", "0x1"])
        lab.node_exec([*foreign, "ingress", "7", "0x2"])
        before = traces(lab)
        with Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
            one.send("udp", "--to", "10.53.0.2", "--count", "43")
            assert agent.settled(packets=43)["enis"][0]["packets"] == 43
        assert traces(lab) == before
    finally:
        lab.node_exec(["tc", "qdisc", "del", "dev", "ens5", "clsact"])
    one.remove()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_shot_top_that_is_ended_early_leaves_nothing(
    lab: Lab, mode: str, number: signal.Signals
) -> None:
    """A one-shot `top` that is ended in the middle of its measurement detaches first."""
    before = traces(lab)
    programs = still_counting(lab)
    argv = [ENI53, "top", "--once", "--seconds", "30", "--runtime-dir", "/run/eni53-none"]
    top = lab.node_popen(argv, env={"ENI53_ATTACH": mode})
    assert until(lambda: still_counting(lab) - programs)
    time.sleep(1)
    os.kill(top.pid, number)
    _, complaints = top.communicate(timeout=20)
    assert top.returncode != 0
    assert "Traceback" not in complaints
    assert traces(lab) == before
    assert until(lambda: still_counting(lab) <= programs)


def test_memory_and_processes_of_the_resident_agent(lab: Lab) -> None:
    """The resident process maps no LLVM and leaves no child behind."""
    with Agent(lab) as agent:
        assert agent.process is not None
        proc = Path("/proc") / str(agent.process.pid)
        maps = (proc / "maps").read_text()
        assert [name for name in ("LLVM", "clang", "libbcc") if name in maps] == []
        children = (proc / "task" / str(agent.process.pid) / "children").read_text()
        assert children == ""
