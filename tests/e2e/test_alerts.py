"""Alerts of the agent's own, from the packet that crosses to whoever is to be told."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from tests.lab.agent import ENI53, Agent
from tests.lab.lab import Lab

from .hooks import Hooks, burst, burst_in, wait_for
from .test_lifecycle import traces

LIMIT = 200
# Of all of port 53: the agent's own questions to the metadata service are on the other basis.
SETTINGS = {
    "ENI53_LIMIT_PPS": str(LIMIT),
    "ENI53_LIMIT_BASIS": "dns",
    "ENI53_ALERTS_CLEAR_AFTER": "1",
}
SEVERITIES = ("warning", "critical", "exceeded")
UP = [("raised", severity) for severity in SEVERITIES]
DOWN = [("cleared", severity) for severity in reversed(SEVERITIES)]
TRIES = 6
SLOWEST_S = 2.0


def alerting(lab: Lab, **more: str) -> Agent:
    """An agent with a low limit."""
    return Agent(lab, env={**SETTINGS, **more})


def states(agent: Agent) -> dict[str, float]:
    """eni53_alert_state by severity, of whichever ENI has it."""
    found: dict[str, float] = {}
    for name, labels, value in agent.metrics():
        if name == "eni53_alert_state":
            found[labels["severity"]] = max(value, found.get(labels["severity"], 0.0))
    return found


def results(agent: Agent, sink: str) -> dict[str, float]:
    """eni53_agent_alerts_total of one sink by result."""
    return {labels["result"]: value for name, labels, value in agent.metrics()
            if name == "eni53_agent_alerts_total" and labels["sink"] == sink}  # fmt: skip


def test_a_burst_is_raised_in_order_and_cleared_after_the_calm(lab: Lab) -> None:
    """300 packets in 300 ms, between two ticks: each severity raised once, mild first; cleared once
    each, the worst first; with the task that did it.
    """
    one = lab.run_task("checkout")
    with Hooks(lab) as hooks, alerting(lab, ENI53_ALERTS_WEBHOOK=hooks.url) as agent:
        assert states(agent) == dict.fromkeys(SEVERITIES, 0)
        one.send("udp", "--to", "10.53.0.2", "--count", "300", "--rate", "1000")
        wait_for(lambda: hooks.said()[:3] == UP)
        wait_for(lambda: len(hooks.posts()) >= 6)
        time.sleep(2.5)  # nothing more comes
        assert hooks.said() == UP + DOWN
        assert states(agent) == dict.fromkeys(SEVERITIES, 0)
        assert results(agent, "webhook") == {"delivered": 6, "retried": 0, "dropped": 0}
        bodies = [body for _, body in hooks.posts()]
    for body in bodies:
        assert (body["eni"], body["interface"]) == ("eni-05300000000000001", "ens5")
        assert (body["basis"], body["limit_pps"]) == ("dns", LIMIT)
        assert body["allowance_exceeded"] is None  # the lab's device has no such counter
        assert body["began"] <= body["time"]
    assert bodies[0]["peak_pps"] >= 0.7 * LIMIT
    assert bodies[2]["peak_pps"] > LIMIT
    assert max(body["peak_pps"] for body in bodies) == 300
    top = bodies[2]["workloads"][0]
    assert (top["kind"], top["namespace"]) == ("ecs_task", "prod")
    assert top["workload"].startswith("checkout:42/")
    assert top["share"] > 0.9
    one.remove()


def test_what_is_raised_shows_in_the_metrics(lab: Lab) -> None:
    """A worse severity includes the milder; each stands until it is cleared."""
    with alerting(lab, ENI53_ALERTS_CLEAR_AFTER="30") as agent:
        burst(lab, 185, 0.2)
        wait_for(lambda: states(agent) == {"warning": 1, "critical": 1, "exceeded": 0})
        burst(lab, 260, 0.2)
        wait_for(lambda: states(agent) == dict.fromkeys(SEVERITIES, 1))
        assert {eni["state"] for eni in agent.snapshot()["enis"]} == {"exceeded"}
        codes = {finding["code"] for finding in agent.snapshot()["findings"]}
        assert "over-limit" in codes
        assert "driver-drops" not in codes


def test_an_alert_leaves_within_a_quarter_of_a_second(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the packet that crosses, by its sender's clock, to the POST at the receiver."""
    delays: list[float] = []
    with (
        Hooks(lab) as hooks,
        alerting(lab, ENI53_ALERTS_WEBHOOK=hooks.url, ENI53_ALERTS_CLEAR_AFTER="0"),
    ):
        for _ in range(TRIES):
            before = len(hooks.posts())
            moments = burst(lab, 300, 0.3)
            wait_for(lambda: ("raised", "exceeded") in hooks.said()[before:])  # noqa: B023
            at = {body["severity"]: at for at, body in hooks.posts()[before:]
                  if body["transition"] == "raised"}  # fmt: skip
            # The packets that made the window 140 and 201: nobody else sends to port 53 here.
            delays.append(max(at["warning"] - moments[139], at["exceeded"] - moments[LIMIT]))
            if delays[-1] <= 0.25:
                break
            wait_for(lambda: hooks.said()[-1:] == [("cleared", "warning")])
    with capsys.disabled():
        shown = ", ".join(f"{delay * 1000:.0f}" for delay in delays)
        print(f"\nalerts left {shown} ms after the packet that crosses")
    assert max(delays) <= SLOWEST_S
    assert min(delays) <= 0.25


