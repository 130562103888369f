"""The lab's pods: wired as on EKS, counted to the packet on the ENI they belong to, gone after."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import cgroups, processes
from tests.lab.lab import Lab
from tests.lab.shell import LabError

RESOLVER, LINK_LOCAL, NODELOCAL, CLUSTER_DNS = (
    "10.53.0.2",
    "169.254.169.253",
    "169.254.20.10",
    "172.20.0.10",
)
NODE = "10.53.1.10"
BASE = Path("/run/eni53-lab")
CNI_RESULTS = Path("/var/lib/cni/results")
FETCH_ENIS = [
    sys.executable,
    "-c",
    "import urllib.request as u;"
    " print(u.urlopen('http://127.0.0.1:61679/v1/enis', timeout=5).read().decode())",
]
# For a lab to be killed: it says what it made and waits.
KILLED = """
import json, sys, time
from tests.lab.lab import Lab
lab = Lab(pods=True, docker=False, resolver=False, imds=False, lab_id="killedpods")
with lab:
    pods = [lab.run_pod("one", containers=("a", "b")), lab.run_pod("two", host_network=True)]
    print(json.dumps([pod.cgroup for pod in pods]), flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Lab]:
    """A node with two ENIs and containerd, in a VPC that drops nothing."""
    with Lab(pods=True, docker=False, enis=2, limit_pps=None) as lab:
        yield lab


class Witness:
    """Counts port-53 packets by (ENI, protocol, source, destination), beside the lab's counters."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        lines = ["table netdev witness {"]
        for eni in lab.enis:
            name = eni.interface
            for protocol in ("udp", "tcp"):
                lines.append(
                    f"set {name}_{protocol} {{ type ipv4_addr . ipv4_addr; flags dynamic;"
                    " counter; }"
                )
            rules = [
                f"{protocol} dport 53 update @{name}_{protocol} {{ ip saddr . ip daddr }}"
                for protocol in ("udp", "tcp")
            ]
            hook = f'type filter hook ingress device "{eni.uplink}" priority -400;'
            lines.append(f"chain {name} {{ {hook} {'; '.join(rules)}; }}")
        lab.vpc_exec(["nft", "\n".join([*lines, "}"])])

    def seen(self) -> dict[tuple[str, str, str, str], int]:
        """Packets since it was made."""
        listed = self._lab.vpc_exec(["nft", "list", "table", "netdev", "witness"]).stdout
        found = {}
        for interface, protocol, elements in re.findall(
            r"set (\w+)_(udp|tcp) \{.*?(?:elements = \{(.*?)\})?\s*\}\n", listed, re.DOTALL
        ):
            for source, to, packets in re.findall(
                r"([\d.]+) \. ([\d.]+) counter packets (\d+)", elements
            ):
                found[interface, protocol, source, to] = int(packets)
        return found

    def close(self) -> None:
        """Stop counting."""
        self._lab.vpc_exec(["nft", "delete", "table", "netdev", "witness"])


@pytest.fixture
def witness(node: Lab) -> Iterator[Witness]:
    """Counters from 0, for one test."""
    new = Witness(node)
    yield new
    new.close()


def inode(pid: int) -> int:
    """Of the network namespace of *pid*."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def cgroup(pid: int) -> str:
    """In the version 2 hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def test_a_pod_has_the_veth_rules_and_cgroups_of_eks(node: Lab) -> None:
    """One namespace, a cgroup per container, a veth by the pod's name, a rule for its ENI."""
    pod = node.run_pod("web-7d4b9c6f5-x2x7k", "shop", ("app", "sidecar"), eni=1)
    app, sidecar = pod.containers["app"], pod.containers["sidecar"]

    hashed = hashlib.sha1(b"shop.web-7d4b9c6f5-x2x7k", usedforsecurity=False).hexdigest()
    assert pod.host_ifname == f"eni{hashed[:11]}"
    assert f": {pod.host_ifname}@" in node.node_exec(["ip", "link"]).stdout
    assert {inode(pid) for pid in (pod.pid, app.pid, sidecar.pid)} == {pod.netns_inode}
    assert cgroup(app.pid) == app.cgroup == f"/kubepods/burstable/pod{pod.uid}/{app.id}"
    assert app.cgroup != sidecar.cgroup
    assert app.exec(["cat", "/proc/self/cgroup"]).stdout.splitlines()[-1] == f"0::{app.cgroup}"
    rules = node.node_exec(["ip", "rule"]).stdout
    assert f"512:\tfrom all to {pod.ipv4} lookup main" in rules
    assert f"1536:\tfrom {pod.ipv4} lookup 1001" in rules
    assert "1024:\tfrom all fwmark 0x80/0x80 lookup main" in rules
    routes = app.exec(["ip", "route"]).stdout
    assert "default via 169.254.1.1 dev eth0" in routes

    node.start_introspection()
    assert pod.ipv4 in node.node_exec(FETCH_ENIS).stdout

    pod.remove()
    pod.remove()
    assert pod.ipv4 not in node.node_exec(FETCH_ENIS).stdout
    assert pod.ipv4 not in node.node_exec(["ip", "rule"]).stdout
    assert pod.host_ifname not in node.node_exec(["ip", "link"]).stdout
    assert not any(path.exists() for path in cgroups.everywhere(pod.cgroup))


