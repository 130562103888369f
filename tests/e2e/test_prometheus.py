"""The shipped rules in a real Prometheus, with a real Alertmanager, over an agent in the lab.

Beside the agent two simulated nodes are scraped: one is over its limit and has a driver that says
so, which a veth has not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.bench import simulated
from tests.fixtures import monitoring
from tests.lab.agent import ENI53, Agent
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.shell import tail

RESOLVER = "10.53.0.2"
ENI = "eni-05300000000000001"
LIMIT_PPS = 200
NEAR_PPS, OVER_PPS = 160, 260
NODE = "127.0.0.1:9154"  # simulated nodes have port 9153 of every address
HOT, CALM = simulated.address(0), simulated.address(1)
RECEIVER_PORT = 9095
PATIENCE_S = 30.0  # for what takes two seconds on a machine of its own
DASHBOARD = json.loads((monitoring.ROOT / "deploy/grafana/dashboard.json").read_text())
DRAWN = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
CHOSEN = {
    "$__rate_interval": "10s", "$job": ".*", "$node": ".*", "$eni": ".*", "$namespace": ".*",
    "$workload": ".*",
}  # fmt: skip

Alert = dict[str, Any]


def until(what: str, ready: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.3)


@dataclass
class Watched:
    """What runs, and how to ask it."""

    lab: Lab
    task: Container
    notes: Path
    over_until_s: float = 0.0

    def ask(self, *paths: str, url: str = monitoring.PROMETHEUS) -> list[Any]:
        """The JSON at each path."""
        done = self.lab.node_exec(monitoring.asking(url), stdin=json.dumps(paths))
        return [json.loads(line) for line in done.stdout.splitlines()]

    def query(self, *expressions: str) -> list[list[dict[str, Any]]]:
        """The vectors that the expressions are now."""
        paths = ["/api/v1/query?" + urlencode({"query": each}) for each in expressions]
        return [answer["data"]["result"] for answer in self.ask(*paths)]

    def load(self, pps: int, seconds: int) -> None:
        """Have the task send, to the end."""
        rate = ("--rate", str(pps), "--count", str(pps * seconds))
        assert self.task.send("udp", "--to", RESOLVER, *rate).sent == pps * seconds

    def told(self, alertname: str, status: str, **labels: str) -> list[Alert]:
        """What the receiver was told so far."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        wanted = {"alertname": alertname, "instance": NODE} | labels
        return [
            alert
            for line in lines
            for alert in json.loads(line)["alerts"]
            if alert["status"] == status and wanted.items() <= alert["labels"].items()
        ]

    def fleet(
        self, *args: str, url: str = monitoring.PROMETHEUS
    ) -> subprocess.CompletedProcess[str]:
        """Run `eni53 fleet` in the node."""
        return self.lab.node_exec([ENI53, "fleet", "--prometheus", url, *args], check=False)


@pytest.fixture(scope="module")
def watched(lab: Lab) -> Iterator[Watched]:
    """All of it, after a load near the limit and one over it."""
    directory = lab.directory / "monitoring"
    directory.mkdir()
    log, notes = directory / "log", directory / "notes"
    jobs = {"eni53": [NODE, HOT, CALM]}
    commands = [
        [sys.executable, "-m", "tests.bench.simulated", "10", "2"],
        monitoring.receiving(RECEIVER_PORT, notes),
        monitoring.alertmanager(directory / "alertmanager", RECEIVER_PORT),
        monitoring.prometheus(directory / "prometheus", jobs, alertmanager="127.0.0.1:9093"),
    ]
    task = lab.run_task("batch-import")
    started = []
    try:
        with Agent(lab, "--listen", NODE, env={"ENI53_LIMIT_PPS": str(LIMIT_PPS)}):
            for argv in commands:
                here = {"PYTHONPATH": str(monitoring.ROOT), "NO_PROXY": "*"}
                started.append(lab.node_popen(argv, log=log, env=here))
            watched = Watched(lab, task, notes)

            def scraped() -> bool:
                assert [p.args for p in started if p.poll() is not None] == [], tail(log)
                try:
                    (found,) = watched.query("sum(up)")
                except Exception:  # noqa: BLE001 - not up yet
                    return False
                return bool(found) and found[0]["value"][1] == "3"

            until("all scraped", scraped)
            # Far apart: a sender that stands still for a moment catches up, and two would be over.
            bursts = ("--burst", "150", "--every", "3", "--count", "450")
            assert task.send("udp", "--to", RESOLVER, *bursts).sent == 450
            until("near", lambda: bool(watched.told("Eni53NearLimit", "firing")))
            assert watched.told("Eni53OverLimit", "firing") == []
            watched.load(OVER_PPS, 4)
            watched.over_until_s = time.monotonic()
            until("over", lambda: bool(watched.told("Eni53OverLimit", "firing")))
            yield watched
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(20)
        task.remove()


def test_alerts_name_eni_node_and_workload(watched: Watched) -> None:
    """Near first, as a warning; then over; each says who sends most."""
    (near, *_), (over, *_) = (
        watched.told(name, "firing") for name in ("Eni53NearLimit", "Eni53OverLimit")
    )
    assert near["labels"]["severity"] == "warning"
    assert over["labels"]["severity"] == "critical"
    for alert in (near, over):
        assert alert["labels"]["eni"] == ENI
        assert ENI in alert["annotations"]["summary"]
        assert NODE in alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"].startswith("docs/alerts.md#")
    task = f"ecs_task prod/batch-import:42/{watched.task.task_id}"
    assert task in over["annotations"]["description"]
    share = int(re.findall(r"(\d+)(?:\.\d+)?%", near["annotations"]["summary"])[0])
    assert 70 <= share < 100


