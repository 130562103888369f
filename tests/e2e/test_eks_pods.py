"""Pods as EKS wires them: charged by pod and container, on the ENI they leave by."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.load import parse_sent
from tests.lab.pods import Pod
from tests.lab.shell import sender
from tests.lab.tally import Row, Tally, at_rest, until

MODES = ("tcx", "clsact")
RESOLVER, LINK_LOCAL = "10.53.0.2", "169.254.169.253"


@pytest.fixture(scope="module")
def node() -> Iterator[Lab]:
    """A node with two ENIs and containerd, in a VPC that drops nothing."""
    with Lab(pods=True, docker=False, enis=2, limit_pps=None) as lab:
        yield lab


def row(pod: Pod, container: str = "app") -> Row:
    """How a container of a pod is named."""
    return ("pod", pod.namespace, pod.name, container)


def burst(count: int, *, then: str = "exec sleep 86400") -> list[str]:
    """What a container runs whose first act is to ask."""
    asks = " ".join(sender("udp", "--to", RESOLVER, "--count", str(count), at="/lab"))
    return ["/bin/sh", "-c", f"{asks}; {then}"]


def of_pod(rows: dict[Row, int], pod: Pod) -> int:
    """All that a pod is charged with, whichever container."""
    return sum(count for owner, count in rows.items() if owner[:3] == row(pod)[:3])


@pytest.mark.parametrize("mode", MODES)
def test_two_containers_on_two_enis(node: Lab, mode: str) -> None:
    """VPC+2 by the pod's own ENI, un-NATed, and the link-local address by the primary, translated:
    the pod and the container are known on both, for pods older and younger than the agent.
    """
    old = node.run_pod("old", "shop", ("app", "side"), eni=1)
    with Agent(node, docker=False, env={"ENI53_ATTACH": mode}) as agent:
        tally = Tally(node)
        young = node.run_pod("young", "shop", ("app", "side"), eni=1)
        first = node.run_pod("first", "ops", ("app", "side"))
        expected: dict[str, dict[Row, int]] = {"ens5": {}, "ens6": {}}
        count = 100
        for pod in (old, young, first):
            for name, container in pod.containers.items():
                for to, interface in ((RESOLVER, pod.eni.interface), (LINK_LOCAL, "ens5")):
                    count += 1
                    container.send("udp", "--to", to, "--count", str(count), "--sockets", "3")
                    rows = expected[interface]
                    rows[row(pod, name)] = rows.get(row(pod, name), 0) + count

        assert tally.charged(agent) == expected
        assert agent.total("eni53_agent_tag_lost_packets_total") == 0
        assert agent.total("eni53_workload_sent_packets_total") == sum(tally.by_eni().values())
    for pod in (old, young, first):
        pod.remove()


@pytest.mark.parametrize("mode", MODES)
def test_tcp_is_the_pods_and_its_packets_without_a_socket_are_no_containers(
    node: Lab, mode: str
) -> None:
    """Each packet of a connection is the pod's; the container is right, or not said."""
    pods = [node.run_pod("web-1", containers=("app", "side"), eni=1), node.run_pod("web-2")]
    with Agent(node, docker=False, env={"ENI53_ATTACH": mode}) as agent:
        whole, sent = Tally(node), {}
        for pod in pods:
            for name, container in pod.containers.items():
                for to, interface in ((RESOLVER, pod.eni.interface), (LINK_LOCAL, "ens5")):
                    one = Tally(node)
                    assert container.send("tcp", "--to", to, "--count", "23").answered == 23
                    which = f"{interface}_ip_tcp_resolver"
                    sent[pod.name, name, interface] = at_rest(lambda: one.of(which))  # noqa: B023
        found = whole.charged(agent)

        assert all(packets >= 23 * 4 for packets in sent.values())
        web_1, web_2 = pods
        for interface in ("ens5", "ens6"):
            both = [sent["web-1", name, interface] for name in ("app", "side")]
            assert of_pod(found[interface], web_1) == sum(both)
            for name, most in zip(("app", "side"), both, strict=True):
                # At least what the process itself sent: SYN, its ACK, the question, the end.
                assert 23 * 3 <= found[interface][row(web_1, name)] <= most
        assert of_pod(found["ens5"], web_2) == found["ens5"][row(web_2)]
        assert set(found["ens6"]) <= {row(web_1, name) for name in ("app", "side", "")}
    for pod in pods:
        pod.remove()


