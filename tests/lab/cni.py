"""A CNI plugin that gives a pod the network the Amazon VPC CNI gives it.

containerd runs it as a script, with the command in the environment and the configuration on stdin.
The pod has a /32 and a gateway that is nowhere, 169.254.1.1, with a fixed neighbour; the node has a
host route to the pod, the rule 512 that makes it found from every table, and for a pod of a
secondary ENI the rule 1536 that sends its packets through that ENI's table.

Which address a pod may have is in its lease, a file that the lab writes before. On EKS the plugin
asks ipamd on the node, and ipamd the EC2 API.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

TYPE = "eni53-lab-cni"
GATEWAY = "169.254.1.1"
TO_POD, FROM_POD = 512, 1536


def host_ifname(namespace: str, pod: str) -> str:
    """The node's end of a pod's pair, as the VPC CNI names it: a pod of that name gets it again."""
    digest = hashlib.sha1(f"{namespace}.{pod}".encode(), usedforsecurity=False).hexdigest()
    return "eni" + digest[:11]


def conflist(lab_id: str, leases: Path) -> str:
    """What containerd reads to find the plugin."""
    plugin = {"type": TYPE, "leases": str(leases)}
    return json.dumps({"cniVersion": "0.4.0", "name": f"eni53-{lab_id}", "plugins": [plugin]})


def lease(leases: Path, namespace: str, pod: str) -> Path:
    """The file that says what a pod may have: {"ipv4": address, "table": number or null}."""
    return leases / f"{namespace}.{pod}.json"


def commands(
    host: str, netns: str, given: dict[str, object]
) -> tuple[list[str], list[str], list[str]]:
    """``ip`` commands that make the pair: in the node, then in the pod, then in the node."""
    address = str(given["ipv4"])
    # Any fixed pair of MACs will do: both neighbours are permanent.
    tail = ":".join(f"{int(part):02x}" for part in address.split("."))
    mac, host_mac = f"06:10:{tail}", f"06:11:{tail}"
    make = [
        f"link add {host} address {host_mac} type veth peer name eth0 address {mac} netns {netns}",
    ]
    inside = [
        "link set lo up",
        "link set eth0 up",
        f"address add {address}/32 dev eth0",
        f"route add {GATEWAY} dev eth0 scope link",
        f"neigh replace {GATEWAY} lladdr {host_mac} dev eth0 nud permanent",
        f"route add default via {GATEWAY} dev eth0",
    ]
    outside = [
        f"link set {host} up",
        f"neigh replace {address} lladdr {mac} dev {host} nud permanent",
        f"route replace {address}/32 dev {host} scope link",
        f"rule add priority {TO_POD} to {address} lookup main",
    ]
    if given["table"] is not None:
        outside.append(f"rule add priority {FROM_POD} from {address} lookup {given['table']}")
    return make, inside, outside


def add(host: str, netns: str, given: dict[str, object]) -> dict[str, object]:
    """Make the pair; the result that CNI wants."""
    # One of the same name may be on its way out: the VPC CNI deletes it first, too.
    delete(host, given)
    make, inside, outside = commands(host, netns, given)
    _ip(make)
    _ip(inside, netns)
    _ip(outside)
    return {
        "cniVersion": "0.4.0",
        "interfaces": [{"name": host}, {"name": "eth0", "sandbox": netns}],
        "ips": [{"version": "4", "address": f"{given['ipv4']}/32", "interface": 1}],
    }


def delete(host: str, given: dict[str, object]) -> None:
    """Remove the pair, and with it its route; then its rules. What is gone already is fine."""
    _ip([f"link delete {host}"], check=False)
    _ip([f"rule delete priority {TO_POD} to {given['ipv4']}"], check=False)
    _ip([f"rule delete priority {FROM_POD} from {given['ipv4']}"], check=False)


def _ip(lines: list[str], netns: str | None = None, *, check: bool = True) -> None:
    enter = [] if netns is None else ["nsenter", f"--net={netns}"]
    done = subprocess.run(
        [*enter, "ip", "-batch", "-"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise RuntimeError(f"{done.stderr.strip()}: {'; '.join(lines)}")


def main() -> int:
    """Do what CNI_COMMAND says."""
    command = os.environ["CNI_COMMAND"]
    if command == "VERSION":
        print(json.dumps({"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}))
        return 0
    configuration = json.load(sys.stdin)
    args = dict(pair.split("=", 1) for pair in os.environ["CNI_ARGS"].split(";") if pair)
    names = args["K8S_POD_NAMESPACE"], args["K8S_POD_NAME"]
    host = host_ifname(*names)
    try:
        given = json.loads(lease(Path(configuration["leases"]), *names).read_text())
        if command == "ADD":
            print(json.dumps(add(host, os.environ["CNI_NETNS"], given)))
        elif command == "DEL":
            delete(host, given)
    except FileNotFoundError:
        # DEL must succeed for what was never added, or containerd keeps the sandbox.
        return _refuse("no lease for this pod") if command == "ADD" else 0
    except (OSError, ValueError, RuntimeError) as error:
        return _refuse(str(error))
    return 0


def _refuse(why: str) -> int:
    print(json.dumps({"cniVersion": "0.4.0", "code": 100, "msg": why}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
