"""ECS tasks on Docker's bridge: who is charged when containers are brief, odd, hostile or nameless.

In each test the agent's rows are compared with the VPC's own counter: the sums are equal, to the
packet, and nobody has another's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab import brief, cgroups, remains, vpc
from tests.lab.agent import Agent
from tests.lab.audit import Audit, Row
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.shell import PYTHON, environment, in_netns, popen, sender

RESOLVER, ELSEWHERE = vpc.RESOLVER, vpc.ELSEWHERE4
MODES = ("hang", "503", "garbage", "truncated", "huge")
ROOM = {"ENI53_METRICS_MAX_WORKLOADS": "2000"}  # each brief task is a workload of its own


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab with an ECS agent on its node: elsewhere containers without Docker have no name."""
    with Lab(limit_pps=None) as lab:
        lab.start_introspection()
        yield lab


@pytest.fixture(scope="module")
def shared(own: Lab) -> Iterator[Agent]:
    """The agent of the tests that only have containers come and go beside it."""
    agent = Agent(own, env=ROOM)
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
def alone(shared: Agent, own: Lab) -> Lab:
    """The lab without the shared agent: the test has one of its own."""
    put_away(shared)
    return own


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
        time.sleep(0.05)
    return True


def row(container: Container, family: str, name: str = "app") -> Row:
    """Of a container that `Lab.run_task` started."""
    return ("ecs_task", "prod", f"{family}:42/{container.task_id}", name)


def short(container: Container) -> Row:
    """Of a container whose name nobody tells."""
    return ("container", "", container.id[:12], "")


# --- containers that live for a moment --------------------------------------------------------


TASKS = 120


def churn(lab: Lab, count: int, threads: int = 4) -> tuple[list[Row], float]:
    """Run so many, each of which asks 20 times at once and is gone; rows, and seconds."""
    # Until all is answered: an answer to one that is gone makes an ICMP error, one more packet.
    words = ("udp", "--to", RESOLVER, "--count", "20", "--warm", "0.01", "--settle", "5")
    begin = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        ids = list(pool.map(lambda _: brief.run(lab, "brief", *words), range(count)))
    rows: list[Row] = [("ecs_task", "prod", f"brief:1/{task_id}", "app") for task_id in ids]
    return rows, time.monotonic() - begin


def test_tasks_that_live_for_a_moment(own: Lab, agent: Agent) -> None:
    """With containerd and Docker a task is charged although it is gone before anybody could look:
    99 % or more of all packets, and never to another.
    """
    audit = Audit(own, agent)
    rows, seconds = churn(own, TASKS)  # so many that 99 % do not mean all
    found = audit.charged()
    right = sum(found.get(row, 0) for row in rows)
    reached = f"{len(rows) / seconds:.1f} containers/s, {right} of {audit.packets} right"

    assert audit.packets == TASKS * 20
    assert right >= 0.99 * audit.packets, (reached, found)
    assert all(found.get(row, 20) == 20 for row in rows), (reached, found)
    others = found.keys() - set(rows)
    assert {kind for kind, *_ in others} <= {"container", "unattributed"}, (reached, found)
    assert agent.total("eni53_agent_tag_lost_packets_total") == 0


@pytest.mark.parametrize("source", ["docker", "containerd"])
def test_brief_tasks_with_one_source_alone(alone: Lab, source: str) -> None:
    """Docker alone tells a name before the start and a place after it, which for some is too late;
    containerd alone tells no name. What is missed goes by a short id or by nobody, whole.
    """
    with Agent(
        alone, env=ROOM, docker=source == "docker", containerd=source == "containerd"
    ) as agent:
        audit = Audit(alone, agent)
        rows, seconds = churn(alone, 8)
        found = audit.charged(timeout=30)
        right = sum(found.get(row, 0) for row in rows)
        reached = f"{8 / seconds:.1f} containers/s, {right} of {audit.packets} right"

        assert audit.packets == 8 * 20
        assert all(found.get(row, 20) == 20 for row in rows), (reached, found)
        others = found.keys() - set(rows)
        assert {kind for kind, *_ in others} <= {"container", "unattributed"}, (reached, found)
        assert right >= (8 * 20 * 0.5 if source == "docker" else 0), (reached, found)
        assert "Traceback" not in agent.log.read_text()


# --- sockets that are not what they seem ------------------------------------------------------


