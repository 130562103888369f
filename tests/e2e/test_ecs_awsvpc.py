"""ECS tasks with an ENI of their own: each is counted where it is, in the task's namespace."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.awsvpc import AwsvpcTask
from tests.lab.lab import Lab
from tests.lab.shell import sender

RESOLVER, RESOLVER6, ELSEWHERE = vpc.RESOLVER, vpc.RESOLVER6, vpc.ELSEWHERE4
LIMIT_PPS = 700
LIMITS = {
    "ENI53_LIMIT_PER_ENI": ",".join(
        f"{vpc.task_eni(number).eni_id}={LIMIT_PPS}" for number in range(1, 100)
    )
}
# All that is counted, whatever it is; each packet to these is in one of them only.
EVERYTHING = ("ip_linklocal", "ip6_linklocal", "ip_udp_dns_other", "ip_tcp_dns_other")

Charged = dict[tuple[str, str, str, str], int]
Entry = dict[str, Any]


@pytest.fixture(scope="module")
def shared(lab: Lab) -> Iterator[Agent]:
    """The agent of the tests that only bring tasks up and down beside it."""
    agent = Agent(lab, env=LIMITS)
    yield agent
    put_away(agent)


@pytest.fixture
def agent(shared: Agent) -> Iterator[Agent]:
    """The shared one, running."""
    if shared.process is None or shared.process.poll() is not None:
        shared.start()
    yield shared
    assert "Traceback" not in shared.log.read_text()


@pytest.fixture
def alone(shared: Agent, lab: Lab) -> Lab:
    """The lab without the shared agent: the test has one of its own."""
    put_away(shared)
    return lab


def put_away(agent: Agent) -> None:
    """Stop it if it runs."""
    if agent.process is not None and agent.process.poll() is None:
        assert agent.stop() == 0


def until(condition: Callable[[], bool], timeout: float = 20) -> bool:
    """Whether *condition* comes true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def entry(agent: Agent, label: str) -> Entry | None:
    """The one ENI of that label in the newest snapshot."""
    found = [eni for eni in agent.snapshot()["enis"] if eni["eni"] == label]
    assert len(found) <= 1, found
    return found[0] if found else None


def charged(eni: Entry) -> Charged:
    """Packets by (kind, namespace, workload, container)."""
    keys = ("kind", "namespace", "workload", "container")
    return {tuple(row[key] for key in keys): row["packets"] for row in eni["workloads"]}  # type: ignore[misc]


def settled(agent: Agent, label: str, packets: int) -> Entry:
    """That ENI, once it has so many packets and nothing waits for its name."""
    newest: list[Entry | None] = [None]

    def reached() -> bool:
        newest[0] = eni = entry(agent, label)
        return (
            eni is not None
            and eni["packets"] >= packets
            and all(row["workload"] != "pending" for row in eni["workloads"])
        )

    assert until(reached), newest[0] or agent.snapshot()
    assert newest[0] is not None
    return newest[0]


def sent(task: AwsvpcTask) -> int:
    """What nftables has counted of it in all."""
    return sum(task.counted(what) for what in EVERYTHING)


def name(task: AwsvpcTask, container: str = "") -> tuple[str, str, str, str]:
    """The row of a container of a task."""
    return ("ecs_task", task.cluster, f"{task.family}:{task.revision}/{task.task_id}", container)


def inode(task: AwsvpcTask) -> int:
    """Of its network namespace."""
    return Path(f"/proc/{task.pid}/ns/net").stat().st_ino


def scrape(agent: Agent) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample; Prometheus refuses a scrape whole in which one comes twice."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample, labels, value in agent.metrics():
        series = (sample, tuple(sorted(labels.items())))
        assert series not in found
        found[series] = value
    return found


def filters(task: AwsvpcTask) -> str:
    """Every qdisc and filter in its namespace, as tc shows them."""
    shown = task.exec(["tc", "qdisc", "show"]).stdout
    for link in json.loads(task.exec(["ip", "-j", "link"]).stdout):
        for direction in ("ingress", "egress"):
            argv = ["tc", "filter", "show", "dev", link["ifname"], direction]
            shown += task.exec(argv, check=False).stdout
    return shown


