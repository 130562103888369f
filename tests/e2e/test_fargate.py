"""eni53 as an unprivileged container of a task, as on Fargate, with three sets of rights.

Docker itself takes the capabilities away and puts its seccomp filter on; the load comes from
another container of the task, and nftables in the VPC says how much it was.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.awsvpc import AwsvpcTask
from tests.lab.lab import Lab
from tests.lab.sidecar import NOTHING, ONLY_NET_RAW, Metadata, Sidecar, as_deployed
from tests.lab.task_metadata import task as described

from .hooks import Hooks, burst_in, wait_for

VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"
PART = Path(__file__).parents[2] / "deploy/ecs/fargate-sidecar.json"
DEPLOYED = json.loads(PART.read_text())["containerDefinitions"][0]
RIGHTS = {
    "Docker's defaults": (),
    "NET_RAW alone": ONLY_NET_RAW,
    "as deployed": as_deployed(DEPLOYED),
    "none": NOTHING,
}
EXACT = [rights for rights in RIGHTS if rights != "none"]
# All that is counted, whatever it is; each packet to these is in one of them only.
EVERYTHING = ("ip_linklocal", "ip6_linklocal", "ip_udp_dns_other", "ip_tcp_dns_other")
UDP = ("ip_udp_resolver", "ip6_udp_resolver", "ip_udp_dns_other", "ip_ntp", "ip6_ntp")
LIMIT = 200
# Of all of port 53, as in test_alerts.py.
ALERTING = {
    "ENI53_LIMIT_PPS": str(LIMIT),
    "ENI53_LIMIT_BASIS": "dns",
    "ENI53_ALERTS_CLEAR_AFTER": "0",
}
TRIES = 6
BURST = 16_000  # fits into the ring (18,720 frames) when nobody reads it meanwhile


@pytest.fixture(scope="module")
def task(lab: Lab) -> Iterator[AwsvpcTask]:
    """With one container that sends."""
    task = lab.run_awsvpc_task(family="web")
    yield task
    task.remove()


@pytest.fixture(scope="module")
def service(lab: Lab, task: AwsvpcTask) -> Iterator[Metadata]:
    """The task's metadata endpoint."""
    with Metadata(lab) as service:
        yield service


@pytest.fixture
def env(service: Metadata, task: AwsvpcTask) -> dict[str, str]:
    """What ECS puts into each container's environment."""
    return {VARIABLE: service.tell(task)}


def sent(task: AwsvpcTask, what: tuple[str, ...] = EVERYTHING) -> int:
    """What nftables has counted of it."""
    return sum(task.counted(name) for name in what)


def settled(sidecar: Sidecar, packets: int) -> dict[str, Any]:
    """The ENI, once it has so many packets."""
    newest: list[dict[str, Any]] = []

    def reached() -> bool:
        newest[:] = sidecar.snapshot()["enis"]
        return len(newest) == 1 and newest[0]["packets"] >= packets

    wait_for(reached)
    return newest[0]


def codes(sidecar: Sidecar) -> set[str]:
    """Of its findings."""
    return {finding["code"] for finding in sidecar.snapshot()["findings"]}


def families(metrics: str) -> set[str]:
    """Names of the metric families, those without samples too."""
    return set(re.findall(r"^# TYPE (\S+)", metrics, re.M))


def mode_of(sidecar: Sidecar) -> str:
    """As eni53_agent_attach_info says."""
    return next(labels["mode"] for name, labels, _ in sidecar.metrics()
                if name == "eni53_agent_attach_info")  # fmt: skip


