"""A trunk ENI and its branches, with witnesses that know nothing of eni53."""

from __future__ import annotations

import inspect
import json
import re
import socket
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from eni53.kernel.maps import Maps

from tests.kernel.netns import Namespace, Pair

RESOLVER4, RESOLVER6 = "169.254.169.253", "fd00:ec2::253"
"""By way of a branch; `netns.make_pair` has others for what is sent untagged."""

_SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[1])):
    sender.sendto(b"question", (sys.argv[2], 53))
"""

# Classic BPF, two instructions: load whether the tag is in the metadata, and match if it is.
_TAG_IN_METADATA = "2,32 0 0 4294963248,22 0 0 0"


def declare(maps: Maps, dev: int) -> None:
    """Say that an interface is a trunk, in versions where that must be said."""
    known = "trunk" in inspect.signature(maps.add_eni).parameters
    maps.add_eni(dev, **({"trunk": True} if known else {}))


def introduce(
    place: Namespace, interface: str, there: Namespace, remote: str, address: str
) -> None:
    """Tell *place* that *address* is the interface *remote*.

    Asked for over IPv6 before the other end is quite up, it answers a second later, and what is
    sent meanwhile is dropped; on a slow machine that is often.
    """
    mac = there.ip("-br", "link", "show", remote).split()[2]
    place.ip("neigh", "replace", address, "lladdr", mac, "dev", interface, "nud", "permanent")


@dataclass(frozen=True, slots=True)
class Trunk:
    """The ``eni`` of a `Pair`, with VLAN devices made on both of its ends."""

    pair: Pair

    def __post_init__(self) -> None:
        for address in (f"{RESOLVER4}/32", f"{RESOLVER6}/128"):
            self.pair.vpc.ip("addr", "add", address, "dev", "lo")
        self.pair.vpc.enter("nft", "-f", "-", stdin="table inet trunk { }")
        self.pair.node.tc("qdisc", "add", "dev", "eni", "clsact")
        # Behind ours, and without an end: it only counts.
        self.pair.node.tc(
            *("filter", "add", "dev", "eni", "egress", "prio", "9", "protocol", "all", "bpf"),
            *("bytecode", _TAG_IN_METADATA, "action", "continue"),
        )

    def branch(self, vlan: int, *, reorder: bool = True, task: Namespace | None = None) -> str:
        """Make ``vlan.eth.<vlan>``, in the node or, as ECS does it, moved to a task's namespace.

        Without *reorder* the device writes the tag into the frame itself.
        """
        name, there = f"vlan.eth.{vlan}", f"vpc.{vlan}"
        home = task or self.pair.node
        order = "on" if reorder else "off"
        kind = ("type", "vlan", "id", str(vlan))
        self.pair.node.ip("link", "add", "link", "eni", "name", name, *kind, "reorder_hdr", order)
        self.pair.vpc.ip("link", "add", "link", "vpc", "name", there, *kind)
        if task:
            self.pair.node.ip("link", "set", name, "netns", task.name)
        for place, interface, host in ((home, name, 1), (self.pair.vpc, there, 2)):
            place.ip("addr", "add", f"10.8.{vlan}.{host}/24", "dev", interface)
            place.ip("addr", "add", f"2001:db8:{vlan}::{host}/64", "dev", interface, "nodad")
            place.ip("link", "set", interface, "up")
        for network in (f"10.8.{vlan}.", f"2001:db8:{vlan}::"):
            introduce(home, name, self.pair.vpc, there, f"{network}2")
            introduce(self.pair.vpc, there, home, name, f"{network}1")
        self._watch(vlan)
        return name

    def lead(self, vlan: int, home: Namespace | None = None) -> None:
        """Route the resolvers by way of a branch."""
        place, name = home or self.pair.node, f"vlan.eth.{vlan}"
        place.ip("route", "add", RESOLVER4, "via", f"10.8.{vlan}.2", "dev", name)
        place.ip("-6", "route", "add", RESOLVER6, "via", f"2001:db8:{vlan}::2", "dev", name)

    def without_offload(self) -> None:
        """Neither end takes tags out of frames or puts them in by itself."""
        for place, interface in ((self.pair.node, "eni"), (self.pair.vpc, "vpc")):
            place.enter("ethtool", "-K", interface, "rxvlan", "off", "txvlan", "off")

    def _watch(self, vlan: int) -> None:
        """Count what arrives on the far side's VLAN device, before the rules that drop it."""
        self.pair.vpc.enter(
            *("nft", "-f", "-"),
            stdin=f"""
            table inet trunk {{
              counter vlan{vlan} {{ }}
              chain vlan{vlan} {{
                type filter hook prerouting priority -400;
                iifname "vpc.{vlan}" meta l4proto {{ tcp, udp }} th dport 53 counter name vlan{vlan}
              }}
            }}""",
        )

    def arrived(self, vlan: int) -> int:
        """What nftables has counted on that VLAN of the far side."""
        line = self.pair.vpc.enter("nft", "list", "counter", "inet", "trunk", f"vlan{vlan}")
        found = re.search(r"packets (\d+)", line)
        assert found
        return int(found[1])

    def tags_in_metadata(self) -> int:
        """How many packets of any kind had their tag beside the frame when they left."""
        shown = self.pair.node.tc("-s", "-j", "filter", "show", "dev", "eni", "egress")
        for entry in json.loads(shown):
            for action in entry.get("options", {}).get("actions", []):
                return int(action["stats"]["packets"])
        raise AssertionError(f"the witness is not there: {shown}")


def send(place: Namespace, count: int, address: str) -> None:
    """Datagrams to port 53."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with place.socket(family) as sender:
        for _ in range(count):
            sender.sendto(b"question", (address, 53))


def send_from(place: Namespace, cgroup: Path, count: int, address: str) -> None:
    """Datagrams to port 53, sent by a process in *cgroup*."""
    command = f'echo $$ > {cgroup}/cgroup.procs && exec python3 -c "$0" {count} {address}'
    enter = ["nsenter", f"--net=/run/netns/{place.name}", "sh", "-c", command, _SEND]
    subprocess.run(enter, check=True)


def stream(client_in: Namespace, server_in: Namespace, address: str, size: int) -> None:
    """A TCP connection to port 53 that carries *size* bytes and is closed in order."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with server_in.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 53))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                while peer.recv(1 << 20):
                    pass

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        with client_in.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(60)
            client.connect((address, 53))
            client.sendall(bytes(size))
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        server.join()