def adds_up(agent: Agent, eni: Entry, packets: int) -> None:
    """The snapshot, its rows and the metrics all say *packets* of this ENI."""
    assert eni["packets"] == packets
    assert sum(charged(eni).values()) == packets
    assert agent.total("eni53_eni_packets_total", eni=eni["eni"]) == packets
    assert agent.total("eni53_workload_packets_total", eni=eni["eni"]) == packets


def test_two_containers_of_a_task_on_its_own_eni(lab: Lab, agent: Agent) -> None:
    """Each service in its class and each container by its name, on the ENI in the task's own
    namespace, as nftables counted it there; nothing of it on the node's.
    """
    nodes = {"class": "resolver", "eni": lab.enis[0].eni_id}
    before = agent.total("eni53_eni_packets_total", **nodes)
    task = lab.run_awsvpc_task(containers=("app", "log"))
    app, log = task.containers["app"], task.containers["log"]
    app.send("udp", "--to", RESOLVER, "--count", "1009")
    log.send("udp", "--to", RESOLVER6, "--count", "307")
    app.send("tcp", "--to", RESOLVER, "--count", "23")
    log.send("imds", "--to", vpc.IMDS4, "--count", "7")
    app.send("udp", "--to", ELSEWHERE, "--count", "31")
    log.send("ntp", "--to", vpc.NTP6, "--count", "37")
    app.send("icmp", "--to", RESOLVER, "--count", "41")
    eni = settled(agent, task.eni.eni_id, sent(task))

    adds_up(agent, eni, sent(task))
    assert (eni["mac"], eni["interface"]) == (task.eni.mac, "eth0")
    assert (eni["netns"], eni["limit_pps"]) == (f"net:[{inode(task)}]", LIMIT_PPS)
    assert {found: count["packets"] for found, count in eni["classes"].items()} == {
        "resolver": 1009 + 307 + task.counted("ip_tcp_resolver"),
        "dns_other": 31,
        "imds": task.counted("ip_imds"),
        "ntp": 37,
        "linklocal_other": 41,
    }
    rows = charged(eni)
    assert rows.keys() <= {name(task, "app"), name(task, "log"), name(task)}
    # TCP's last ACK may come from a socket that no longer exists: then no container is named.
    last_acks = rows.get(name(task), 0)
    assert last_acks <= 23 + 7
    assert rows[name(task, "log")] <= 307 + 37 + task.counted("ip_imds")
    assert rows[name(task, "log")] >= 307 + 37 + task.counted("ip_imds") - last_acks
    assert agent.total("eni53_eni_packets_total", **nodes) == before
    task.remove()


def test_the_eni_comes_after_the_pause_container(lab: Lab, agent: Agent) -> None:
    """Its namespace is watched from the pause container on; when the ENI has come and a container
    begins with a burst, the very first packet is counted on that container.
    """
    task = lab.awsvpc_task(family="late")
    task.start_pause()
    time.sleep(1.5)  # the agent has looked, and found lo alone
    assert entry(agent, task.eni.eni_id) is None
    task.plug_eni()
    assert until(lambda: filters(task).count("eni53:") == 2)
    burst = sender("udp", "--to", RESOLVER, "--count", "61", "--warm", "0", at="/lab")
    task.start_container("app", command=burst)
    eni = settled(agent, task.eni.eni_id, 61)

    assert sent(task) == 61
    adds_up(agent, eni, 61)
    assert charged(eni) == {name(task, "app"): 61}
    task.remove()


