"""Those that say who pods are, down, slow or wrong: it costs names, never a count."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.lab import vpc
from tests.lab.agent import Agent, rows
from tests.lab.lab import Lab
from tests.lab.pods import Pod
from tests.lab.shell import sender
from tests.lab.stranger import Stranger
from tests.lab.tally import Row, Tally, until

RESOLVER = vpc.RESOLVER
CILIUM = ["ip", "link", "add", "cilium_host", "type", "veth", "peer", "cilium_net"]


@pytest.fixture(scope="module")
def node() -> Iterator[Lab]:
    """A node with two ENIs and containerd, in a VPC that drops nothing."""
    with Lab(pods=True, docker=False, enis=2, limit_pps=None) as lab:
        lab.start_introspection()
        lab.introspection.set_mode("503", server="cni")
        yield lab


@pytest.fixture(scope="module")
def web(node: Lab) -> Pod:
    """A pod with two containers."""
    return node.run_pod("web", "shop", ("app", "side"), eni=1)


def row(pod: Pod, container: str = "app") -> Row:
    """How a container of a pod is named."""
    return ("pod", pod.namespace, pod.name, container)


def ask(pod: Pod, count: int, container: str = "app") -> None:
    """So many packets to the resolver."""
    pod.containers[container].send("udp", "--to", RESOLVER, "--count", str(count))


def up(agent: Agent, source: str = "containerd") -> list[float]:
    """What the metrics say of a source; nothing of one that was never there."""
    return [
        value
        for name, labels, value in agent.metrics()
        if name == "eni53_agent_source_up" and labels["source"] == source
    ]


@contextmanager
def held(node: Lab) -> Iterator[None]:
    """Containerd neither answers nor hangs up."""
    os.kill(node.containerd.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node.containerd.pid, signal.SIGCONT)


@contextmanager
def steady(node: Lab) -> Iterator[Pod]:
    """A pod whose container asks all the time; not by exec, which needs containerd."""
    args = ("udp", "--to", RESOLVER, "--count", "1000000", "--rate", "300")
    pod = node.run_pod("steady", "shop", eni=1, command=sender(*args, at="/lab"))
    try:
        yield pod
    finally:
        pod.remove()


def goes_on(agent: Agent) -> bool:
    """Whether packets come, and are counted, while this runs."""
    before = agent.snapshot()["enis"][1]["packets"]
    return until(lambda: agent.snapshot()["enis"][1]["packets"] > before + 300)


def test_containerd_ends_and_comes_back(node: Lab, web: Pod) -> None:
    """Known pods stay known and counted while it is away; what comes with it again is named."""
    with Agent(node, docker=False) as agent:
        tally = Tally(node)
        with steady(node) as pod:
            assert up(agent) == [1]
            node.containerd.stop()
            try:
                assert until(lambda: up(agent) == [0])
                args = ("udp", "--to", RESOLVER, "--count", "181")
                node.start_send(*args, cgroup="/system.slice/chronyd.service").communicate()
                assert goes_on(agent)
            finally:
                node.containerd.start_again()
            assert until(lambda: up(agent) == [1])
            late = node.run_pod("late", "shop", ("app", "side"), eni=1)
            ask(late, 191, "side")
            ask(web, 193, "side")
        found = tally.charged(agent)

        assert found["ens5"] == {("host", "", "chronyd.service", ""): 181}
        # An answer that finds its pod killed is told so by the kernel: no container has sent that.
        assert found["ens6"].pop(row(pod, ""), 0) <= tally.of("ens6_ip_icmp_resolver")
        assert set(found["ens6"]) == {row(pod), row(late, "side"), row(web, "side")}
        assert found["ens6"][row(late, "side")] == 191
        assert found["ens6"][row(web, "side")] == 193
        assert agent.total("eni53_agent_errors_total", stage="source", reason="containerd") >= 1
        assert "Traceback" not in agent.log.read_text()
    late.remove()


def test_containerd_hangs_while_we_run(node: Lab) -> None:
    """One that answers no more is down, and up when it answers again; pods count on meanwhile."""
    with Agent(node, docker=False) as agent:
        tally = Tally(node)
        with steady(node) as pod:
            # This pod is new: its address is asked for within 15 s. Else it would take a minute.
            with held(node):
                assert until(lambda: up(agent) == [0], timeout=60)
                assert goes_on(agent)
            assert until(lambda: up(agent) == [1], timeout=60)
            late = node.run_pod("late", "shop", eni=1)
            ask(late, 197)
        found = tally.charged(agent)["ens6"]

        assert found.pop(row(pod, ""), 0) <= tally.of("ens6_ip_icmp_resolver")  # as above
        assert set(found) == {row(pod), row(late)}
        assert found[row(late)] == 197
        assert agent.log.read_text().count('"source": "containerd", "reason"') == 1
    late.remove()


def test_a_start_beside_a_containerd_that_hangs(node: Lab, web: Pod) -> None:
    """It is not waited for long, and all is counted: on those that send then by their cgroup, and
    by name when it answers.
    """
    begin = time.monotonic()
    with Agent(node, docker=False):
        usual_s = time.monotonic() - begin
    agent = Agent(node, docker=False)
    with ExitStack() as stack:
        stack.push(agent.__exit__)
        with steady(node) as pod:
            with held(node):
                begin = time.monotonic()
                agent.start()
                assert time.monotonic() - begin < 2 * usual_s + 4
                tally = Tally(node)
                assert goes_on(agent)
                assert until(lambda: up(agent) == [0])
            assert until(lambda: up(agent) == [1])
            before = rows(agent.snapshot(), 1).get(row(pod), 0)
            assert until(lambda: rows(agent.snapshot(), 1).get(row(pod), 0) > before + 300)
        ask(web, 199, "side")
        at_least = tally.of("ens6_ip_udp_resolver")  # some were sent between its beginning and this
        assert until(lambda: rows(agent.snapshot(), 1).get(row(web, "side")) == 199)
        snapshot = agent.settled()
        found = rows(snapshot, 1)
        assert sum(found.values()) == snapshot["enis"][1]["packets"] >= at_least
        by_cgroup = ("container", "", pod.containers["app"].id[:12], "")
        assert found.pop(row(pod, ""), 0) <= tally.of("ens6_ip_icmp_resolver")  # as above
        assert set(found) <= {row(web, "side"), row(pod), by_cgroup, ("unattributed", "", "", "")}


def test_what_the_cni_says_wrong_costs_nothing(node: Lab, web: Pod) -> None:
    """Silence, garbage, half an answer and one without an end: ready, counting, no traceback."""
    for mode in ("hang", "503", "garbage", "truncated", "huge"):
        node.introspection.set_mode(mode, server="cni")
        with Agent(node, docker=False) as agent:
            tally = Tally(node)
            ask(web, 211)
            assert tally.charged(agent)["ens6"] == {row(web): 211}
            told = agent.snapshot()["time"]
            assert until(lambda told=told: agent.snapshot()["time"] != told)  # type: ignore[misc]
            assert up(agent, "cni") == []
            assert "Traceback" not in agent.log.read_text()
    node.introspection.set_mode("503", server="cni")


@pytest.mark.parametrize("old", [False, True])
def test_an_address_that_the_cni_gave_names_the_pod(node: Lab, old: bool) -> None:
    """Over a bridge and without its tag a packet comes from no veth that is known: then its source
    names the pod, in both shapes of the CNI's answer.
    """
    behind = node.add_workload_netns(f"behind-{int(old)}", bridge=True)
    unknown = node.add_workload_netns(f"unknown-{int(old)}", bridge=True)
    node.introspection.add_pod_ip(node.enis[0], behind.ipv4, "shop", "bridged")
    node.introspection.set_cni_shape(old=old)
    node.introspection.set_mode("ok", server="cni")
    with Agent(node, docker=False) as agent, Stranger(node) as wipes:
        for workload in (behind, unknown):
            wipes.attach(workload.host_ifname)
        assert until(lambda: up(agent, "cni") == [1])
        tally = Tally(node)
        for workload, count in ((behind, 223), (unknown, 227)):
            workload.send("udp", "--to", RESOLVER, "--count", str(count))

        assert tally.charged(agent) == {
            "ens5": {
                ("pod", "shop", "bridged", ""): 223,
                ("unattributed", "", "", ""): 227,
            },
            "ens6": {},
        }
    node.introspection.set_mode("503", server="cni")


def test_check_says_how_this_node_is_wired(node: Lab, web: Pod) -> None:
    """The VPC CNI's veths, NodeLocal DNSCache and Cilium, and what each of them costs."""
    cache = node.start_nodelocal()
    node.node_exec(CILIUM)
    try:
        said = Agent(node, docker=False).run("check", check=False).stdout
    finally:
        node.node_exec(["ip", "link", "delete", "cilium_host"])
    found = {line[6:22].strip(): line[:6].strip() for line in said.splitlines()}

    assert (found["vpc cni"], found["nodelocal dns"]) == ("ok", "ok")
    assert found["cilium"] == "·"
    assert "cilium_host, cilium_net: packets get no tag of ours" in said
    # Those of namespaces that are nobody's have such names, too.
    links = node.node_exec(["ip", "-o", "link"]).stdout
    assert re.findall(r"veths of the VPC CNI: (\d+)", said) == [
        str(len(re.findall(r": eni[0-9a-f]{11}@", links)))
    ]
    cache.remove()