def test_a_pod_of_the_same_name_has_the_same_veth_again(node: Lab) -> None:
    """As of a StatefulSet: another uid, address and index, the same name; never both at once."""
    first = node.run_pod("db-0")
    with pytest.raises(LabError, match="a pod of that name is there"):
        node.run_pod("db-0")
    first.remove()
    second = node.run_pod("db-0")
    assert second.host_ifname == first.host_ifname
    assert second.uid != first.uid
    assert second.containers["app"].send("udp", "--to", RESOLVER, "--wait-answers").answered == 1
    second.remove()


@pytest.mark.parametrize("number", [0, 1])
def test_the_resolver_asked_decides_the_eni(node: Lab, witness: Witness, number: int) -> None:
    """VPC+2 by the pod's own ENI and address; the link-local one by the primary, translated."""
    pod = node.run_pod(f"asks-{number}", containers=("app", "side"), eni=number)
    before = node.counters()
    inside = pod.containers["app"].send("udp", "--to", RESOLVER, "--count", "211", "--wait-answers")
    # Several sockets: each is a connection of its own to mark and to translate.
    args = ("--count", "307", "--sockets", "5", "--wait-answers")
    outside = pod.containers["side"].send("udp", "--to", LINK_LOCAL, *args)

    assert (inside.answered, outside.answered) == (211, 307)
    own = node.enis[number].interface
    assert witness.seen() == {
        (own, "udp", pod.ipv4, RESOLVER): 211,
        ("ens5", "udp", NODE, LINK_LOCAL): 307,
    }
    after = node.counters()
    rose = {name: after[name] - before[name] for name in after if name.endswith("_udp_resolver")}
    expected = dict.fromkeys(rose, 0)
    expected[f"{own}_ip_udp_resolver"] += 211
    expected["ens5_ip_udp_resolver"] += 307
    assert rose == expected
    pod.remove()


def test_a_pod_on_the_host_network_sends_as_the_node(node: Lab, witness: Witness) -> None:
    """The node's namespace and address, the pod's cgroup."""
    pod = node.run_pod("kube-proxy-x", "kube-system", host_network=True)
    app = pod.containers["app"]
    node_inode = Path(f"/run/netns/{node.node_ns}").stat().st_ino
    assert (pod.netns_inode, inode(app.pid), pod.host_ifname) == (node_inode, node_inode, None)
    assert cgroup(app.pid) == f"{pod.cgroup}/{app.id}"
    assert app.send("udp", "--to", RESOLVER, "--count", "53", "--wait-answers").answered == 53
    assert witness.seen() == {("ens5", "udp", NODE, RESOLVER): 53}
    pod.remove()


def test_a_sender_in_the_background_reports_when_it_is_told_to_end(
    node: Lab, witness: Witness
) -> None:
    """What start_send says it sent is what arrived."""
    pod = node.run_pod("background")
    running = pod.containers["app"].start_send(
        "udp", "--to", RESOLVER, "--count", "100000", "--rate", "200"
    )
    while not witness.seen():
        assert running.poll() is None
    running.terminate()
    report = running.communicate()[0]
    sent = int(re.search(r'"sent": (\d+)', report)[1])  # type: ignore[index]
    assert running.poll() == 0
    assert witness.seen() == {("ens5", "udp", pod.ipv4, RESOLVER): sent}
    pod.remove()


def test_nodelocal_answers_pods_and_asks_by_tcp_from_the_primary_eni(
    node: Lab, witness: Witness
) -> None:
    """No UDP leaves, what is cached leaves not at all, and the socket that asks is the cache's.

    It has the cluster's DNS address, too: nothing there is tracked, so kube-proxy's rules for the
    DNS pod beside it do not apply.
    """
    dns = node.run_coredns_like("coredns-beside")
    cache = node.start_nodelocal()
    pod = node.run_pod("asks-the-cache", eni=1)
    ask = ("udp", "--to", NODELOCAL, "--name", "nodelocal{n}.lab.test", "--wait-answers")
    assert pod.containers["app"].send(*ask, "--count", "97").answered == 97
    first = witness.seen()
    assert list(first) == [("ens5", "tcp", NODE, RESOLVER)]
    # The connection is kept for the next question, so its owner can be seen.
    sockets = node.node_exec(["ss", "-Htnp", "dst", RESOLVER]).stdout
    pids = {int(pid) for pid in re.findall(r"pid=(\d+)", sockets)}
    assert {cgroup(pid) for pid in pids} == {f"{cache.cgroup}/{cache.containers['node-cache'].id}"}

    to_service = ("udp", "--to", CLUSTER_DNS, *ask[3:])
    assert pod.containers["app"].send(*to_service, "--count", "97").answered == 97
    now = witness.seen()
    assert list(now) == list(first)
    # At most the ACK that was still due: 97 questions would be 97 packets.
    assert now["ens5", "tcp", NODE, RESOLVER] - first["ens5", "tcp", NODE, RESOLVER] <= 3
    for one in (pod, cache, dns):
        one.remove()


