"""deploy/image/Dockerfile, built as it stands, and run as the chart and the ECS task say.

Some five minutes, most of them Debian's packages: `make image-test`, not `make test`.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.image_build import ROOT, Builder, base, suite
from tests.e2e.image_node import get, places, shared_run, until_ready
from tests.e2e.image_pod import ChartPod
from tests.e2e.image_task import EcsTask
from tests.fixtures.chart import render
from tests.lab.agent import rows
from tests.lab.lab import Lab

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]

IMAGE = "localhost/eni53:test"
RESOLVER = "10.53.0.2"
API = "http://127.0.0.1:9153/api/v1/snapshot"


@pytest.fixture(scope="module")
def node() -> Iterator[Lab]:
    """A node with dockerd and CRI, and the image in both."""
    made = base(suite())
    assert made.exists()
    with Lab(pods=True, docker=True, limit_pps=None) as lab:
        with Builder(lab.directory / "build", lab.id) as builder:
            tar = builder.build(IMAGE)
        docker = ["docker", "-H", f"unix://{lab.docker_socket}"]
        lab.node_exec([*docker, "load", "-q", "-i", str(tar)], timeout=300)
        ctr = ["ctr", "-a", str(lab.containerd_socket), "-n", "k8s.io"]
        lab.node_exec([*ctr, "images", "import", str(tar)], timeout=300)
        tar.unlink()
        with shared_run(lab):
            yield lab


def inside(lab: Lab, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the image, with nothing of the node and a read-only root."""
    flags = ["run", "--rm", "--read-only", "--network=none", f"--entrypoint={argv[0]}"]
    docker = ["docker", "-H", f"unix://{lab.docker_socket}"]
    return lab.node_exec([*docker, *flags, IMAGE, *argv[1:]], check=False, timeout=120)


def version() -> str:
    """As the checkout has it."""
    text = (ROOT / "agent/__init__.py").read_text()
    return text.rpartition("__version__ = ")[2].split('"')[1]


def test_what_is_in_it(node: Lab) -> None:
    """The command, BCC and its interpreter; no kernel headers, no pip, no tests' libraries."""
    done = inside(node, "eni53", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"eni53 {version()}")
    code = "import importlib.util as u; print([n for n in {} if u.find_spec(n)])"
    unwanted = ["pip", "pytest", "grpc", "dns", "google", "mypy", "helm_python", "yaml"]
    done = inside(node, "/opt/eni53/bin/python", "-c", code.format(unwanted))
    assert done.stdout.strip() == "[]", done.stderr
    for path in ("/usr/src", "/lib/modules", "/usr/lib/modules", "/src", "/install.sh"):
        listed = inside(node, "sh", "-c", f"ls -A {path} 2>/dev/null").stdout
        assert listed == "", path


def test_a_pod_of_the_chart_counts(node: Lab) -> None:
    """With the four capabilities, no new privileges, the runtime's seccomp profile, a read-only
    root and the chart's memory limit: it starts, counts, names the pod, answers its probes, and
    leaves nothing.
    """
    shop = node.run_pod("web-x2x7k", "shop", ("app",))
    with ChartPod(node, render(), IMAGE) as pod:
        until_ready(node, pod.probe("readinessProbe"), pod.log)
        get(node, pod.probe("livenessProbe"))
        shop.containers["app"].send("udp", "--to", RESOLVER, "--count", "1009")
        found = settled(node, 1009)

        assert found == {("pod", "shop", "web-x2x7k", "app"): 1009}
        # In place of the runtime's own, which shows a container no more than its own cgroup.
        assert pod.mounted("/sys/fs/cgroup") == [("bind", "/sys/fs/cgroup")]
        code, said = pod.run("eni53", "check")
        assert code == 0, said
        assert "FAIL" not in said
        code, said = pod.run("eni53", "top", "--once", "--json")
        assert json.loads(said)["enis"][0]["classes"]["resolver"]["packets"] == 1009
        assert pod.stop() == 0, pod.log.read_text()
        assert "Traceback" not in pod.log.read_text()
        assert list(places(node)["/run/eni53"].iterdir()) == []
    shop.remove()


def test_the_chart_on_the_nodes_address_and_privileged(node: Lab) -> None:
    """Both choices of the values: served on the node's address and not on loopback; all privileges;
    and the configuration is the chart's.
    """
    values: dict[str, Any] = {"privileged": True, "config": "[limit]\npps = 512\n"}
    values["listen"] = {"address": "$(HOST_IP)"}
    with ChartPod(node, render(values), IMAGE) as pod:
        url = pod.probe("readinessProbe")
        assert url == f"http://{node.enis[0].ipv4}:9153/readyz"
        until_ready(node, url, pod.log)
        snapshot = json.loads(get(node, url.replace("/readyz", "/api/v1/snapshot")))
        assert snapshot["enis"][0]["limit_pps"] == 512
        listening = node.node_exec(["ss", "-Htln", "sport = :9153"]).stdout.split()
        assert listening[3] == f"{node.enis[0].ipv4}:9153"
        assert pod.stop() == 0


def test_the_ecs_task_counts(node: Lab) -> None:
    """As deploy/ecs/task-definition.json says: it names tasks of bridge mode, counts the ENI in an
    awsvpc task's namespace, passes its health check, and leaves nothing.
    """
    task = json.loads((ROOT / "deploy/ecs/task-definition.json").read_text())
    one = node.run_task("checkout")
    own = node.run_awsvpc_task(family="shop", containers=("app",))
    with EcsTask(node, task, IMAGE) as agent:
        until_ready(node, "http://127.0.0.1:9153/readyz")
        assert agent.healthy()
        one.send("udp", "--to", RESOLVER, "--count", "503")
        own.containers["app"].send("udp", "--to", RESOLVER, "--count", "499")
        found = settled(node, 1002)

        assert found[("ecs_task", "prod", f"checkout:42/{one.task_id}", "app")] == 503
        assert sum(found.values()) == 1002
        assert [n for key, n in found.items() if key[2].startswith("shop:")] == [499], agent.log()
        assert agent.stop() == 0
        assert "Traceback" not in agent.log()
    own.remove()
    one.remove()


def settled(lab: Lab, packets: int) -> dict[tuple[str, str, str, str], int]:
    """The rows of all ENIs when *packets* are counted and every sender has its name."""
    deadline = time.monotonic() + 20
    while True:
        snapshot = json.loads(get(lab, API))
        found = {
            key: n for e in range(len(snapshot["enis"])) for key, n in rows(snapshot, e).items()
        }
        pending = any(key[2] == "pending" for key in found)
        if (sum(found.values()) >= packets and not pending) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_the_base_is_the_dockerfiles() -> None:
    """The Debian that is made here is the one that FROM names, and there is no other."""
    text = (ROOT / "deploy/image/Dockerfile").read_text()
    froms = [line.split()[1] for line in text.splitlines() if line.startswith("FROM")]
    assert froms == ["debian:${DEBIAN}-slim"] * 2