def test_three_tasks_whose_interfaces_have_the_same_number(lab: Lab, agent: Agent) -> None:
    """Numbers of interfaces say nothing across namespaces; each task keeps its own packets."""
    tasks = [lab.run_awsvpc_task(family=f"same{n}", ecs_bridge=False) for n in range(3)]
    indexes = [
        next(
            link["ifindex"]
            for link in json.loads(task.exec(["ip", "-j", "link"]).stdout)
            if link["ifname"] == "eth0"
        )
        for task in tasks
    ]
    assert len(set(indexes)) == 1
    counts = (401, 503, 607)
    running = [
        task.containers["app"].start_send("udp", "--to", RESOLVER, "--count", str(count))
        for task, count in zip(tasks, counts, strict=True)
    ]
    for process in running:
        process.communicate()

    for task, count in zip(tasks, counts, strict=True):
        assert sent(task) == count
        eni = settled(agent, task.eni.eni_id, count)
        adds_up(agent, eni, count)
        assert charged(eni) == {name(task, "app"): count}
    scrape(agent)
    for task in tasks:
        task.remove()


def test_a_process_of_no_container_in_the_namespace(lab: Lab, agent: Agent) -> None:
    """What somebody on the node sends from within a task's namespace leaves by the task's ENI: it
    counts as the task's, and as no container's when there are two.
    """
    task = lab.run_awsvpc_task(family="entered", containers=("app", "log"))
    task.containers["app"].send("udp", "--to", RESOLVER, "--count", "43")
    task.exec(sender("udp", "--to", RESOLVER, "--count", "67"))
    eni = settled(agent, task.eni.eni_id, 110)

    assert sent(task) == 110
    adds_up(agent, eni, 110)
    assert charged(eni) == {name(task, "app"): 43, name(task): 67}
    task.remove()


def test_the_metadata_service_learns_of_it_late_or_never(lab: Lab, agent: Agent) -> None:
    """A moment late: the ENI's id is its label all the same. Never: its MAC is, and the limit that
    was configured for the id cannot apply.
    """
    late = lab.awsvpc_task(family="late-id", in_imds=False)
    late.start_pause()
    late.plug_eni()
    late.tell_imds()
    never = lab.run_awsvpc_task(family="no-id", in_imds=False)
    never.containers["app"].send("udp", "--to", RESOLVER, "--count", "53")
    late.start_container("app").send("udp", "--to", RESOLVER, "--count", "59")

    eni = settled(agent, late.eni.eni_id, 59)
    adds_up(agent, eni, 59)
    assert eni["limit_pps"] == LIMIT_PPS
    eni = settled(agent, f"mac:{never.eni.mac}", 53)
    adds_up(agent, eni, 53)
    assert (eni["limit_pps"], charged(eni)) == (1024, {name(never, "app"): 53})
    late.remove()
    never.remove()


def test_a_task_that_vanishes_leaves_its_last_packets(lab: Lab, agent: Agent) -> None:
    """Nothing of ours keeps its namespace alive, and what it sent in its last moment is in the
    snapshot and in the next scrapes, though its ENI is gone.
    """
    task = lab.run_awsvpc_task(family="brief")
    assert until(lambda: entry(agent, task.eni.eni_id) is not None)
    task.containers["app"].send("udp", "--to", RESOLVER, "--count", "71", "--settle", "0")
    begin = time.monotonic()
    task.vanish()
    assert time.monotonic() - begin < 15
    eni = settled(agent, task.eni.eni_id, sent(task))

    # Nothing is closed without an answer coming after it: an ICMP error may have got out.
    assert task.counted("ip_udp_resolver") == 71
    adds_up(agent, eni, sent(task))
    assert charged(eni)[name(task, "app")] >= 71
    time.sleep(3)
    adds_up(agent, settled(agent, task.eni.eni_id, sent(task)), sent(task))
    scrape(agent)


def test_tasks_that_end_before_their_eni_has_a_name(lab: Lab, agent: Agent) -> None:
    """The metadata service is asked for a while; a task that is over by then is shown all the same,
    and what the kernel keeps of it is given up with it.
    """
    tasks = [lab.awsvpc_task(family="hasty", in_imds=False) for _ in range(2)]
    for task in tasks:
        task.start_pause()
        task.plug_eni()
        assert until(lambda task=task: filters(task).count("eni53:") == 2)  # type: ignore[misc]
        task.exec(sender("udp", "--to", ELSEWHERE, "--count", "47", "--settle", "0"))
        task.vanish()
    for task in tasks:
        eni = settled(agent, f"mac:{task.eni.mac}", 47)
        assert sent(task) == 47
        adds_up(agent, eni, 47)
        assert charged(eni) == {name(task): 47}