def test_dockers_own_resolver_and_two_containers(own: Lab, agent: Agent) -> None:
    """On a network of the user's, 127.0.0.11 asks with dockerd's cgroup from the task's namespace:
    the task is right, and of two containers none is named. What they ask by themselves, in a
    `docker exec`, is each one's own.
    """
    own.docker("network", "create", "users")
    web = own.run_task("users", container="web", network="users")
    side = own.run_task(
        "users", container="side", task_id=web.task_id, network=f"container:{web.id}"
    )
    audit = Audit(own, agent)
    ask = (
        "import socket,sys; [socket.gethostbyname(f'{sys.argv[1]}{n}.lab.test') for n in range(9)]"
    )
    web.exec([PYTHON, "-I", "-c", ask, "web"])
    side.exec([PYTHON, "-I", "-c", ask, "side"])
    web.send("udp", "--to", RESOLVER, "--count", "23")
    side.send("udp", "--to", RESOLVER, "--count", "29")
    found = audit.charged()

    embedded = audit.packets - 23 - 29
    assert embedded >= 2 * 9
    assert found == {
        row(web, "users", "web"): 23,
        row(web, "users", "side"): 29,
        row(web, "users", ""): embedded,
    }
    side.remove()
    web.remove()
    own.docker("network", "rm", "users")


# Sends 13 once it has moved to another cgroup, by a socket from before, and 17 by one from after.
_MOVED = """
import pathlib, socket, sys, time
query = b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\5moved\\4test\\0\\0\\1\\0\\1"
def send(sock, count):
    for _ in range(count):
        sock.sendto(query, (sys.argv[1], 53))
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
before = open("/proc/self/cgroup").read()
pathlib.Path("/tmp/ready").touch()
while open("/proc/self/cgroup").read() == before:
    time.sleep(0.02)
send(old, 13)
send(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 17)
"""


def test_a_process_that_is_moved_to_another_cgroup(own: Lab, agent: Agent) -> None:
    """A socket keeps the cgroup it was made in: its container's. One made afterwards has a foreign
    one, and the namespace still tells the task.
    """
    web = own.run_task("mover", container="web")
    side = own.run_task(
        "mover", container="side", task_id=web.task_id, network=f"container:{web.id}"
    )
    audit = Audit(own, agent)
    process = web.popen([PYTHON, "-I", "-c", _MOVED, ELSEWHERE])
    inside = cgroups.unified() / f"ecs/{web.task_id}/{web.id}/cgroup.procs"

    assert until(Path(f"/proc/{web.pid}/root/tmp/ready").exists)
    pid = max(int(word) for word in inside.read_text().split())
    foreign = f"/eni53-foreign-{own.id}"
    remains.note_cgroup(own.id, foreign)
    (cgroups.unified() / foreign[1:]).mkdir()
    (cgroups.unified() / foreign[1:] / "cgroup.procs").write_text(str(pid))
    process.communicate()

    assert audit.packets == 30
    assert audit.charged() == {row(web, "mover", "web"): 13, row(web, "mover", ""): 17}
    cgroups.remove(foreign)
    side.remove()
    web.remove()


# Closes each connection a moment after the client has, so that FIN and ACK are two packets.
_SLOW_CLOSER = """
import socket, sys, time
with socket.create_server((sys.argv[1], 53)) as server:
    print("up", flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            while connection.recv(100):
                pass
            time.sleep(0.1)
"""
_FIRST_CLOSER = """
import socket, sys
for _ in range(9):
    with socket.create_connection((sys.argv[1], 53)) as connection:
        connection.sendall(b"12345678")
"""


def test_tcp_whose_last_word_has_no_socket(own: Lab, agent: Agent) -> None:
    """A client that closes first acknowledges the server's FIN out of TIME_WAIT, where there is no
    socket and no cgroup: such a packet is the task's, and no container's when there are two.
    """
    web = own.run_task("closer", container="web")
    side = own.run_task(
        "closer", container="side", task_id=web.task_id, network=f"container:{web.id}"
    )
    server = popen(
        [*in_netns(own.vpc_ns), PYTHON, "-I", "-c", _SLOW_CLOSER, vpc.GATEWAY], environment(own.id)
    )
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        audit = Audit(own, agent)
        web.exec([PYTHON, "-I", "-c", _FIRST_CLOSER, vpc.GATEWAY])
        time.sleep(0.5)  # the last FIN comes after the client's end
        found = audit.charged()
        server.kill()

    # SYN, ACK, data, FIN; then the ACK of the server's FIN.
    assert found == {row(web, "closer", "web"): audit.packets - 9, row(web, "closer", ""): 9}
    assert audit.packets >= 9 * 5
    side.remove()
    web.remove()


# --- veths that come again --------------------------------------------------------------------


