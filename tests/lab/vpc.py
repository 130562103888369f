"""The addresses of the lab's VPC, as AWS would hand them out. Values only, nothing is run here."""

from __future__ import annotations

import dataclasses

VPC_ID = "vpc-05300000000000001"
SUBNET_ID = "subnet-05300000000000001"
INSTANCE_ID = "i-05300000000000001"
VPC_CIDR = "10.53.0.0/16"
SUBNET = "10.53.1.0/24"
SUBNET6 = "fd53::/64"
GATEWAY = "10.53.1.1"
GATEWAY6 = "fd53::1"
GATEWAY_MAC = "02:53:ff:00:00:01"

RESOLVER = "10.53.0.2"
RESOLVERS4 = (RESOLVER, "169.254.169.253")
RESOLVER6 = "fd00:ec2::253"
IMDS4, IMDS6 = "169.254.169.254", "fd00:ec2::254"
NTP4, NTP6 = "169.254.169.123", "fd00:ec2::123"
LICENSING4 = ("169.254.169.250", "169.254.169.251")
# DNS servers that are not the VPC's: they take everything and answer nothing.
ELSEWHERE4, ELSEWHERE6 = "10.53.9.9", "fd53:9::9"

# Behind the node, not translated: the VPC routes them to the node's first ENI.
PODS, PODS6 = "10.53.2.0/24", "fd53:2::/64"
BRIDGED, BRIDGED6 = "10.53.3.0/24", "fd53:3::/64"
# The addresses of pods; those of secondary ENIs are routed back one by one.
CNI_PODS = "10.53.4.0/24"
# A pod on another node of the VPC, for clients that come through the ENI.
REMOTE_POD = "10.53.5.7"
# The service of the cluster's DNS, an address that only rules on the node know.
CLUSTER_DNS = "172.20.0.10"
DOCKER_GATEWAY = "172.31.200.1/24"
DOCKER6 = "fd53:d0::/64"

# The bridge by which ECS tasks reach the credentials that the ECS agent serves. No DNS there.
ECS_BRIDGE, ECS_BRIDGE_GATEWAY = "ecs-bridge", "169.254.172.1"
ECS_CREDENTIALS = "169.254.170.2"

MAX_ENIS = 15
MAX_TASK_ENIS = 150


@dataclasses.dataclass(frozen=True, slots=True)
class Eni:
    """One network interface of the node.

    Attributes:
        device_number: AWS's device number, from 0. It also is the position in ``Lab.enis``.
        interface: The device's name in the node namespace: ens5, ens6, ...
        uplink: The other end of the pair, in the vpc namespace, where packets are counted.
        table: The routing table that sends through this ENI; None for the first, which has main.
    """

    device_number: int
    interface: str
    uplink: str
    mac: str
    eni_id: str
    ipv4: str
    ipv6: str
    table: int | None

    @property
    def counters(self) -> str:
        """How the names of its counters begin."""
        return self.interface


@dataclasses.dataclass(frozen=True, slots=True)
class TaskEni:
    """The network interface that one awsvpc task has to itself.

    Attributes:
        interface: Its name in the task's namespace, always eth0.
        node_interface: Its name in the node namespace, when it passes through there.
        uplink: The other end of the pair, in the vpc namespace, where packets are counted.
        counters: How the names of its counters begin: task1, task2, ...
        bridge_ipv4: The task's address on the bridge to the credentials.
    """

    device_number: int
    interface: str
    node_interface: str
    uplink: str
    counters: str
    mac: str
    eni_id: str
    ipv4: str
    ipv6: str
    bridge_ipv4: str


def eni(device_number: int) -> Eni:
    """The ENI in slot *device_number*: always the same id, MAC and addresses."""
    interface = f"ens{5 + device_number}"
    return Eni(
        device_number=device_number,
        interface=interface,
        uplink=f"vpc-{interface}",
        mac=f"02:53:00:00:00:{device_number + 1:02x}",
        eni_id=f"eni-0530000000000000{device_number + 1:x}",
        ipv4=f"10.53.1.{10 + device_number}",
        ipv6=f"fd53::{10 + device_number}",
        table=None if device_number == 0 else 1000 + device_number,
    )


def task_eni(number: int) -> TaskEni:
    """The ENI of the lab's awsvpc task *number*, from 1: always the same id, MAC and addresses."""
    if not 1 <= number <= MAX_TASK_ENIS:
        raise ValueError(f"a lab has {MAX_TASK_ENIS} task ENIs at most")
    return TaskEni(
        device_number=MAX_ENIS - 1 + number,
        interface="eth0",
        node_interface=f"ens{100 + number}",
        uplink=f"vpc-task{number}",
        counters=f"task{number}",
        mac=f"02:53:00:00:01:{number:02x}",
        eni_id=f"eni-05300000000001{number:03x}",
        ipv4=f"10.53.1.{100 + number}",
        ipv6=f"fd53::1:{number:x}",
        bridge_ipv4=f"169.254.172.{1 + number}",
    )


def pod_ipv4(number: int) -> str:
    """The address of the lab's pod *number*, 1 to 250."""
    return f"{CNI_PODS.rpartition('.')[0]}.{number}"