def processor_s(pid: int) -> float:
    """Seconds of processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.parametrize("rights", EXACT)
def test_counts_are_exact(
    lab: Lab, task: AwsvpcTask, env: dict[str, str], rights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each service in its class, hundreds a second and twice 16,000 at once: to the packet what
    nftables counted, all of it the task's; metrics and rows add up; no BPF library, little memory.
    """
    app, before = task.containers["app"], sent(task)
    of = {name: task.counted(name) for name in ("ip_tcp_resolver", "ip_imds")}
    with Sidecar(lab, task, *RIGHTS[rights], env=env) as sidecar:
        idle_s, at_s = processor_s(sidecar.pid), time.monotonic()
        time.sleep(4)
        idle = (processor_s(sidecar.pid) - idle_s) / (time.monotonic() - at_s)
        busy_s, at_s = processor_s(sidecar.pid), time.monotonic()
        app.send("udp", "--to", vpc.RESOLVER, "--count", "3000", "--rate", "600")
        busy = (processor_s(sidecar.pid) - busy_s) / (time.monotonic() - at_s)
        for _ in range(2):  # more than the ring holds
            app.send("udp", "--to", vpc.RESOLVER, "--count", str(BURST))
        app.send("udp", "--to", vpc.RESOLVER6, "--count", "307")
        app.send("udp", "--to", vpc.ELSEWHERE4, "--count", "31")
        app.send("tcp", "--to", vpc.RESOLVER, "--count", "23")
        app.send("imds", "--to", vpc.IMDS4, "--count", "7")
        app.send("ntp", "--to", vpc.NTP6, "--count", "37")
        app.send("icmp", "--to", vpc.RESOLVER, "--count", "41")
        eni = settled(sidecar, sent(task) - before)
        assert eni["packets"] == sent(task) - before
        tcp, imds = (task.counted(name) - count for name, count in of.items())
        assert {name: count["packets"] for name, count in eni["classes"].items()} == {
            "resolver": 3000 + 2 * BURST + 307 + tcp,
            "dns_other": 31,
            "imds": imds,
            "ntp": 37,
            "linklocal_other": 41,
        }
        (row,) = eni["workloads"]
        assert (row["kind"], row["namespace"], row["workload"], row["container"]) == (
            "ecs_task", task.cluster, f"web:{task.revision}/{task.task_id}", "",
        )  # fmt: skip
        assert row["packets"] == eni["packets"]
        assert (eni["eni"], eni["interface"]) == (f"mac:{task.eni.mac}", "eth0")
        for name in ("eni53_eni_packets_total", "eni53_workload_packets_total"):
            counted = sum(value for found, _, value in sidecar.metrics() if found == name)
            assert counted == eni["packets"]
        assert mode_of(sidecar) == "packet"
        assert not codes(sidecar) & {"upper-bound", "packets-unread", "resolver-unknown"}
        assert eni["peak_pps"] > 2000
        assert "libbcc" not in Path(f"/proc/{sidecar.pid}/maps").read_text()
        memory = resident_mib(sidecar.pid)
        with capsys.disabled():
            print(f"\nsidecar, {rights}: {memory:.1f} MiB, processor {idle:.2%} idle,"
                  f" {busy:.2%} at 600 pps, all {eni['packets']} packets")  # fmt: skip
        assert memory < 48
        assert sidecar.healthy(DEPLOYED["healthCheck"]["command"])
        assert "Traceback" not in sidecar.log()
        assert sidecar.stop() == 0


