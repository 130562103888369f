"""`eni53 top` and `eni53 check` as a person meets them."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.lab.agent import ENI53, Agent, rows
from tests.lab.lab import Lab

RESOLVER = "10.53.0.2"


def test_json_has_the_documented_shape(lab: Lab) -> None:
    """`top --json` of an agent: every field of the interface, and sums that add up."""
    one = lab.run_task("checkout")
    with Agent(lab) as agent:
        one.send("udp", "--to", RESOLVER, "--count", "113")
        lab.send("ntp", "--to", "169.254.169.123", "--count", "17")
        agent.settled(packets=130)
        snapshot: dict[str, Any] = json.loads(agent.run("top", "--json").stdout)

        assert (snapshot["version"], snapshot["window_seconds"]) == (1, 1)
        eni = snapshot["enis"][0]
        assert eni["eni"] == lab.enis[0].eni_id
        assert eni["mac"] == lab.enis[0].mac
        assert (eni["interface"], eni["netns"]) == ("ens5", "host")
        assert (eni["limit_pps"], eni["basis"]) == (1024, "linklocal")
        assert {c: n["packets"] for c, n in eni["classes"].items() if n["packets"]} == {
            "resolver": 113,
            "ntp": 17,
        }
        assert sum(row["packets"] for row in eni["workloads"]) == eni["packets"] == 130
        wanted = {"kind", "namespace", "workload", "container", "cgroup", "cgroup_id", "via"}
        wanted |= {"packets", "pps", "share", "names"}
        assert [wanted - row.keys() for row in eni["workloads"]] == [set()] * 2
    one.remove()


def test_once_without_an_agent_measures_by_itself(lab: Lab) -> None:
    """No agent: `top` attaches, measures for the time given, and its rates cover that time."""
    argv = [ENI53, "top", "--json", "--seconds", "4", "--runtime-dir", "/run/eni53-none"]
    argv += ["--docker-socket", str(lab.docker_socket)]
    one = lab.run_task("checkout")
    top = lab.node_popen(argv)
    sender = one.start_send("udp", "--to", RESOLVER, "--rate", "100", "--count", "900")
    out, complaints = top.communicate(timeout=30)
    sender.communicate()
    assert (top.returncode, complaints) == (0, "")
    snapshot = json.loads(out)
    eni = snapshot["enis"][0]

    assert 4.0 <= snapshot["window_seconds"] < 6.0
    # Besides the task there may be the end of our own question to the metadata service.
    (row,) = [row for row in eni["workloads"] if "resolver" in row["classes"]]
    assert row["workload"] == f"checkout:42/{one.task_id}"
    # window_seconds is rounded to a millisecond, which is a part in four thousand
    assert row["pps"] == pytest.approx(row["packets"] / snapshot["window_seconds"], rel=1e-3)
    assert row["packets"] == eni["classes"]["resolver"]["packets"] > 100
    assert sum(row["share"] for row in eni["workloads"]) == pytest.approx(1.0, abs=1e-5)
    one.remove()


def test_once_prints_a_screen_of_80_columns(lab: Lab) -> None:
    """The printed screen names the task and fits 80 columns."""
    one = lab.run_task("checkout")
    with Agent(lab) as agent:
        one.send("udp", "--to", RESOLVER, "--count", "19")
        agent.settled(packets=19)
        screen = agent.run("top", "--once").stdout
        assert "checkout:42/" in screen
        assert lab.enis[0].eni_id in screen
        assert [line for line in screen.splitlines() if len(line) > 80] == []
        assert "\x1b" not in screen
    one.remove()


def test_hostile_names_come_out_clean(lab: Lab) -> None:
    """A container that calls itself an escape sequence moves nobody's cursor."""
    evil = "\x1b[2J[red]\u202eevil"
    one = lab.run_container(
        "evil",
        labels={
            "com.amazonaws.ecs.task-arn": "arn:aws:ecs:eu-west-1:1:task/prod/0123",
            "com.amazonaws.ecs.cluster": "prod",
            "com.amazonaws.ecs.task-definition-family": evil,
            "com.amazonaws.ecs.task-definition-version": "1",
            "com.amazonaws.ecs.container-name": 'a"b\nc',
        },
    )
    with Agent(lab) as agent:
        one.send("udp", "--to", RESOLVER, "--count", "13")
        found = rows(agent.settled(packets=13))
        ((kind, _, workload, container),) = found
        assert (kind, workload) == ("ecs_task", r"\x1b[2J[red]\u202eevil:1/0123")
        assert container == r'a"b\x0ac'
        screen = agent.run("top", "--once").stdout
        assert [c for c in ("\x1b", "\u202e") if c in screen] == []
        metrics = agent.get("/metrics")
        assert [c for c in ("\x1b", "\u202e") if c in metrics] == []
    one.remove()


def test_check_says_what_there_is(lab: Lab) -> None:
    """`check` on a node that has everything: exit 0, and the facts."""
    agent = Agent(lab)
    report = json.loads(agent.run("check", "--json").stdout)
    found = {item["name"]: item for item in report["checks"]}

    assert report["ok"] is True
    assert lab.enis[0].eni_id in found["eni"]["detail"]
    assert RESOLVER in found["resolver"]["detail"]
    assert "version" in found["docker"]["detail"]
    assert found["programs"]["status"] == "ok"


def test_check_lists_foreign_filters_and_leaves_them(lab: Lab) -> None:
    """Other programs' filters are named, and still there afterwards."""
    one = lab.run_task("checkout")
    foreign = [sys.executable, "-m", "tests.lab.foreign", "ens5", "egress", "5", "0x9"]
    lab.node_exec(foreign)
    try:
        assert "policy" in Agent(lab).run("check").stdout
        shown = lab.node_exec(["tc", "filter", "show", "dev", "ens5", "egress"]).stdout
        assert "policy" in shown
    finally:
        lab.node_exec(["tc", "qdisc", "del", "dev", "ens5", "clsact"])
    one.remove()