def test_a_pod_of_another_node_asks_a_dns_pod_on_this_one(node: Lab, witness: Witness) -> None:
    """In through the pod's ENI, and out of it by UDP once per name, from the pod's address."""
    dns = node.run_coredns_like("coredns-57ff979f67-qqbdh", eni=1)
    assert dns.host_ifname == "enib5faff8a083"
    ask = ("--count", "149", "--name", "remote{n}.lab.test", "--wait-answers")
    assert node.remote_send(dns.ipv4, *ask).answered == 149
    assert witness.seen() == {("ens6", "udp", dns.ipv4, RESOLVER): 149}
    # Another client, the same names: from the cache.
    assert node.remote_send(dns.ipv4, *ask, source="10.53.5.8").answered == 149
    assert witness.seen() == {("ens6", "udp", dns.ipv4, RESOLVER): 149}
    dns.remove()


def test_the_cluster_dns_address_leads_to_the_dns_pod() -> None:
    """The asking pod's packets never reach an ENI under their own name; the DNS pod's do."""
    with Lab(pods=True, docker=False, imds=False, limit_pps=None) as lab:
        witness = Witness(lab)
        dns = lab.run_coredns_like()
        app = lab.run_pod("app").containers["app"]
        args = ("--to", CLUSTER_DNS, "--count", "61", "--name", "svc{n}.lab.test")
        assert app.send("udp", *args, "--wait-answers").answered == 61
        assert witness.seen() == {("ens5", "udp", dns.ipv4, RESOLVER): 61}


def in_cgroups(names: list[str]) -> set[int]:
    """The processes in these cgroups and below; there are some."""
    tops = [cgroups.unified() / name.lstrip("/") for name in names]
    found = {
        int(pid)
        for top in tops
        for path in top.rglob("cgroup.procs")
        for pid in path.read_text().split()
    }
    assert found
    return found


def leftovers(lab_id: str, pod_cgroups: list[str]) -> list[object]:
    """All that is still there of a lab and its pods."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    names = Path("/run/netns")
    results = CNI_RESULTS.iterdir() if CNI_RESULTS.exists() else ()
    mark = f"{BASE}/{lab_id}/".encode()
    return [
        *processes.marked(lab_id),
        *(line for line in mounts if f"{BASE}/{lab_id}/" in line),
        *(path for path in names.glob(f"eni53-{lab_id}-*")),
        *(path for name in pod_cgroups for path in cgroups.everywhere(name) if path.exists()),
        *(path for path in results if mark in path.read_bytes()),
        *(path for path in [BASE / lab_id] if path.exists()),
    ]


def test_nothing_is_left_of_pods_after_the_lab() -> None:
    """Pods that were removed, pods that were not, and a failed one."""
    with Lab(pods=True, docker=False, resolver=False, imds=False) as lab:
        lab_id = lab.id
        pods = [lab.run_pod("one"), lab.run_pod("two", containers=("a", "b"))]
        pods.append(lab.run_pod("three", host_network=True))
        with pytest.raises(LabError, match="no-such-program"):
            lab.run_pod("four", command=("/bin/no-such-program",))
        pods[0].remove()
        assert [pod.name for pod in lab.pods] == ["two", "three"]
        assert leftovers(lab_id, [pod.cgroup for pod in pods])
    assert leftovers(lab_id, [pod.cgroup for pod in pods]) == []


def test_pods_of_a_killed_lab_go_with_the_next() -> None:
    """kill -9 of the lab: containerd, shims, sandboxes, mounts and what CNI wrote are swept."""
    argv = [sys.executable, "-c", KILLED]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        made = re.findall(r'"(/kubepods[^"]+)"', owner.stdout.readline())
        owner.kill()
    assert len(made) == 2
    # By their mark they are found, so a sandbox without it would stay for good.
    assert in_cgroups(made) <= set(processes.marked("killedpods"))
    assert leftovers("killedpods", made)
    with Lab(docker=False, resolver=False, imds=False):
        assert leftovers("killedpods", made) == []


def test_a_lab_without_pods_says_so() -> None:
    """Not an error from the depths."""
    with (
        Lab(docker=False, resolver=False, imds=False) as lab,
        pytest.raises(LabError, match="pods=True"),
    ):
        lab.run_pod("one")