def test_a_final_verdict_before_ours(lab: Lab, agent: Agent) -> None:
    """Somebody puts a filter before ours that lets everything pass for good: ours goes before it
    again, or the task's ENI would be counted no more.
    """
    task = lab.run_awsvpc_task(family="policed")
    assert until(lambda: entry(agent, task.eni.eni_id) is not None)
    task.exec([sys.executable, "-m", "tests.lab.foreign", "eth0", "egress", "1", "0x1"])
    show = ["tc", "filter", "show", "dev", "eth0", "egress"]

    def order() -> list[str]:
        lines = task.exec(show).stdout.splitlines()
        return [line.split(" handle ")[1].split()[0] for line in lines if " handle " in line]

    assert until(lambda: order() == ["0xe53", "0x1"]), order()
    task.containers["app"].send("udp", "--to", RESOLVER, "--count", "89")
    eni = settled(agent, task.eni.eni_id, 89)
    assert sent(task) == 89
    adds_up(agent, eni, 89)
    task.remove()


def test_an_eni_that_moves(alone: Lab) -> None:
    """On AWS an ENI is seen on the node before it moves into the task, and after. Counted there or
    not, it is one ENI and one set of series all along.
    """
    lab = alone
    known, later = (lab.awsvpc_task(family=f"moved{n}") for n in range(2))
    label, place = known.eni.eni_id, known.eni.node_interface
    known.attach_eni()
    # The label AL2023 gives, which stays when the name changes.
    lab.node_exec(["ip", "link", "property", "add", "dev", place, "altname", label])
    with Agent(lab, "--eni", "ens5", "--eni", label, env=LIMITS) as agent:

        def seen_in(netns: str, interface: str) -> bool:
            scrape(agent)
            eni = entry(agent, label)
            return eni is not None and (eni["netns"], eni["interface"]) == (netns, interface)

        assert seen_in("host", place)
        later.attach_eni()
        for task in (known, later):
            task.start_pause()
            task.plug_eni()
            scrape(agent)
            task.start_container("app").send("udp", "--to", RESOLVER, "--count", "73")
            eni = settled(agent, task.eni.eni_id, 73)
            adds_up(agent, eni, 73)
            assert (eni["interface"], eni["netns"]) == ("eth0", f"net:[{inode(task)}]")
            assert (eni["limit_pps"], charged(eni)) == (LIMIT_PPS, {name(task, "app"): 73})

        known.exec(["ip", "link", "set", "eth0", "netns", lab.node_ns, "name", "ecs025300"])
        # The lab's ENIs are veths, and for one of those more nobody looks for ENIs again.
        lab.node_exec(["ip", "link", "add", "nudge", "type", "bridge"])
        assert until(lambda: seen_in("host", "ecs025300"))
        lab.node_exec(["ip", "link", "delete", "nudge"])
        lab.node_exec(["ip", "link", "set", "ecs025300", "netns", str(known.pid), "name", "eth0"])
        for words in (
            "link set eth0 up",
            f"address add {known.eni.ipv4}/24 dev eth0",
            f"route add default via {vpc.GATEWAY} dev eth0",
        ):
            known.exec(["ip", *words.split()])
        assert until(lambda: seen_in(f"net:[{inode(known)}]", "eth0"))
        known.containers["app"].send("udp", "--to", RESOLVER, "--count", "79")
        eni = settled(agent, label, 79)
        adds_up(agent, eni, 79)
        assert charged(eni) == {name(known, "app"): 79}
        for task in (known, later):
            task.remove()
            scrape(agent)
            assert entry(agent, task.eni.eni_id) is not None
        assert "Traceback" not in agent.log.read_text()


