"""Caches on an EKS node: what they answer is no load, what they ask is charged to who wanted it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.tally import Tally, until

RESOLVER, NODELOCAL, CLUSTER_DNS = "10.53.0.2", "169.254.20.10", "172.20.0.10"
NEAR, FAR = "10.53.5.7", "10.53.5.8"
UPSTREAM = "ens6_ip_udp_resolver"
WORKLOAD = ("kind", "namespace", "workload", "container", "via")
COREDNS = ("cache", "kube-system", "coredns-57ff979f67-qqbdh", "coredns")
"""What CoreDNS asks for itself, once it has asked for somebody."""
APP = ("pod", "shop", "app-1", "app")


@pytest.fixture(scope="module")
def node() -> Iterator[Lab]:
    """A node with two ENIs and containerd, in a VPC that drops nothing."""
    with Lab(pods=True, docker=False, enis=2, limit_pps=None) as lab:
        yield lab


@pytest.fixture
def cached() -> Iterator[Lab]:
    """The same for one test: a cache on the node stays in the way of whoever comes after it."""
    with Lab(pods=True, docker=False, enis=2, limit_pps=None) as lab:
        yield lab


def ask(count: int, name: str) -> tuple[str, ...]:
    """Arguments for that many questions, of which each is for a name of its own."""
    return ("--count", str(count), "--name", f"{name}{{n}}.lab.test", "--wait-answers")


def remote(address: str) -> tuple[str, str, str, str]:
    """The row of a client on another node."""
    return ("remote", "", address, "")


def by_path(agent: Agent) -> dict[tuple[str, str, str, str, str], int]:
    """Packets on ens6 by owner and `via`, which the metrics have as well."""
    eni: dict[str, Any] = agent.snapshot()["enis"][1]
    found = {tuple(row[key] for key in WORKLOAD): row["packets"] for row in eni["workloads"]}
    exported = {
        tuple(labels[key] for key in WORKLOAD): value
        for name, labels, value in agent.metrics()
        if name == "eni53_workload_packets_total" and labels["eni"] == eni["eni"] and value
    }
    assert exported == found
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_a_query_that_coredns_sends_on_is_its_remote_clients(node: Lab, mode: str) -> None:
    """Exactly one packet of each question, for two clients of other nodes and for a pod of this
    one; what CoreDNS asks for itself stays CoreDNS's.
    """
    dns = node.run_coredns_like(eni=1, cache=False)
    app = node.run_pod("app-1", "shop", eni=1)
    with Agent(node, docker=False, env={"ENI53_ATTACH": mode}) as agent:
        tally = Tally(node)
        assert node.remote_send(dns.ipv4, *ask(211, "Near"), source=NEAR).answered == 211
        assert node.remote_send(dns.ipv4, *ask(97, "far"), source=FAR).answered == 97
        asks = app.containers["app"].send("udp", "--to", CLUSTER_DNS, *ask(53, "local"))
        own = dns.containers["coredns"].send("udp", "--to", RESOLVER, *ask(43, "own"))
        assert (asks.answered, own.answered) == (53, 43)

        assert tally.charged(agent) == {
            "ens5": {},
            "ens6": {remote(NEAR): 211, remote(FAR): 97, APP: 53, COREDNS: 43},
        }
        assert by_path(agent) == {
            (*remote(NEAR), "cache"): 211,
            (*remote(FAR), "cache"): 97,
            (*APP, "cache"): 53,
            (*COREDNS, "direct"): 43,
        }
        assert agent.total("eni53_workload_sent_packets_total", workload="app-1") == 53
    for pod in (dns, app):
        pod.remove()


def test_one_name_that_several_want_at_once(node: Lab) -> None:
    """One query for two clients is the first one's; a pod of this node that asks the resolver
    itself for the same name meanwhile keeps its own packets.
    """
    dns = node.run_coredns_like(eni=1, cache=False)
    app = node.run_pod("app-1", "shop", eni=1)
    name = ("--name", "wanted.lab.test")
    with Agent(node, docker=False) as agent:
        tally = Tally(node)
        os.kill(dns.containers["coredns"].pid, signal.SIGSTOP)  # so that both wait for one answer
        try:
            node.remote_send(dns.ipv4, *name, "--settle", "0", source=NEAR)
            node.remote_send(dns.ipv4, *name, "--settle", "0", source=FAR)
            app.containers["app"].send("udp", "--to", RESOLVER, "--count", "31", *name)
        finally:
            os.kill(dns.containers["coredns"].pid, signal.SIGCONT)
        assert until(lambda: tally.of(UPSTREAM) == 31 + 1)

        assert tally.charged(agent) == {"ens5": {}, "ens6": {remote(NEAR): 1, APP: 31}}
        # Later and by itself it is the second one's.
        assert node.remote_send(dns.ipv4, *name, "--wait-answers", source=FAR).answered == 1
        assert tally.charged(agent)["ens6"] == {remote(NEAR): 1, remote(FAR): 1, APP: 31}
    for pod in (dns, app):
        pod.remove()


def test_a_cache_charges_a_client_for_what_it_has_to_ask_alone(node: Lab) -> None:
    """Names in the cache cost nobody anything, and one of a hundred questions for a name pays."""
    dns = node.run_coredns_like(eni=1)
    with Agent(node, docker=False) as agent:
        tally = Tally(node)
        for _ in range(2):
            assert node.remote_send(dns.ipv4, *ask(83, "warm"), source=NEAR).answered == 83
        assert node.remote_send(dns.ipv4, *ask(83, "warm"), source=FAR).answered == 83
        # By TCP who asks is not looked at; by UDP the cache asks all the same.
        by_tcp = node.remote_send(dns.ipv4, *ask(29, "stream"), source=FAR, mode="tcp")
        assert by_tcp.answered == 29

        assert tally.charged(agent) == {"ens5": {}, "ens6": {remote(NEAR): 83, COREDNS: 29}}
    dns.remove()


def test_a_cache_on_the_node_is_charged_for_each_tcp_packet_and_its_answers_for_nothing(
    cached: Lab,
) -> None:
    """What NodeLocal DNSCache answers reaches no ENI and is told all the same; what it asks by TCP
    is its pod's, packet by packet.
    """
    cache = cached.start_nodelocal()
    one = cached.run_pod("app-1", "shop", eni=1)
    two = cached.run_pod("app-2", "shop", ("app", "side"))
    with Agent(cached, docker=False) as agent:
        tally = Tally(cached)
        by_udp = one.containers["app"].send("udp", "--to", NODELOCAL, *ask(97, "kept"))
        by_tcp = two.containers["side"].send("tcp", "--to", NODELOCAL, *ask(31, "too"))
        assert (by_udp.answered, by_tcp.answered) == (97, 31)
        found = tally.charged(agent)

        asked = tally.of("ens5_ip_tcp_resolver")
        assert asked > 10
        assert found == {
            "ens5": {("pod", "kube-system", cache.name, "node-cache"): asked},
            "ens6": {},
        }
        before = agent.total("eni53_workload_sent_packets_total")
        hits = Tally(cached)
        again = [
            one.containers["app"].send("udp", "--to", NODELOCAL, *ask(97, "kept")),
            two.containers["app"].send("udp", "--to", CLUSTER_DNS, *ask(97, "kept")),
        ]
        assert [answer.answered for answer in again] == [97, 97]
        assert until(lambda: agent.total("eni53_workload_sent_packets_total") - before == 2 * 97)
        # The last ACK of an earlier answer may be due only now; 194 questions would be 194.
        assert sum(hits.by_eni().values()) <= 3
        assert tally.charged(agent)["ens6"] == {}
        sent = {
            (labels["workload"], labels["container"]): value
            for name, labels, value in agent.metrics()
            if name == "eni53_workload_sent_packets_total"
        }
        assert sent["app-1", "app"] == 2 * 97
        assert sent["app-2", "app"] == 97
    for pod in (one, two, cache):
        pod.remove()
