"""Runtimes, the ECS agent, the CNI and the cgroup tree together: real servers, real processes."""

import asyncio
import contextlib
import os
import time
from dataclasses import replace

import pytest
from eni53.config import Config
from eni53.faults import Faults
from eni53.gather import Gather, Placer
from eni53.inventory import runtime
from eni53.inventory.cgroups import CgroupTree
from eni53.inventory.runtime import Seen
from eni53.inventory.workloads import Workloads
from eni53.model import Workload
from eni53.sources import Sources

from tests.fixtures.json_server import serving
from tests.fixtures.runtimes import ContainerdServer, DockerServer, Gate, docker_facts

ID, OTHER = "ab" * 32, "cd" * 32
ME = os.getpid()
TASK = {"task_arn": "arn:aws:ecs:eu-west-1:1:task/prod/t1", "container_name": "web"}
WEB = Workload("ecs_task", "prod", "t1", "web")
ECS = {
    "/v1/tasks": {
        "Tasks": [
            {"Arn": TASK["task_arn"], "Family": "", "Version": "",
             "Containers": [{"DockerId": ID, "Name": "web"}]}
        ]
    }
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The followers begin again at once."""
    monkeypatch.setattr(runtime, "_RETRY_S", 0.02)


class Node:
    """Sources with all they need, and a clock that tests move."""

    def __init__(self, tmp_path, **where):
        self.tmp_path, self.now_s = tmp_path, 1000.0
        self.root = tmp_path / "cgroup"
        self.root.mkdir()
        self.docker, self.containerd = tmp_path / "docker.sock", tmp_path / "containerd.sock"
        sockets = {"docker_socket": str(self.docker), "containerd_socket": str(self.containerd)}
        silent = {"ecs_introspection": "", "cni_introspection": "", "imds": ""}
        config = Config(runtime=replace(Config().runtime, **(sockets | silent | where)))
        self.faults, self.workloads = Faults(), Workloads()
        self.gather = Gather(self.workloads, lambda _: None, lambda _: None)
        cgroups = CgroupTree(self.root)
        self.facts, self.branches = [], []
        self.sources = Sources(
            config, self.faults, cgroups, Placer(cgroups, lambda _: None), self.gather,
            self.facts.append, self.branches.append, lambda: self.now_s,
        )  # fmt: skip

    def container(self, container_id, pid=ME, path="docker/{}"):
        """A container's cgroup; returns its id."""
        directory = self.root / path.format(container_id)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").write_text(f"{pid}\n" if pid else "")
        return directory.stat().st_ino

    def owner(self, cgroup_id):
        """Who has a cgroup."""
        found = self.workloads.of_cgroup(cgroup_id)
        return found and found.workload

    @contextlib.asynccontextmanager
    async def running(self):
        """Follow for a while."""
        self.sources.start(asyncio.get_running_loop())
        try:
            yield self
        finally:
            await self.sources.stop()

    async def ticks(self, after_s=5.0):
        """Let some time pass, and what is asked then be answered."""
        self.now_s += after_s
        self.sources.tick()
        if self.sources._asking is not None:
            await asyncio.wait({self.sources._asking}, timeout=20)


async def until(true):
    """Wait for what another thread does."""
    end_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end_s, "it did not happen"
        await asyncio.sleep(0.005)


def up(node, name):
    """Whether a source is said to answer."""
    return lambda: node.faults.sources_up.get(name) is True


def test_two_runtimes_are_put_together(tmp_path):
    """containerd has the pid, Docker the name; the place is that of the real process."""
    node = Node(tmp_path)
    cgroup = node.container(ID)

    async def follow():
        async with node.running():
            await asyncio.to_thread(node.sources.wait_listed, 20)
            await until(up(node, "docker"))
            await until(up(node, "containerd"))
            containerd.emit("create", ID, ME, "moby")
            await until(lambda: ID in node.gather.nameless)
            assert node.owner(cgroup) is None
            docker.emit("create", ID, **TASK)
            await until(lambda: node.owner(cgroup) == WEB)
            docker.emit("die", ID)
            await until(lambda: not node.workloads.running)

    with DockerServer(node.docker) as docker, ContainerdServer(node.containerd, cri=False) as c:
        containerd = c
        asyncio.run(follow())
    assert (node.faults.sources_up, node.branches) == ({"docker": True, "containerd": True}, [()])


def test_the_wait_for_lists_is_bounded(tmp_path):
    """A runtime that hangs does not hold the start; one that is not there costs nothing."""
    node = Node(tmp_path)

    async def follow():
        async with node.running():
            began_s = time.monotonic()
            await asyncio.to_thread(node.sources.wait_listed, 0.3)
            assert time.monotonic() - began_s < 3
            assert not node.sources.any_runtime
            gate.opened.set()
            await asyncio.to_thread(node.sources.wait_listed, 20)
            await until(lambda: node.sources.any_runtime)

    with DockerServer(node.docker) as docker:
        gate = docker.gates["/containers/json"] = Gate()
        asyncio.run(follow())


def test_without_a_runtime_the_tree_tells(tmp_path):
    """Who is there by its cgroup, its name by the ECS agent or, failing that, by its short id."""
    with serving(dict(ECS)) as agent:
        node = Node(tmp_path, ecs_introspection=agent.url)
        web, other = node.container(ID, path="ecs/t1/{}"), node.container(OTHER)

        async def follow():
            async with node.running():
                await node.ticks()
                assert node.owner(web) == WEB
                assert node.owner(other) == Workload("container", workload=OTHER[:12])
                node.container(OTHER, pid=0)
                await node.ticks(4.9)
                assert node.workloads.running == {ID, OTHER}
                await node.ticks(0.2)
                assert node.workloads.running == {ID}

        asyncio.run(follow())
    assert node.faults.sources_up["ecs"] is True
    assert node.sources.any_runtime is False


def test_a_runtime_that_comes_names_what_the_tree_knew(tmp_path):
    """And from then on the tree is not walked."""
    node = Node(tmp_path)
    cgroup = node.container(ID)

    async def follow():
        async with node.running():
            await node.ticks()
            assert node.owner(cgroup) == Workload("container", workload=ID[:12])
            docker = DockerServer(node.docker)
            docker.containers[ID] = docker_facts(ID, "web", ME, **TASK)
            with docker:
                await until(lambda: node.owner(cgroup) == WEB)
                await until(up(node, "docker"))
                node.container(OTHER)
                await node.ticks()
                assert node.workloads.running == {ID}
                docker.emit("die", ID)
                await until(lambda: not node.workloads.running)

    asyncio.run(follow())


@pytest.mark.parametrize("known", [False, True], ids=["the tree alone", "Docker too, before"])
def test_what_ended_while_no_runtime_answered_has_ended(tmp_path, known):
    """The tree had it, the runtime that is back has not: nobody else can tell of its end."""
    node = Node(tmp_path)
    node.container(ID)

    async def follow():
        if known:
            docker = DockerServer(node.docker)
            docker.containers[ID] = docker_facts(ID, "web", ME, **TASK)
            with docker:
                await until(up(node, "docker"))
            node.docker.unlink()
        await until(lambda: node.faults.sources_up.get("docker") is False)
        await node.ticks()
        assert node.workloads.running == {ID}
        node.container(ID, pid=0)
        with DockerServer(node.docker):
            await until(up(node, "docker"))
            for _ in range(2):
                await node.ticks()
            assert node.workloads.running == frozenset()

    async def run():
        async with node.running():
            await follow()

    asyncio.run(run())


def test_the_ecs_agent_is_asked_only_while_a_name_is_missing(tmp_path):
    """Every few seconds at most; with Docker down it knows what containerd does not."""
    with serving(dict(ECS)) as agent, ContainerdServer(tmp_path / "containerd.sock") as containerd:
        node = Node(tmp_path, ecs_introspection=agent.url)
        cgroup = node.container(ID)

        async def follow():
            async with node.running():
                await until(up(node, "containerd"))
                await node.ticks()
                assert agent.asked == []
                containerd.emit("create", OTHER, ME, "moby")
                await until(lambda: OTHER in node.gather.nameless)
                await node.ticks()
                await node.ticks(1.0)
                assert agent.asked == ["/v1/tasks"]
                containerd.emit("create", ID, ME, "moby")
                await until(lambda: ID in node.gather.nameless)
                await node.ticks(4.0)
                assert node.owner(cgroup) == WEB
                assert node.gather.nameless == {OTHER}
                containerd.emit("exit", OTHER, ME, "moby")
                await until(lambda: not node.gather.nameless)
                asked = len(agent.asked)
                await node.ticks()
                assert len(agent.asked) == asked

        asyncio.run(follow())


def test_an_ecs_agent_that_was_never_there_is_not_missed(tmp_path):
    """Most nodes have none; one that has answered is."""
    with serving(dict(ECS)) as agent:
        node = Node(tmp_path, ecs_introspection=agent.url)
        node.container(ID, path="ecs/t1/{}")

        async def follow():
            async with node.running():
                agent.mood = 500
                await node.ticks()
                assert "ecs" not in node.faults.sources_up
                agent.mood = "ok"
                await node.ticks()
                assert node.faults.sources_up["ecs"] is True
                agent.answers["/v1/tasks"] = b"<html>"
                await node.ticks()
                assert node.faults.sources_up["ecs"] is False
                assert node.faults.errors["source", "ecs"] == 1

        asyncio.run(follow())


@pytest.mark.parametrize(
    "answer", [b"[" * 9999, b"{}", b'{"Tasks": 5}', b'{"Tasks": [5, {}]}', b""]
)
def test_what_the_ecs_agent_says_wrong_costs_its_names_alone(tmp_path, answer):
    """Containers keep the name that their cgroup gives them."""
    with serving({"/v1/tasks": answer}) as agent:
        node = Node(tmp_path, ecs_introspection=agent.url)
        cgroup = node.container(ID)

        async def follow():
            async with node.running():
                for _ in range(2):
                    await node.ticks()
                    assert node.owner(cgroup) == Workload("container", workload=ID[:12])

        asyncio.run(follow())


def cni(*ips, trunk=False):
    """What the VPC CNI's daemon says."""
    cidrs = {
        f"{ip}/32": {
            "IPAddresses": {
                ip: {
                    "Address": ip,
                    "IPAMMetadata": {"k8sPodNamespace": "shop", "k8sPodName": "web-1"},
                    "AssignedTime": "2024-01-01T00:00:00Z",
                    "UnassignedTime": "0001-01-01T00:00:00Z",
                }
            }
        }
        for ip in ips
    }
    eni = {"ID": "eni-0a1b2c3d4e5f60718", "IsPrimary": True, "IsTrunk": trunk,
           "AvailableIPv4Cidrs": cidrs}  # fmt: skip
    return {"ENIs": {eni["ID"]: eni}}


def test_the_cni_is_asked_now_and_then(tmp_path):
    """Twice a minute where there is one; where there is none, once in five minutes."""
    found = cni("10.0.0.9", trunk=True)
    with serving({"/v1/enis": found}) as daemon, DockerServer(tmp_path / "docker.sock"):
        node = Node(tmp_path, cni_introspection=daemon.url)

        async def follow():
            async with node.running():
                await until(up(node, "docker"))
                node.now_s -= 5
                daemon.mood = 404
                for after_s, asked in ((5, 1), (299, 1), (1, 2)):
                    await node.ticks(after_s)
                    assert len(daemon.asked) == asked
                assert "cni" not in node.faults.sources_up
                daemon.mood = "ok"
                await node.ticks(300)
                assert (node.faults.sources_up["cni"], len(node.facts)) == (True, 1)
                daemon.mood = 500
                for after_s, asked in ((29, 3), (1, 4), (30, 5)):
                    await node.ticks(after_s)
                    assert len(daemon.asked) == asked
                assert node.faults.sources_up["cni"] is False

        asyncio.run(follow())
    facts = node.facts[0]
    assert facts.trunks == {"eni-0a1b2c3d4e5f60718"}
    assert facts.addresses["10.0.0.9"].pod == "web-1"


def test_one_question_at_a_time(tmp_path):
    """An ECS agent that hangs is not asked again meanwhile, and does not hold the end."""
    with serving(dict(ECS)) as agent:
        agent.mood = "silent"
        node = Node(tmp_path, ecs_introspection=agent.url)
        node.container(ID)

        async def follow():
            node.sources.start(asyncio.get_running_loop())
            for _ in range(4):
                node.now_s += 5
                node.sources.tick()
                await asyncio.sleep(0.05)
            await until(lambda: agent.asked)
            assert agent.asked == ["/v1/tasks"]
            began_s = time.monotonic()
            await node.sources.stop()
            assert time.monotonic() - began_s < 1
            agent.ended.set()

        asyncio.run(follow())


def test_a_start_that_failed_can_be_stopped(tmp_path):
    """Before anything was followed, and twice."""
    node = Node(tmp_path)
    asyncio.run(node.sources.stop())
    asyncio.run(node.sources.stop())


def test_what_is_said_after_the_end_is_heard_by_nobody(tmp_path):
    """A thread that was late finds the loop closed: no error, and nothing happens."""
    node = Node(tmp_path)

    async def follow():
        async with node.running():
            pass

    asyncio.run(follow())
    node.sources.seen("docker", Seen(ID, WEB, ME))
    node.sources.listed("docker", (Seen(ID, WEB, ME),))
    node.sources.ended("docker", ID)
    node.sources.answered("docker", True, "")
    node.sources.branches(())
    assert node.workloads.running == frozenset()


class Asked(Placer):
    """Places, and who was asked for."""

    def __init__(self, cgroups):
        super().__init__(cgroups, lambda _: None)
        self.of = []

    def place(self, container_id, pid):
        """Looked up as ever."""
        self.of.append((container_id, pid))
        return super().place(container_id, pid)


def test_a_place_is_looked_up_once(tmp_path):
    """A list that comes again asks only for what is new, has another pid, or was not all known."""
    node = Node(tmp_path)
    placer = node.sources._placer = Asked(CgroupTree(node.root))
    node.container(ID)
    both = (Seen(ID, WEB, ME), Seen(OTHER, WEB, ME))

    async def lists():
        node.sources._loop = asyncio.get_running_loop()
        node.sources.listed("containerd", both)
        node.container(OTHER)  # until now it had no cgroup
        node.sources.listed("containerd", both)
        assert [(ID, ME), (OTHER, ME), (OTHER, ME)] == placer.of
        node.sources.listed("containerd", (Seen(ID, WEB, os.getppid()), both[1]))
        assert (ID, os.getppid()) == placer.of[-1]
        assert len(placer.of) == 4
        node.sources.listed("containerd", both[1:])
        node.sources.listed("containerd", both)
        assert [(ID, ME)] == placer.of[4:]

    asyncio.run(lists())