def test_what_stays_in_a_namespace(alone: Lab) -> None:
    """A task that is there before the agent is counted. Kill -9 leaves our filters in its
    namespace; the next start replaces them and counts each packet once; SIGTERM leaves nothing of
    ours, there or in the runtime directory. A stranger's filter is there all along.
    """
    lab = alone
    task = lab.run_awsvpc_task(family="stays")
    app = task.containers["app"]
    other = lab.run_awsvpc_task(family="other")
    task.exec([sys.executable, "-m", "tests.lab.foreign", "eth0", "egress", "7", "0x2"])
    before, pristine = filters(task), filters(other)
    with Agent(lab) as agent:
        app.send("udp", "--to", RESOLVER, "--count", "79")
        eni = settled(agent, task.eni.eni_id, 79)
        adds_up(agent, eni, 79)
        assert charged(eni) == {name(task, "app"): 79}
        agent.kill()
        assert filters(task).count("eni53:") == 2
        agent.start()
        assert filters(task).count("eni53:") == 2
        assert "policy" in filters(task)
        app.send("udp", "--to", RESOLVER, "--count", "83")
        adds_up(agent, settled(agent, task.eni.eni_id, 83), 83)
        assert agent.stop() == 0
        assert filters(task) == before
        assert filters(other) == pristine
        assert agent.left() == []
        assert "Traceback" not in agent.log.read_text()
    assert sent(task) == 79 + 83
    task.remove()
    other.remove()


def test_tasks_that_end_in_different_ways_leave_no_file(alone: Lab) -> None:
    """One ends beside the agent, one vanishes beside it, one while it is down: no trace of any in
    the runtime directory once the agent has ended, and no ENI that is not there.
    """
    lab = alone
    ended, vanished, missed = (lab.run_awsvpc_task(family=f"end{n}") for n in range(3))
    with Agent(lab) as agent:
        for task in (ended, vanished, missed):
            assert until(lambda task=task: entry(agent, task.eni.eni_id) is not None)  # type: ignore[misc]
        ended.remove()
        vanished.vanish()
        time.sleep(1.5)
        agent.kill()
        missed.vanish()
        agent.start()
        lab.send("udp", "--to", RESOLVER, "--count", "89")
        node = settled(agent, lab.enis[0].eni_id, 89)
        assert node["classes"]["resolver"]["packets"] == 89
        gone = {task.eni.eni_id for task in (ended, vanished, missed)}
        assert gone.isdisjoint(eni["eni"] for eni in agent.snapshot()["enis"])
        assert agent.stop() == 0
        assert agent.left() == []
        assert "Traceback" not in agent.log.read_text()


def test_docker_answers_late(alone: Lab) -> None:
    """Only Docker tells which container holds a task's ENI. While it is down the node's own ENI is
    counted as ever and the task's is not known; from its first answer on it is, and nothing of
    before is made up.
    """
    lab = alone
    task = lab.run_awsvpc_task(family="patient")
    app = task.containers["app"]
    bridged = lab.run_task("bridged")
    socket = lab.directory / "late-docker.sock"
    try:
        with Agent(lab, "--docker-socket", str(socket)) as agent:
            app.send("udp", "--to", RESOLVER, "--count", "97")
            bridged.send("udp", "--to", RESOLVER, "--count", "101")
            nodes = {"class": "resolver", "eni": lab.enis[0].eni_id}
            assert until(lambda: agent.total("eni53_eni_packets_total", **nodes) == 101)
            assert entry(agent, task.eni.eni_id) is None
            assert agent.total("eni53_agent_source_up", source="docker") == 0

            socket.symlink_to(lab.docker_socket)
            assert until(lambda: entry(agent, task.eni.eni_id) is not None)
            app.send("udp", "--to", RESOLVER, "--count", "103")
            eni = settled(agent, task.eni.eni_id, 103)
            adds_up(agent, eni, 103)
            assert charged(eni) == {name(task, "app"): 103}
            assert agent.total("eni53_agent_source_up", source="docker") == 1
            assert "Traceback" not in agent.log.read_text()
    finally:
        socket.unlink(missing_ok=True)
    task.remove()
    bridged.remove()
