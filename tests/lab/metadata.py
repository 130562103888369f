"""The metadata tree that the lab's IMDS serves for its node."""

from __future__ import annotations

from collections.abc import Sequence

from . import vpc
from .vpc import Eni


def tree(enis: Sequence[Eni]) -> dict[str, str]:
    """Text by path below /latest/, as EC2 shows it for an instance with *enis*."""
    first = enis[0]
    leaves = {
        "meta-data/instance-id": vpc.INSTANCE_ID,
        "meta-data/instance-type": "m5.large",
        "meta-data/local-ipv4": first.ipv4,
        "meta-data/mac": first.mac,
        "meta-data/placement/availability-zone": "eu-west-1a",
        "meta-data/placement/region": "eu-west-1",
    }
    for eni in enis:
        base = f"meta-data/network/interfaces/macs/{eni.mac}/"
        leaves |= {
            base + "device-number": str(eni.device_number),
            base + "interface-id": eni.eni_id,
            base + "ipv6s": eni.ipv6,
            base + "local-hostname": f"ip-{eni.ipv4.replace('.', '-')}.eu-west-1.compute.internal",
            base + "local-ipv4s": eni.ipv4,
            base + "mac": eni.mac,
            base + "owner-id": "123456789012",
            base + "subnet-id": vpc.SUBNET_ID,
            base + "subnet-ipv4-cidr-block": vpc.SUBNET,
            base + "subnet-ipv6-cidr-blocks": vpc.SUBNET6,
            base + "vpc-id": vpc.VPC_ID,
            base + "vpc-ipv4-cidr-block": vpc.VPC_CIDR,
            base + "vpc-ipv4-cidr-blocks": vpc.VPC_CIDR,
        }
    return leaves