def test_a_task_eni_wakes_the_agent_at_its_own_limit(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name is learnt after it was attached to. Without the wake an alert would leave at the
    next tick, up to a second later.
    """
    task = lab.run_awsvpc_task(family="shop")
    mine = f"{task.eni.eni_id}={LIMIT}"
    delays: list[float] = []
    with (
        Hooks(lab) as hooks,
        Agent(lab, env={"ENI53_LIMIT_PER_ENI": mine, "ENI53_ALERTS_WEBHOOK": hooks.url,
                        "ENI53_LIMIT_BASIS": "dns", "ENI53_ALERTS_CLEAR_AFTER": "0"}) as agent,
    ):  # fmt: skip
        wait_for(lambda: task.eni.eni_id in str(agent.snapshot()["enis"]))
        for _ in range(TRIES):
            before = len(hooks.posts())
            moments = burst_in(task, 300, 0.3)
            wait_for(lambda: ("raised", "exceeded") in hooks.said()[before:])  # noqa: B023
            posts = hooks.posts()[before:]
            assert {body["eni"] for _, body in posts} == {task.eni.eni_id}
            at = {body["severity"]: at for at, body in posts if body["transition"] == "raised"}
            delays.append(max(at["warning"] - moments[139], at["exceeded"] - moments[LIMIT]))
            wait_for(lambda: hooks.said()[-1:] == [("cleared", "warning")])
    with capsys.disabled():
        shown = ", ".join(f"{delay * 1000:.0f}" for delay in delays)
        print(f"\nalerts of a task's ENI left {shown} ms after the packet that crosses")
    # Most of them: a tick may by chance be near for one or two.
    assert sorted(delays)[TRIES // 2] <= 0.25
    task.remove()


def test_a_receiver_that_is_down_at_first_is_told_later(lab: Lab) -> None:
    """In the order in which it happened, and it is counted how often that took."""
    url = "http://127.0.0.1:9098/hook"
    with alerting(lab, ENI53_ALERTS_WEBHOOK=url) as agent:
        burst(lab, 300, 0.3)
        wait_for(lambda: results(agent, "webhook")["retried"] >= 1)
        assert results(agent, "webhook")["delivered"] == 0
        assert agent.log.read_text().count("eni53.alerts_undelivered") == 1
        with Hooks(lab, port=9098) as hooks:
            wait_for(lambda: len(hooks.posts()) >= 6, 40)
            assert hooks.said() == UP + DOWN
            wait_for(lambda: results(agent, "webhook")["delivered"] == 6)
            assert results(agent, "webhook")["dropped"] == 0
        assert agent.log.read_text().count("eni53.alerts_delivered") == 1


def test_a_receiver_that_hangs_delays_no_tick_and_no_end(lab: Lab) -> None:
    """Counting goes on to the packet, snapshots stay fresh, and SIGTERM leaves nothing."""
    before = traces(lab)
    with (
        Hooks(lab, "silent") as hooks,
        alerting(
            lab,
            ENI53_ALERTS_WEBHOOK=hooks.url,
            ENI53_ALERTS_ALERTMANAGER=hooks.url,
            ENI53_ATTACH="clsact",  # which outlives a process that does not clean up
        ) as agent,
    ):
        burst(lab, 300, 0.3)
        wait_for(lambda: len(hooks.posts()) >= 2)
        assert "eni53:" in traces(lab)
        times = set()
        stop = time.monotonic() + 4
        while time.monotonic() < stop:
            times.add(agent.snapshot()["time"])
        assert len(times) >= 3
        burst(lab, 100, 0.1)
        assert agent.settled(packets=400)["enis"][0]["classes"]["resolver"]["packets"] == 400
        assert results(agent, "webhook")["delivered"] == 0
        begin = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - begin < 15
        assert "Traceback" not in agent.log.read_text()
        assert "Fatal" not in agent.log.read_text()
        assert agent.left() == []
    assert traces(lab) == before


def test_lines_for_cloudwatch(lab: Lab) -> None:
    """On standard output: one at the start, and those of the transitions."""
    with alerting(lab, ENI53_ALERTS_EMF="true") as agent:
        burst(lab, 300, 0.3)

        def lines() -> list[dict[str, Any]]:
            found = map(json.loads, agent.log.read_text().splitlines())
            return [line for line in found if "_aws" in line]

        wait_for(lambda: "warning cleared" in str(lines()))
        found = lines()
    assert (found[0]["eni"], found[0]["LimitPps"]) == ("eni-05300000000000001", LIMIT)
    assert max(line["PeakPps"] for line in found) == 300
    transitions = [word for line in found for word in line.get("transitions", ())]
    assert transitions == [f"{severity} {change}" for change, severity in UP + DOWN]


def test_events_are_refused_where_there_is_no_kubernetes(lab: Lab) -> None:
    """One line, exit code 2, nothing left."""
    argv = [ENI53, "agent", "--runtime-dir", str(lab.directory / "bad")]
    done = lab.node_exec(argv, env={"ENI53_ALERTS_KUBERNETES_EVENTS": "true"}, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("eni53: [alerts] kubernetes_events: ")
    assert "kubernetesEvents.enabled" in line


_ASK = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"


def test_a_real_alertmanager_takes_them(lab: Lab) -> None:
    """All three stand there while they are raised, and none when they are cleared."""
    base = lab.directory / "alertmanager"
    base.mkdir()
    config = base / "config.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    argv = ["prometheus-alertmanager", f"--config.file={config}", f"--storage.path={base}/data",
            "--web.listen-address=127.0.0.1:9093", "--cluster.listen-address="]  # fmt: skip
    server = lab.node_popen(argv, log=base / "log")

    def ask(path: str) -> str:
        argv = [sys.executable, "-c", _ASK, f"http://127.0.0.1:9093{path}"]
        return lab.node_exec(argv, check=False).stdout

    def standing() -> dict[str, dict[str, Any]]:
        alerts = json.loads(ask("/api/v2/alerts?active=true"))
        return {alert["labels"]["severity"]: alert for alert in alerts}

    try:
        wait_for(lambda: ask("/-/ready"))
        with alerting(
            lab,
            ENI53_ALERTS_ALERTMANAGER="http://127.0.0.1:9093",
            ENI53_ALERTS_CLEAR_AFTER="4",
        ) as agent:
            burst(lab, 300, 0.3)
            seen: dict[str, dict[str, Any]] = {}

            def all_stand() -> bool:
                seen.clear()
                seen.update(standing())
                return set(seen) == set(SEVERITIES)

            wait_for(all_stand)
            alert = seen["exceeded"]
            assert alert["labels"]["eni"] == "eni-05300000000000001"
            assert "of 200 packets a second" in alert["annotations"]["summary"]
            wait_for(lambda: standing() == {})
            wait_for(lambda: results(agent, "alertmanager")["delivered"] == 6)
            assert results(agent, "alertmanager") == {"delivered": 6, "retried": 0, "dropped": 0}
    finally:
        server.terminate()
        server.wait(10)
