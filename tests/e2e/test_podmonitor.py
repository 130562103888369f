"""The chart's PodMonitor in a real Prometheus, as the operator makes a scrape configuration of it.

The operator itself is not here. What it adds is taken from its documentation: labels of the pod,
and a job by the monitor's name, before the monitor's own relabelings.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.bench import simulated
from tests.fixtures import monitoring
from tests.fixtures.chart import render
from tests.lab.lab import Lab
from tests.lab.shell import tail

NODE = "ip-10-0-1-23.internal"
ADDED = {
    "namespace": "kube-system",
    "container": "eni53",
    "pod": "eni53-x7k2p",
    "endpoint": "metrics",
    "job": "kube-system/eni53",
}
# What a Prometheus resource may say against the monitor: overrideHonorLabels.
HONOURED = {"eni53": True, "overridden": False}


def snake(name: str) -> str:
    """sourceLabels as Prometheus has it."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def configured(directory: Path) -> list[str]:
    """The command of a Prometheus that scrapes one simulated node both ways."""
    argv = monitoring.prometheus(directory, {})
    (endpoint,) = render({"listen": {"address": "$(HOST_IP)"}, "podMonitor": {"enabled": True}})[
        "PodMonitor"
    ]["spec"]["podMetricsEndpoints"]
    own = [{snake(key): value for key, value in row.items()} for row in endpoint["relabelings"]]
    labels = ADDED | {"__meta_kubernetes_pod_node_name": NODE}
    file = directory / "prometheus.yml"
    document = json.loads(file.read_text())
    document["scrape_configs"] = [
        {
            "job_name": name,
            "honor_labels": endpoint["honorLabels"] and honoured,
            "relabel_configs": own,
            "static_configs": [{"targets": [simulated.address(place)], "labels": labels}],
        }
        for place, (name, honoured) in enumerate(HONOURED.items())
    ]
    file.write_text(json.dumps(document))
    return argv


@pytest.fixture
def scraped(lab: Lab) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Labels of all series of a workload's packets, and of all series at all."""
    log = lab.directory / "log"
    commands = [
        [sys.executable, "-m", "tests.bench.simulated", "10", "2"],
        configured(lab.directory / "prometheus"),
    ]
    started = []

    def ask(expression: str) -> list[dict[str, Any]]:
        path = "/api/v1/query?" + urlencode({"query": expression})
        stdin = json.dumps([path])
        done = lab.node_exec(monitoring.asking(), stdin=stdin, check=False)
        found: list[dict[str, Any]] = []
        if done.returncode == 0:
            found = json.loads(done.stdout)["data"]["result"]
        return [one["metric"] for one in found]

    try:
        for argv in commands:
            here = {"PYTHONPATH": str(monitoring.ROOT), "NO_PROXY": "*"}
            started.append(lab.node_popen(argv, log=log, env=here))
        deadline = time.monotonic() + 60
        while not (
            ask("count(group by (eni) (eni53_eni_limit_pps)) == 4")
            and ask("eni:eni53_linklocal_packets:rate5m")
        ):
            assert time.monotonic() < deadline, tail(log)
            time.sleep(0.3)
        yield {
            "workloads": ask("eni53_workload_packets_total"),
            "all": ask('{__name__=~"eni53_.*|up"}'),
        }
    finally:
        for process in started:
            process.kill()
            process.wait(10)


def test_series_are_named_after_the_workload_and_the_node(
    scraped: dict[str, list[dict[str, str]]],
) -> None:
    """None has a label of the agent's pod, whoever has the last word about honorLabels; the rules'
    recordings, for which a job must be found, were made.
    """
    assert {(one["job"], one["instance"]) for one in scraped["all"]} == {("eni53", NODE)}
    names = {name for one in scraped["all"] for name in one}
    assert names.isdisjoint({"pod", "endpoint"} | {f"exported_{name}" for name in ADDED})
    owners = {one["kind"]: (one.get("namespace"), one.get("container")) for one in
              scraped["workloads"]}  # fmt: skip
    assert len(owners) > 1
    assert "kube-system" not in {one.get("namespace") for one in scraped["all"]}
    assert {one.get("container") for one in scraped["all"]}.isdisjoint({"eni53"})
