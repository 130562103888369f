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
DOCKER_GATEWAY = "172.31.200.1/24"
DOCKER6 = "fd53:d0::/64"

MAX_ENIS = 15


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
