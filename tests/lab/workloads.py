"""Workloads without a container runtime: a namespace behind a host-side pair, as on EKS."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from collections.abc import Mapping, Sequence

from . import network
from .load import Sent, parse_sent
from .shell import environment, in_netns, popen, run, sender
from .vpc import Eni

POD_GATEWAY, POD_GATEWAY6 = "169.254.1.1", "fe80::1"
BRIDGE = "cni0"


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """A network namespace that sends through the node.

    Attributes:
        netns: Its name under /run/netns.
        host_ifname: The node's end of the pair, where the agent attaches.
    """

    netns: str
    host_ifname: str
    ipv4: str
    ipv6: str
    _lab_id: str

    def exec(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run *argv* inside to its end; LabError if it fails and *check* is set."""
        full = environment(self._lab_id, env)
        argv = [*in_netns(self.netns), *argv]
        return run(argv, env=full, check=check, timeout=timeout, stdin=stdin)

    def popen(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start *argv* inside and leave it running."""
        return popen([*in_netns(self.netns), *argv], environment(self._lab_id, env))

    def send(self, *args: str, timeout: float = 60) -> Sent:
        """Run the sender inside: ``send("udp", "--to", ADDRESS, "--count", "10")``."""
        return parse_sent(self.exec(sender(*args), timeout=timeout).stdout)

    def start_send(self, *args: str) -> subprocess.Popen[str]:
        """As send, but return at once; its stdout ends with the report."""
        return self.popen(sender(*args))


def add(
    lab_id: str,
    names: tuple[str, str, str],
    number: int,
    *,
    bridge: bool,
    eni: Eni,
) -> Workload:
    """Make the namespace and its pair.

    *names* are those of the vpc, the node and the new namespace; *number*, from 1 to 250, is the
    last part of its addresses. Its packets leave by *eni*, and so the VPC sends the answers there.
    """
    vpc_ns, node_ns, netns = names
    host = "eni" + hashlib.sha1(netns.encode(), usedforsecurity=False).hexdigest()[:11]
    subnet = 3 if bridge else 2
    workload = Workload(
        netns, host, f"10.53.{subnet}.{number}", f"fd53:{subnet}::{number:x}", lab_id
    )
    mac, host_mac = (
        f"02:53:01:00:{subnet:02x}:{number:02x}",
        f"02:53:02:00:{subnet:02x}:{number:02x}",
    )
    run(["ip", "netns", "add", netns])
    sysctls = ("net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.accept_dad=0")
    run([*in_netns(netns), "sysctl", "-qw", *sysctls])
    pair = (
        f"link add {host} address {host_mac} type veth peer name eth0 address {mac} netns {netns}"
    )
    if bridge:
        _attach_bridged(node_ns, workload, pair, mac)
    else:
        _attach_routed(node_ns, workload, pair, mac, host_mac)
    if eni.table is not None:
        network.send_through(node_ns, eni, workload.ipv4, workload.ipv6)
        back = [f"route add {workload.ipv4} via {eni.ipv4}"]
        back += [f"route add {workload.ipv6} via {eni.ipv6}"]
        network.batch(vpc_ns, back)
    for where, device in ((netns, "eth0"), (node_ns, host)):
        run([*in_netns(where), "ethtool", "-K", device, *network.OFFLOADS])
    return workload


def _attach_routed(node_ns: str, new: Workload, pair: str, mac: str, host_mac: str) -> None:
    """The shape of the VPC CNI: a /32 in the pod, a host route, a gateway that answers no ARP."""
    network.batch(
        node_ns,
        [
            pair,
            f"link set {new.host_ifname} up",
            f"route add {new.ipv4}/32 dev {new.host_ifname}",
            f"route add {new.ipv6}/128 dev {new.host_ifname}",
            f"neigh replace {new.ipv4} lladdr {mac} dev {new.host_ifname} nud permanent",
            f"neigh replace {new.ipv6} lladdr {mac} dev {new.host_ifname} nud permanent",
        ],
    )
    network.batch(
        new.netns,
        [
            "link set lo up",
            "link set eth0 up",
            f"address add {new.ipv4}/32 dev eth0",
            f"address add {new.ipv6}/128 dev eth0 nodad",
            f"route add {POD_GATEWAY} dev eth0 scope link",
            f"neigh replace {POD_GATEWAY} lladdr {host_mac} dev eth0 nud permanent",
            f"neigh replace {POD_GATEWAY6} lladdr {host_mac} dev eth0 nud permanent",
            f"route add default via {POD_GATEWAY} dev eth0",
            f"route add default via {POD_GATEWAY6} dev eth0",
        ],
    )


def _attach_bridged(node_ns: str, new: Workload, pair: str, mac: str) -> None:
    gateway, gateway6, gateway_mac = "10.53.3.254", "fd53:3::ffff", "02:53:fe:00:00:01"
    if run([*in_netns(node_ns), "ip", "link", "show", BRIDGE], check=False).returncode:
        network.batch(
            node_ns,
            [
                f"link add {BRIDGE} address {gateway_mac} type bridge mcast_snooping 0",
                f"address add {gateway}/24 dev {BRIDGE}",
                f"address add {gateway6}/64 dev {BRIDGE} nodad",
                f"link set {BRIDGE} up",
            ],
        )
    network.batch(
        node_ns,
        [
            pair,
            f"link set {new.host_ifname} master {BRIDGE}",
            f"link set {new.host_ifname} up",
            f"neigh replace {new.ipv4} lladdr {mac} dev {BRIDGE} nud permanent",
            f"neigh replace {new.ipv6} lladdr {mac} dev {BRIDGE} nud permanent",
        ],
    )
    network.batch(
        new.netns,
        [
            "link set lo up",
            "link set eth0 up",
            f"address add {new.ipv4}/24 dev eth0",
            f"address add {new.ipv6}/64 dev eth0 nodad",
            f"neigh replace {gateway} lladdr {gateway_mac} dev eth0 nud permanent",
            f"neigh replace {gateway6} lladdr {gateway_mac} dev eth0 nud permanent",
            f"route add default via {gateway} dev eth0",
            f"route add default via {gateway6} dev eth0",
        ],
    )