def test_the_worst_of_an_eni_is_all_that_is_told(watched: Watched) -> None:
    """Over the limit silences near the limit, by the inhibitions that are shipped."""
    (alerts,) = watched.ask("/api/v2/alerts", url=monitoring.ALERTMANAGER)
    state = {
        (alert["labels"]["alertname"], alert["labels"]["severity"]): alert["status"]["state"]
        for alert in alerts
        if alert["labels"].get("instance") == HOT
        if alert["labels"]["eni"].endswith("000000000")
    }
    assert state == {
        ("Eni53NearLimit", "warning"): "suppressed",
        ("Eni53NearLimit", "critical"): "suppressed",
        ("Eni53OverLimit", "critical"): "active",
        ("Eni53DriverDrops", "critical"): "active",
    }
    assert watched.told("Eni53DriverDrops", "firing", instance=HOT)
    assert [alert for alert in alerts if alert["labels"].get("instance") == CALM] == []


def test_alerts_resolve(watched: Watched) -> None:
    """The peak is that of the trailing minute: so it is over a minute after the load."""
    until("resolved", lambda: bool(watched.told("Eni53OverLimit", "resolved")), 60 + PATIENCE_S)
    assert time.monotonic() - watched.over_until_s > 50
    left = f'ALERTS{{instance="{NODE}"}}'
    until("nothing left", lambda: not watched.query(left)[0], 60 + PATIENCE_S)


def test_fleet_over_a_real_prometheus(watched: Watched) -> None:
    """The two hot nodes first, the lab's ENI with its own limit, each with its sender."""
    watched.load(NEAR_PPS, 3)
    recorded = f'workload:eni53_linklocal_packets:rate5m{{instance="{NODE}",kind="ecs_task"}}'
    until("recorded", lambda: bool(watched.query(recorded)[0]))
    found: dict[str, Any] = {}

    def all_answer() -> bool:
        done = watched.fleet("--json")
        assert (done.returncode, done.stderr) == (0, "")
        found.update(json.loads(done.stdout))
        return bool(found["silent"]["count"] == 0)

    until("all answer", all_answer)  # a scrape that takes over a second is a silent agent
    assert (found["agents"], found["recorded"]) == (3, True)
    enis = {one["node"]: one for one in reversed(found["enis"])}
    assert {one["node"] for one in found["enis"][:2]} == {NODE, HOT}
    ratios = [one["utilization"] for one in found["enis"]]
    assert ratios == sorted(ratios, reverse=True)
    assert enis[HOT]["drops_1h"] > 0
    mine = enis[NODE]
    assert (mine["eni"], mine["interface"], mine["limit_pps"]) == (ENI, "ens5", LIMIT_PPS)
    assert mine["drops_1h"] is None
    assert 0.7 * LIMIT_PPS <= mine["peak_pps"] == mine["utilization"] * LIMIT_PPS
    batch = f"batch-import:42/{watched.task.task_id}"
    assert mine["busiest"]["workload"] == batch
    (row,) = [one for one in found["workloads"] if one["workload"] == batch]
    assert (row["kind"], row["namespace"], row["nodes"]) == ("ecs_task", "prod", 1)
    assert (row["node"], row["eni"]) == (NODE, ENI)

    shown = watched.fleet("--limit", "1")
    assert shown.returncode == 0
    assert "3 agents" in shown.stdout
    enis_shown, workloads_shown = shown.stdout.strip().split("\n\n")[1:]
    assert len(enis_shown.splitlines()) == len(workloads_shown.splitlines()) == 2
    assert HOT in workloads_shown


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9154", "not Prometheus"),
        ("http://127.0.0.1:9093", "not Prometheus"),
        ("http://127.0.0.1:9", "refused"),
    ],
)
def test_fleet_of_what_is_no_prometheus(watched: Watched, url: str, words: str) -> None:
    """An agent, an Alertmanager, nobody: one line each."""
    done = watched.fleet(url=url)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def filled(expression: str) -> str:
    """With every variable chosen."""
    for name, value in CHOSEN.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def test_every_panel_of_the_dashboard_shows_data(watched: Watched) -> None:
    """Asked as Grafana would: tables and figures for now, graphs over the last seconds."""
    now_s = time.time()
    span = {"start": f"{now_s - 5:.3f}", "end": f"{now_s:.3f}", "step": "1"}
    targets = [(panel["title"], target) for panel in DRAWN for target in panel["targets"]]
    paths = [
        "/api/v1/query_range?" + urlencode({"query": filled(target["expr"])} | span)
        if target["range"]
        else "/api/v1/query?" + urlencode({"query": filled(target["expr"])})
        for _, target in targets
    ]
    empty = [
        (title, target["expr"])
        for (title, target), answer in zip(targets, watched.ask(*paths), strict=True)
        if not answer["data"]["result"]
    ]
    assert empty == []


def test_every_variable_of_the_dashboard_has_values(watched: Watched) -> None:
    """label_values(series, label), which Grafana asks as values of a label."""
    asked = [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    pairs = [re.fullmatch(r"label_values\((.+), (\w+)\)", each) for each in asked]
    answers = watched.ask(
        *(f"/api/v1/label/{pair[2]}/values?" + urlencode({"match[]": filled(pair[1])})
          for pair in pairs if pair)
    )  # fmt: skip
    assert len(answers) == len(asked)
    assert [each for each, answer in zip(asked, answers, strict=True) if not answer["data"]] == []