def test_a_restarted_container(own: Lab, agent: Agent) -> None:
    """`docker restart`: another process, namespace and veth, and no create event. It begins with a
    burst each time, and each burst is its own.
    """
    burst = " ".join(sender("udp", "--to", RESOLVER, "--count", "31", "--warm", "0.01", at="/lab"))
    audit = Audit(own, agent)
    one = own.run_task("again", command=["/bin/sh", "-c", f"{burst}; exec sleep 1000"])
    assert until(lambda: audit.packets == 31)
    for times in (2, 3):
        own.docker("restart", "-t", "0", one.id)
        assert until(lambda times=times: audit.packets == times * 31)  # type: ignore[misc]

    assert audit.charged() == {row(one, "again"): 3 * 31}
    one.remove()


def test_a_veth_with_its_old_name_and_a_new_number(own: Lab, agent: Agent) -> None:
    """Names of veths are made from what they belong to, so they come again: first to the same
    container, then to another one. Each time it is another interface.
    """
    one, two = (own.run_task(family, network="none") for family in ("first", "second"))
    audit = Audit(own, agent)
    indexes = set()
    for container, count in ((one, 37), (one, 41), (two, 43)):
        own.node_exec(["ip", "link", "delete", "samename"], check=False)
        indexes.add(route_to(own, container, "samename"))
        words = ("--wait-answers", "--strict")  # what is not answered is not all sent yet
        container.send("udp", "--to", RESOLVER, "--count", str(count), *words)

    assert len(indexes) == 3
    assert audit.charged() == {row(one, "first"): 37 + 41, row(two, "second"): 43}
    own.node_exec(["ip", "link", "delete", "samename"])
    one.remove()
    two.remove()


def route_to(lab: Lab, container: Container, host: str) -> int:
    """Give a container without a network a routed veth; index of the host's end."""
    inside = ["nsenter", f"--net=/proc/{container.pid}/ns/net", "ip"]
    peer = ["type", "veth", "peer", "eth0", "netns", str(container.pid)]
    lab.node_exec(["ip", "link", "add", host, *peer])
    settings = (f"net.ipv4.conf.{host}.proxy_arp=1", f"net.ipv4.neigh.{host}.proxy_delay=0")
    lab.node_exec(["sysctl", "-qw", *settings])
    lab.node_exec(["ip", "link", "set", host, "up"])
    lab.node_exec(["ip", "route", "add", "10.53.2.99/32", "dev", host])
    for words in (
        "addr add 10.53.2.99/32 dev eth0",
        "link set eth0 up",
        "route add 169.254.1.1 dev eth0",
        "route add default via 169.254.1.1 dev eth0",
    ):
        lab.node_exec([*inside, *words.split()])
    [link] = json.loads(lab.node_exec(["ip", "-j", "link", "show", host]).stdout)
    return int(link["ifindex"])


def test_frames_whose_senders_are_lies(own: Lab, agent: Agent) -> None:
    """A container may send any frame it likes: other MACs, other tasks' addresses, the resolver's,
    VLAN tags. It makes no ENI and no series but its own, and all that gets out is charged to it.
    """
    victim, liar = own.run_task("victim"), own.run_task("liar")
    victim.send("udp", "--to", RESOLVER, "--count", "7")
    liar.send("udp", "--to", RESOLVER, "--count", "5")
    audit = Audit(own, agent)
    audit.charged()
    before = {tuple(sorted(labels.items())) for _, labels, _ in agent.metrics()}
    enis = [eni["eni"] for eni in agent.snapshot()["enis"]]
    [bridge] = json.loads(own.node_exec(["ip", "-j", "link", "show", "docker0"]).stdout)
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    addresses = [own.docker("inspect", "-f", template, c.id) for c in (liar, victim)]
    words = ["eth0", bridge["address"], addresses[0], ELSEWHERE, addresses[1], "40"]
    frames = int(liar.exec([PYTHON, "-I", "/lab/forge.py", *words]).stdout)
    time.sleep(1)

    assert frames == 8 * 40
    # Five of the eight kinds are plain IP on the bridge and must have got out, whatever they claim.
    assert 5 * 40 <= audit.packets <= frames
    assert audit.charged() == {row(liar, "liar"): audit.packets}
    assert [eni["eni"] for eni in agent.snapshot()["enis"]] == enis
    after = {tuple(sorted(labels.items())) for _, labels, _ in agent.metrics()}
    new = [dict(labels) for labels in after - before]
    assert all(labels.get("workload") == row(liar, "liar")[2] for labels in new if "kind" in labels)
    assert all("eni" not in labels or labels["eni"] in enis for labels in new)
    liar.remove()
    victim.remove()


# --- names from elsewhere, or from nowhere ----------------------------------------------------


