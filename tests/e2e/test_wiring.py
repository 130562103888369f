"""Attribution where the easy way is taken away."""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from tests.lab.agent import Agent, rows
from tests.lab.containers import Container
from tests.lab.lab import Lab

RESOLVER = "10.53.0.2"


def route_to(lab: Lab, container: Container, address: str) -> str:
    """Give a container without a network a routed veth, as a CNI does; the host side's name."""
    host = f"eni{container.id[:11]}"
    pod = ["nsenter", f"--net=/proc/{container.pid}/ns/net"]
    lab.node_exec(
        ["ip", "link", "add", host, "type", "veth", "peer", "eth0", "netns", str(container.pid)]
    )
    lab.node_exec(["ip", "link", "set", host, "up"])
    lab.node_exec(["ip", "route", "add", f"{address}/32", "dev", host])
    for argv in (
        ["ip", "addr", "add", f"{address}/32", "dev", "eth0"],
        ["ip", "link", "set", "eth0", "up"],
        ["ip", "route", "add", "169.254.1.1", "dev", "eth0"],
        ["ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0"],
    ):
        lab.node_exec([*pod, *argv])
    lab.node_exec(["sysctl", "-qw", f"net.ipv4.conf.{host}.proxy_arp=1"])
    return host


def accept_everything(lab: Lab, interface: str, prio: int) -> None:
    """Put a foreign filter with a final verdict on a veth, as a network policy agent does."""
    argv = [sys.executable, "-m", "tests.lab.foreign", interface, "ingress", str(prio), "0x1"]
    lab.node_exec(argv)


@pytest.mark.parametrize(("mode", "prio"), [("tcx", 1), ("clsact", 1), ("clsact", 2)])
def test_a_final_verdict_after_ours_loses_the_tag_but_not_the_task(
    lab: Lab, mode: str, prio: int
) -> None:
    """TC_ACT_OK after our program wipes the tag; the veth the packet came in by names the task."""
    one = lab.run_task("policed", network="none")
    host = route_to(lab, one, "10.53.2.77")
    accept_everything(lab, host, prio)
    with Agent(lab, env={"ENI53_ATTACH": mode}) as agent:
        before = lab.counters()["ens5_ip_udp_resolver"]
        one.send("udp", "--to", RESOLVER, "--count", "1009")
        assert lab.counters()["ens5_ip_udp_resolver"] - before == 1009
        found = rows(agent.settled(packets=1009))

        assert found == {("ecs_task", "prod", f"policed:42/{one.task_id}", "app"): 1009}
        assert agent.total("eni53_agent_tag_lost_packets_total") == 1009
    one.remove()


def test_two_containers_of_one_task_are_told_apart(lab: Lab) -> None:
    """Containers that share a namespace are told apart by their cgroups, to the packet."""
    task_id = "0123456789abcdef0123456789abcdef"
    web = lab.run_task("shop", container="web", task_id=task_id)
    side = lab.run_task("shop", container="sidecar", task_id=task_id, network=f"container:{web.id}")
    with Agent(lab) as agent:
        web.send("udp", "--to", RESOLVER, "--count", "211")
        side.send("udp", "--to", RESOLVER, "--count", "89")
        found = rows(agent.settled(packets=300))

        task = ("ecs_task", "prod", f"shop:42/{task_id}")
        assert found == {(*task, "web"): 211, (*task, "sidecar"): 89}
    side.remove()
    web.remove()


def test_host_mode_container_and_host_service(lab: Lab) -> None:
    """A container in the host's namespace is known by its cgroup, a service by its unit."""
    one = lab.run_task("hostly", network="host")
    with Agent(lab) as agent:
        one.send("udp", "--to", RESOLVER, "--count", "71")
        lab.start_send(
            "udp", "--to", RESOLVER, "--count", "67", cgroup="/system.slice/chronyd.service"
        ).communicate()
        found = rows(agent.settled(packets=138))

        assert found == {
            ("ecs_task", "prod", f"hostly:42/{one.task_id}", "app"): 71,
            ("host", "", "chronyd.service", ""): 67,
        }
    one.remove()


def test_without_docker_the_cgroup_names_the_container(lab: Lab) -> None:
    """No Docker socket: said once, every packet counted, the container named by its id."""
    one = lab.run_task("checkout")
    with Agent(lab, docker=False) as agent:
        one.send("udp", "--to", RESOLVER, "--count", "97")
        found = rows(agent.settled(packets=97, timeout=20))

        assert found == {("container", "", one.id[:12], ""): 97}
        assert agent.log.read_text().count("source_down") == 1
    one.remove()


def test_docker_that_talks_garbage(lab: Lab, tmp_path: object) -> None:
    """Something else on Docker's socket costs the names and nothing more."""
    path = str(lab.directory / "garbage.sock")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(8)

    def talk() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            client.sendall(b"\x00\xff not http at all\r\n\r\n{]")
            client.close()

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        with Agent(lab, "--docker-socket", path) as agent:
            lab.send("udp", "--to", RESOLVER, "--count", "59")
            snapshot = agent.settled(packets=59)
            assert snapshot["enis"][0]["packets"] == 59
            assert agent.total("eni53_agent_source_up", source="docker") == 0
            assert "Traceback" not in agent.log.read_text()
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()
