"""Other people's programs on the veths of pods: theirs work on, and pods stay known."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.lab.agent import Agent
from tests.lab.lab import Lab
from tests.lab.pods import Pod
from tests.lab.stranger import NEXT, Stranger
from tests.lab.tally import Row, Tally, until

RESOLVER = "10.53.0.2"
OURS = "eni53:workload_ingress"


@pytest.fixture(scope="module")
def node() -> Iterator[Lab]:
    """A node with two ENIs and containerd, in a VPC that drops nothing."""
    with Lab(pods=True, docker=False, enis=2, limit_pps=None) as lab:
        yield lab


@pytest.fixture(scope="module")
def single(node: Lab) -> Pod:
    """A pod with one container."""
    return node.run_pod("single", "shop", eni=1)


@pytest.fixture(scope="module")
def double(node: Lab) -> Pod:
    """A pod with two."""
    return node.run_pod("double", "shop", ("app", "side"), eni=1)


@pytest.fixture
def witness(node: Lab) -> Iterator[Stranger]:
    """Sees the tags of what leaves by ens6, and lets it."""
    with Stranger(node, verdict=NEXT, name="witness") as new:
        new.attach("ens6", "egress", prio=7, handle=7)
        yield new
        new.detach("ens6", "egress", prio=7, handle=7)


@contextmanager
def cilium(node: Lab) -> Iterator[None]:
    """The devices by which Cilium is known."""
    node.node_exec(["ip", "link", "add", "cilium_host", "type", "veth", "peer", "cilium_net"])
    try:
        yield
    finally:
        node.node_exec(["ip", "link", "delete", "cilium_host"])


def row(pod: Pod, container: str) -> Row:
    """How a container of a pod is named."""
    return ("pod", pod.namespace, pod.name, container)


def ask(pod: Pod, container: str, count: int) -> None:
    """So many packets to the resolver, by ens6."""
    pod.containers[container].send("udp", "--to", RESOLVER, "--count", str(count))


def filters(node: Lab, interface: str, direction: str = "ingress") -> dict[str, tuple[str, int]]:
    """Handle and program of every clsact filter by name, the first that runs in front."""
    shown = node.node_exec(["tc", "-j", "filter", "show", "dev", interface, direction]).stdout
    options = [one["options"] for one in json.loads(shown or "[]") if "options" in one]
    return {one["bpf_name"]: (one["handle"], one["prog"]["id"]) for one in options}


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_a_policy_agents_filters_stay_and_pods_are_known_by_their_veth(
    node: Lab, single: Pod, double: Pod, mode: str
) -> None:
    """A final verdict wipes the tag: then the pod is known to the packet, and its container if it
    is the only one. Whoever came first or again, their filter is as it was and counts.
    """
    env = {"ENI53_ATTACH": mode}
    bare = node.run_pod("bare", "shop", ("app", "side"), eni=1)
    with Stranger(node) as theirs:
        theirs.attach(single.host_ifname or "")
        before = filters(node, single.host_ifname or "")
        for number, end in enumerate([Agent.kill, Agent.stop]):
            agent = Agent(node, docker=False, env=env)
            agent.start()
            theirs.attach(double.host_ifname or "", handle=number + 1)
            if mode == "clsact":  # ours went in front again
                assert until(lambda: list(filters(node, double.host_ifname or ""))[:1] == [OURS])
            tally, seen = Tally(node), sum(theirs.seen().values())
            for pod, container, count in (
                (single, "app", 101),
                (double, "app", 103),
                (double, "side", 107),
                (bare, "side", 109),
            ):
                ask(pod, container, count)

            assert tally.charged(agent)["ens6"] == {
                row(single, "app"): 101,
                row(double, ""): 103 + 107,
                row(bare, "side"): 109,
            }
            assert agent.total("eni53_agent_tag_lost_packets_total") == 101 + 103 + 107
            assert agent.total("eni53_workload_sent_packets_total") == 420
            # On the second veth it is there once more each time, behind its own final verdict.
            assert sum(theirs.seen().values()) - seen == 101 + 103 + 107
            now = filters(node, single.host_ifname or "")
            assert {name: now[name] for name in before} == before
            end(agent)
        assert filters(node, single.host_ifname or "") == before
        assert list(filters(node, double.host_ifname or "")) == ["policy"]
        theirs.detach(single.host_ifname or "")
        for handle in (1, 2):
            theirs.detach(double.host_ifname or "", handle=handle)
    bare.remove()


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_filters_that_come_and_go_are_not_fought(node: Lab, double: Pod, mode: str) -> None:
    """Ten times in a few seconds, under load: ours goes in front three times at most and is there
    at the end; no packet is lost, and each is the pod's.
    """
    interface = double.host_ifname or ""
    with ExitStack() as stack:
        agent = stack.enter_context(Agent(node, docker=False, env={"ENI53_ATTACH": mode}))
        theirs = stack.enter_context(Stranger(node))
        log = node.directory / f"monitor-{mode}.log"
        monitor = node.node_popen(["stdbuf", "-oL", "tc", "monitor"], log=log)

        def listens() -> bool:
            theirs.attach("ens5", "egress", prio=7)
            return "ens5" in log.read_text()

        assert until(listens)
        theirs.detach("ens5", "egress", prio=7)
        tally = Tally(node)
        args = ("udp", "--to", RESOLVER, "--count", "1500", "--rate", "500")
        running = [one.start_send(*args) for one in double.containers.values()]
        for _ in range(10):
            theirs.attach(interface)
            time.sleep(0.2)
            theirs.detach(interface)
        theirs.attach(interface)
        for one in running:
            one.communicate()
        found = tally.charged(agent)["ens6"]

        assert sum(found.values()) == 3000
        assert set(found) <= {row(double, name) for name in ("app", "side", "")}
        lost = agent.total("eni53_agent_tag_lost_packets_total")
        assert 0 < lost == found[row(double, "")] <= 3000
        monitor.terminate()
        monitor.wait(5)
        put = [
            line
            for line in log.read_text().splitlines()
            if OURS in line and f"dev {interface} " in line and not line.startswith("deleted")
        ]
        assert len(put) in ({0} if mode == "tcx" else {1, 2, 3}), put
        assert set(filters(node, interface)) == ({"policy"} if mode == "tcx" else {"policy", OURS})
        assert agent.total("eni53_workload_sent_packets_total") <= 3000
        theirs.detach(interface)
        ask(double, "side", 211)
        assert tally.charged(agent)["ens6"].get(row(double, "side"), 0) >= 211


def test_a_qdisc_that_somebody_takes_away_comes_back_with_ours(node: Lab, double: Pod) -> None:
    """Without tcx, whoever deletes the qdisc deletes our filter: on an ENI all of the count."""
    interface = double.host_ifname or ""
    with Agent(node, docker=False, env={"ENI53_ATTACH": "clsact"}) as agent:
        tally = Tally(node)
        ask(double, "app", 113)
        for device in (interface, "ens6"):
            node.node_exec(["tc", "qdisc", "delete", "dev", device, "clsact"])
        assert until(lambda: OURS in filters(node, interface))
        assert until(lambda: "eni53:eni_egress" in filters(node, "ens6", "egress"))
        ask(double, "side", 127)
        assert tally.charged(agent)["ens6"] == {row(double, "app"): 113, row(double, "side"): 127}
    assert filters(node, interface) == {}


@pytest.mark.parametrize("mode", ["tcx", "clsact"])
def test_beside_cilium_no_packet_has_a_tag_of_ours_and_none_of_its_is_believed(
    node: Lab, single: Pod, double: Pod, witness: Stranger, mode: str
) -> None:
    """What its program writes into the same field could be any tag of ours. It redirects the
    packet to the ENI, or lets it pass; the pod is known by its veth either way.
    """
    with ExitStack() as stack:
        stack.enter_context(cilium(node))
        args = ("udp", "--to", RESOLVER, "--count", "1000000", "--rate", "2000")
        busy = double.containers["app"].start_send(*args)
        assert until(lambda: witness.seen().get(0, 0) > 100)
        agent = stack.enter_context(Agent(node, docker=False, env={"ENI53_ATTACH": mode}))
        busy.terminate()
        busy.communicate()
        assert set(witness.seen()) == {0}  # not even while it started
    # Again: what it has counted of those is not known to the packet.
    with ExitStack() as stack:
        stack.enter_context(cilium(node))
        agent = stack.enter_context(Agent(node, docker=False, env={"ENI53_ATTACH": mode}))
        tally, before = Tally(node), witness.seen()[0]
        ask(single, "app", 131)
        ask(double, "app", 137)
        ask(double, "side", 139)
        assert witness.seen() == {0: before + 131 + 137 + 139}
        expected = {row(single, "app"): 131, row(double, ""): 137 + 139}
        assert tally.charged(agent)["ens6"] == expected

        for mark in (1, 2, 3):
            redirects = stack.enter_context(
                Stranger(node, tc_index=mark, redirect="ens6", name="from_container")
            )
            for pod in (single, double):
                redirects.attach(pod.host_ifname or "")
                stack.callback(clear, node, pod)
            as_it_was = filters(node, double.host_ifname or "")["from_container"]
            ask(single, "app", 149)
            ask(double, "side", 151)
            expected[row(single, "app")] += 149
            expected[row(double, "")] += 151
            assert witness.seen()[mark] == 149 + 151
            assert redirects.seen() == {0: 149 + 151}
            assert tally.charged(agent)["ens6"] == expected
            assert filters(node, double.host_ifname or "")["from_container"] == as_it_was
        passes = stack.enter_context(Stranger(node, tc_index=1, name="from_container"))
        passes.attach(double.host_ifname or "")
        ask(double, "app", 157)
        expected[row(double, "")] += 157
        assert passes.seen() == {0: 157}
        assert tally.charged(agent)["ens6"] == expected


def test_cilium_that_comes_and_goes_while_we_run(node: Lab, double: Pod, witness: Stranger) -> None:
    """From then on no tags, and tags again when it is gone; not one packet is lost."""
    with Agent(node, docker=False) as agent:
        tally = Tally(node)
        ask(double, "side", 163)
        assert 0 not in witness.seen()
        with cilium(node):
            assert until(lambda: untagged(double, witness))
            before = witness.seen()
            ask(double, "side", 167)
            assert witness.seen() == before | {0: before[0] + 167}
            found = tally.charged(agent)["ens6"]
            assert found[row(double, "")] == before[0] + 167
        assert until(lambda: not untagged(double, witness))
        ask(double, "side", 173)
        found = tally.charged(agent)["ens6"]
        assert set(found) == {row(double, "side"), row(double, "")}
        assert found[row(double, "")] == witness.seen()[0]


def clear(node: Lab, pod: Pod) -> None:
    """Take all filters off a pod's veth; none there is fine."""
    argv = ["tc", "filter", "delete", "dev", pod.host_ifname or "", "ingress"]
    node.node_exec(argv, check=False)


def untagged(pod: Pod, witness: Stranger) -> bool:
    """Whether a packet that the pod sends now has no tag."""
    before = witness.seen().get(0, 0)
    ask(pod, "side", 1)
    return witness.seen().get(0, 0) > before