def test_the_ecs_agent_names_what_containerd_only_numbers(alone: Lab) -> None:
    """Without Docker the ECS agent tells the names. However badly it answers, it costs names and
    nothing more; when it is well again, what runs gets its name.
    """
    lab = alone
    early = lab.run_task("early")
    hurt: list[Container] = []
    try:
        with Agent(lab, docker=False) as agent:
            assert until(lambda: agent.total("eni53_agent_source_up", source="ecs") == 1)
            audit = Audit(lab, agent)
            early.send("udp", "--to", RESOLVER, "--count", "61")
            assert audit.charged() == {row(early, "early"): 61}

            for mode in MODES:
                lab.introspection.set_mode(mode, server="ecs")
                hurt.append(lab.run_task("hurt"))
                asked = requests(lab)
                hurt[-1].send("udp", "--to", RESOLVER, "--count", "67")
                if mode == "hang":  # it says nothing of a request that it does not answer
                    assert until(lambda: agent.total("eni53_agent_source_up", source="ecs") == 0)
                else:
                    assert until(lambda asked=asked: requests(lab) > asked)  # type: ignore[misc]
                assert agent.get("/healthz").strip() == "ok"
            expected = {short(container): 67 for container in hurt} | {row(early, "early"): 61}
            assert audit.charged() == expected
            assert agent.total("eni53_agent_source_up", source="ecs") == 0

            lab.introspection.set_mode("ok")
            assert until(lambda: agent.total("eni53_agent_source_up", source="ecs") == 1)
            audit = Audit(lab, agent)
            for container in hurt:
                container.send("udp", "--to", RESOLVER, "--count", "71")
            assert audit.charged() == {row(container, "hurt"): 71 for container in hurt}
            assert "Traceback" not in agent.log.read_text()
    finally:
        lab.introspection.set_mode("ok")
    for container in (early, *hurt):
        container.remove()


def requests(lab: Lab) -> int:
    """How many the ECS agent has answered, in whatever way."""
    lines = (lab.directory / "introspection.log").read_text().splitlines()
    return sum(line.startswith("ecs ") for line in lines)


def test_the_cgroup_tree_and_the_ecs_agent_alone(alone: Lab) -> None:
    """No runtime answers at all: the tree says which containers there are and where, the ECS agent
    what they are called; two of one task are told apart still.
    """
    web = alone.run_task("treed", container="web")
    side = alone.run_task(
        "treed", container="side", task_id=web.task_id, network=f"container:{web.id}"
    )
    plain = alone.run_container("plain")
    with Agent(alone, docker=False, containerd=False) as agent:
        assert until(lambda: agent.total("eni53_agent_source_up", source="ecs") == 1)
        audit = Audit(alone, agent)
        web.send("udp", "--to", RESOLVER, "--count", "73")
        side.send("udp", "--to", RESOLVER, "--count", "79")
        plain.send("udp", "--to", RESOLVER, "--count", "83")

        assert audit.charged() == {
            row(web, "treed", "web"): 73,
            row(web, "treed", "side"): 79,
            short(plain): 83,
        }
        assert "Traceback" not in agent.log.read_text()
    for container in (plain, side, web):
        container.remove()


def test_a_machine_without_cgroup_version_2(alone: Lab) -> None:
    """Version 1 alone: the namespace behind the veth still names the task, its only container if
    there is one; a process of the host is nobody's. `check` says so.
    """
    web = alone.run_task("older", container="web")
    side = alone.run_task(
        "older", container="side", task_id=web.task_id, network=f"container:{web.id}"
    )
    single = alone.run_task("single")
    unmount = f'umount {cgroups.unified()} && exec "$@"'
    wrap = ["unshare", "-m", "--propagation", "private", "/bin/sh", "-c", unmount, "sh"]
    with Agent(alone, wrap=wrap) as agent:
        audit = Audit(alone, agent)
        web.send("udp", "--to", RESOLVER, "--count", "89")
        side.send("udp", "--to", RESOLVER, "--count", "97")
        single.send("udp", "--to", RESOLVER, "--count", "101")
        alone.send("udp", "--to", RESOLVER, "--count", "103")

        assert audit.charged() == {
            row(web, "older", ""): 89 + 97,
            row(single, "single"): 101,
            ("unattributed", "", "", ""): 103,
        }
        checks = json.loads(agent.run("check", "--json", check=False).stdout)["checks"]
        [item] = [item for item in checks if item["name"] == "cgroup v2"]
        assert (item["status"], item["detail"]) == ("warn", "not mounted")
        assert "without the container" in item["mend"]
        assert "Traceback" not in agent.log.read_text()
    for container in (single, side, web):
        container.remove()