def test_without_any_right_it_is_an_upper_bound(
    lab: Lab, task: AwsvpcTask, env: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """All UDP of the task counts, wherever to, in a class of its own and as the task's; never less
    than what nftables counted; a finding, the metric and `check` say what it is.
    """
    app, before = task.containers["app"], sent(task, UDP)
    with Sidecar(lab, task, *NOTHING, env=env) as sidecar:
        assert mode_of(sidecar) == "udp-counters"
        app.send("udp", "--to", vpc.RESOLVER, "--count", "3000", "--rate", "600")
        app.send("udp", "--to", vpc.RESOLVER6, "--count", "307")
        app.send("udp", "--to", vpc.RESOLVER, "--count", str(2 * BURST))
        app.send("ntp", "--to", vpc.NTP4, "--count", "37")
        true = sent(task, UDP) - before
        assert settled(sidecar, true)["packets"] == true  # nothing else was sent: the bound is met
        app.send("udp", "--to", vpc.GATEWAY, "--port", "4000", "--count", "500")
        eni = settled(sidecar, true + 500)
        assert eni["packets"] == true + 500
        assert {name for name, count in eni["classes"].items() if count["packets"]} == {
            "unclassified"
        }
        (row,) = eni["workloads"]
        assert (row["workload"], row["packets"]) == (f"web:7/{task.task_id}", true + 500)
        assert "upper-bound" in codes(sidecar)
        # What nobody looked at has no rcode and no latency; not even zero of them.
        said = sidecar.get("/metrics")
        assert "eni53_eni_responses_total{" not in said
        assert "eni53_eni_response_seconds_count{" not in said
        shown = sidecar.run("check").stdout
        assert "udp-counters: an upper bound" in shown
        # The burst was over the limit: the flight recorder has it, in the class it was counted in.
        wait_for(lambda: sidecar.files("/run/eni53/recordings"))
        [path, *_] = sidecar.files("/run/eni53/recordings")
        played = json.loads(sidecar.run("top", "--replay", path, "--once", "--json").stdout)
        # What the first file shows may be of before the burst: its slot was not over yet.
        assert played["enis"][0]["classes"]["unclassified"]["packets"] > 1024
        with capsys.disabled():
            print(f"\nsidecar, no rights: {resident_mib(sidecar.pid):.1f} MiB")
        assert "Traceback" not in sidecar.log()


@pytest.mark.parametrize("rights", RIGHTS)
def test_an_alert_leaves_in_time(
    lab: Lab,
    task: AwsvpcTask,
    env: dict[str, str],
    rights: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """300 queries in 300 ms, between two ticks: from the packet that crosses, by its sender's
    clock, to the POST at a receiver in the task.
    """
    delays: list[float] = []
    with (
        Hooks(lab, task=task) as hooks,
        Sidecar(
            lab, task, *RIGHTS[rights], env={**env, **ALERTING, "ENI53_ALERTS_WEBHOOK": hooks.url}
        ) as sidecar,
    ):
        for _ in range(TRIES):
            before = len(hooks.posts())
            moments = burst_in(task, 300, 0.3)
            wait_for(lambda: ("raised", "exceeded") in hooks.said()[before:])  # noqa: B023
            at = {body["severity"]: at for at, body in hooks.posts()[before:]
                  if body["transition"] == "raised"}  # fmt: skip
            delays.append(max(at["warning"] - moments[139], at["exceeded"] - moments[LIMIT]))
            if delays[-1] <= 0.25:
                break
            wait_for(lambda: hooks.said()[-1:] == [("cleared", "warning")])
        body = next(body for _, body in hooks.posts() if body["severity"] == "exceeded")
        assert body["eni"] == f"mac:{task.eni.mac}"
        assert body["workloads"][0]["workload"] == f"web:7/{task.task_id}"
        assert "Traceback" not in sidecar.log()
    with capsys.disabled():
        shown = ", ".join(f"{delay * 1000:.0f}" for delay in delays)
        print(f"\nalerts of a sidecar ({rights}) left {shown} ms after the packet that crosses")
    assert min(delays) <= 0.25


def test_the_same_metrics_as_a_node(lab: Lab, task: AwsvpcTask, env: dict[str, str]) -> None:
    """Every family that an agent with BPF has, and no other."""
    with Agent(lab) as agent:
        node = families(agent.get("/metrics"))
    with Sidecar(lab, task, env=env) as sidecar:
        assert families(sidecar.get("/metrics")) == node


def test_top_and_check_in_the_task(lab: Lab, task: AwsvpcTask, env: dict[str, str]) -> None:
    """`top` asks the sidecar, or counts by itself where none runs; `check` says how and whose."""
    app = task.containers["app"]
    name = task.task_id[-8:]
    with Sidecar(lab, task, *ONLY_NET_RAW, env=env) as sidecar:
        app.send("udp", "--to", vpc.RESOLVER, "--count", "211")
        settled(sidecar, 211)
        shown = sidecar.run("top", "--once").stdout
        assert f"mac:{task.eni.mac}" in shown
        assert name in shown
        shown = sidecar.run("check").stdout
        assert re.search(r"^ok +attach +packet: ", shown, re.M)
        assert f"web:7/{task.task_id}" in shown
        assert "FAIL" not in shown
    for rights, flags in RIGHTS.items():
        alone = Sidecar(
            lab, task, *flags, env=env, command=("top", "--once", "--json", "--seconds", "10")
        )
        alone.start()
        try:
            time.sleep(4)  # it says with --json to nobody when it has begun
            app.send("udp", "--to", vpc.RESOLVER, "--count", "97")
            wait_for(lambda: not alone.running())  # noqa: B023
            assert re.search(r'"packets": 97\b', alone.log()), (rights, alone.log())
        finally:
            alone.__exit__()


@pytest.mark.parametrize("said", ["hang", "huge", {"TaskARN": 7}, {}])
def test_a_bad_metadata_service(
    lab: Lab, task: AwsvpcTask, service: Metadata, said: object
) -> None:
    """Down, slow, endless or wrong: packets are counted all the same, under the host's name, and a
    metric says which source is down. Once it answers they are the task's; the old ones stay.
    """
    app, before = task.containers["app"], sent(task)
    url = service.tell(task, said)
    with Sidecar(lab, task, env={VARIABLE: url}) as sidecar:
        app.send("udp", "--to", vpc.RESOLVER, "--count", "101")
        (row,) = settled(sidecar, 101)["workloads"]
        assert row["kind"] == "container"
        assert row["workload"]
        up = [v for n, labels, v in sidecar.metrics() if labels.get("source") == "task_metadata"
              and n == "eni53_agent_source_up"]  # fmt: skip
        assert up == [0]
        if said == "hang":
            service.tell(task)
            wait_for(lambda: '"event": "eni53.source_up"' in sidecar.log(), timeout=40)
            app.send("udp", "--to", vpc.RESOLVER, "--count", "103")
            eni = settled(sidecar, 204)
            rows = {row["kind"]: row["packets"] for row in eni["workloads"]}
            assert rows == {"container": 101, "ecs_task": 103}
            assert eni["packets"] == sent(task) - before
        assert "Traceback" not in sidecar.log()
    service.tell(task)


def test_a_task_that_shares_the_nodes_network_is_refused(
    lab: Lab, task: AwsvpcTask, service: Metadata
) -> None:
    """A daemon whose "privileged" was forgotten: the node's packets are not all this task's."""
    said = described(task.task_id, "prod", "eni53", 1, task.eni, mode="host")
    sidecar = Sidecar(lab, task, env={VARIABLE: service.tell(task, said)})
    sidecar.start()
    try:
        wait_for(lambda: not sidecar.running())
        assert sidecar.stop() == 2
        assert "network mode host" in sidecar.log()
        assert len(sidecar.log().strip().splitlines()) == 1
    finally:
        sidecar.__exit__()
        service.tell(task)


def test_a_node_without_rights_still_says_what_it_lacks(lab: Lab, task: AwsvpcTask) -> None:
    """Outside of a task nothing changes by itself: the error of old, and where to read on."""
    sidecar = Sidecar(lab, task, *ONLY_NET_RAW)
    sidecar.start()
    try:
        wait_for(lambda: not sidecar.running())
        assert sidecar.stop() == 2
        assert "ENI53_ATTACH=packet" in sidecar.log() or "BCC" in sidecar.log()
    finally:
        sidecar.__exit__()
    with Sidecar(lab, task, *ONLY_NET_RAW, env={"ENI53_ATTACH": "packet"}) as asked:
        assert mode_of(asked) == "packet"
    refused = Sidecar(lab, task, *NOTHING, env={"ENI53_ATTACH": "packet"})
    refused.start()
    try:
        wait_for(lambda: not refused.running())
        assert refused.stop() == 2
        assert "CAP_NET_RAW" in refused.log()
    finally:
        refused.__exit__()