@pytest.mark.parametrize(("mode", "many"), [("tcx", 30), ("clsact", 12)])
def test_many_pods_at_once_whose_first_act_is_a_burst(node: Lab, mode: str, many: int) -> None:
    """Also of those that have ended before anybody could look: no packet is another pod's."""

    def start(number: int) -> Pod:
        ends = "exec sleep 86400" if number % 3 else "exit 0"
        command = burst(50 + number, then=ends)
        return node.run_pod(f"job-{number}", "batch", command=command, eni=number % 2)

    with Agent(node, docker=False, env={"ENI53_ATTACH": mode}) as agent:
        tally = Tally(node)
        with ThreadPoolExecutor(8) as pool:
            pods = list(pool.map(start, range(many)))
            expected: dict[str, dict[Row, int]] = {"ens5": {}, "ens6": {}}
            for number, pod in enumerate(pods):
                expected[pod.eni.interface][row(pod)] = 50 + number

            packets = sum(50 + number for number in range(many))
            assert tally.charged(agent, packets=packets) == expected
            assert agent.total("eni53_agent_tag_lost_packets_total") == 0
            list(pool.map(Pod.remove, pods))


@pytest.mark.parametrize("mode", MODES)
def test_a_pod_of_the_same_name_and_one_in_its_place(node: Lab, mode: str) -> None:
    """A StatefulSet's pod comes again with the same veth name under another index, and is the same
    workload; what follows on the numbers it leaves behind is not.
    """
    with Agent(node, docker=False, env={"ENI53_ATTACH": mode}) as agent:
        tally, due = Tally(node), 0
        for count in (31, 37, 41):
            due += 2 * count
            pod = node.run_pod("db-0", "shop", ("app", "side"), eni=1, command=burst(count))
            pod.containers["side"].send("udp", "--to", LINK_LOCAL, "--count", str(count))
            assert until(lambda due=due: tally.of("ens6_ip_udp_resolver") == due)  # type: ignore[misc]
            pod.remove()
        other = node.run_pod("other-0", "shop", eni=1, command=burst(43))
        db = ("pod", "shop", "db-0")

        assert tally.charged(agent, packets=3 * (31 + 37 + 41) + 43) == {
            "ens5": {(*db, "side"): 31 + 37 + 41},
            "ens6": {
                (*db, "app"): 31 + 37 + 41,
                (*db, "side"): 31 + 37 + 41,
                row(other): 43,
            },
        }
    other.remove()


def test_a_pod_that_is_killed_in_the_middle_of_sending(node: Lab) -> None:
    """SIGKILL to all of it at full speed: what it sent by then is its own, all of it, and what the
    next pod sends is the next pod's.
    """
    with Agent(node, docker=False) as agent:
        tally = Tally(node)
        pod = node.run_pod("killed-0", "shop", ("app", "side"), eni=1)
        args = ("udp", "--to", RESOLVER, "--count", "10000000")
        running = [container.start_send(*args) for container in pod.containers.values()]
        assert until(lambda: tally.of("ens6_ip_udp_resolver") > 5000)
        for pid in (*(one.pid for one in pod.containers.values()), pod.pid):
            os.kill(pid, signal.SIGKILL)
        assert all(one.poll() != 0 for one in running)
        pod.remove()
        sent = tally.of("ens6_ip_udp_resolver")
        after = node.run_pod("after-0", "shop", eni=1, command=burst(47))
        found = tally.charged(agent, packets=sent + 47)

        assert found["ens5"] == {}
        # To answers that find their socket closed the kernel sends ICMP errors, of no container.
        whole = {(*owner[:3], "") for owner in found["ens6"]}
        assert whole == {row(pod, ""), row(after, "")}
        assert found["ens6"].get(row(pod, ""), 0) < sent / 100
        assert found["ens6"][row(after)] == 47
        assert agent.total("eni53_agent_tag_lost_packets_total") == 0
    after.remove()


def test_pods_on_the_hosts_network_beside_a_service(node: Lab) -> None:
    """Pod and container by the sending socket's cgroup, the service by its unit."""
    service = "/system.slice/chronyd.service"
    two = node.run_pod("proxy-1", "kube-system", ("app", "side"), host_network=True)
    with Agent(node, docker=False) as agent:
        tally = Tally(node)
        young = node.run_pod("agent-1", "ops", ("app",), host_network=True, command=burst(61))
        two.containers["app"].send("udp", "--to", RESOLVER, "--count", "67")
        two.containers["side"].send("udp", "--to", LINK_LOCAL, "--count", "71")
        args = ("udp", "--to", RESOLVER, "--count", "73")
        assert parse_sent(node.start_send(*args, cgroup=service).communicate()[0]).sent == 73

        assert tally.charged(agent, packets=61 + 67 + 71 + 73) == {
            "ens5": {
                row(young): 61,
                row(two): 67,
                row(two, "side"): 71,
                ("host", "", "chronyd.service", ""): 73,
            },
            "ens6": {},
        }
    two.remove()
    young.remove()
