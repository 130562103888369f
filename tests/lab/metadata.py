"""The metadata that the lab's IMDS serves for its node, and in which of its moods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from . import vpc
from .shell import LabError
from .vpc import Eni, TaskEni

SECOND_CIDR = "100.64.0.0/16"
_MACS = "meta-data/network/interfaces/macs/"

# How the service behaves. imds.py does these.
BEHAVIOURS = ("expired", "503", "silent", "no-token")


def tree(enis: Sequence[Eni | TaskEni]) -> dict[str, str]:
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
        base = f"{_MACS}{eni.mac}/"
        leaves |= {
            base + "device-number": str(eni.device_number),
            base + "interface-id": eni.eni_id,
            base + "ipv6s": eni.ipv6,
            base + "local-hostname": f"ip-{eni.ipv4.replace('.', '-')}.eu-west-1.compute.internal",
            base + "local-ipv4s": eni.ipv4,
            base + "mac": eni.mac,
            base + "network-card": "0",
            base + "network-card-index": "0",
            base + "owner-id": "123456789012",
            base + "subnet-id": vpc.SUBNET_ID,
            base + "subnet-ipv4-cidr-block": vpc.SUBNET,
            base + "subnet-ipv6-cidr-blocks": vpc.SUBNET6,
            base + "vpc-id": vpc.VPC_ID,
            base + "vpc-ipv4-cidr-block": vpc.VPC_CIDR,
            base + "vpc-ipv4-cidr-blocks": vpc.VPC_CIDR,
        }
    return leaves


def _ipv6_only(leaves: dict[str, str], mac: str) -> None:
    """The interface of *mac* has no IPv4; its VPC has, as every VPC does."""
    for leaf in ("local-ipv4s", "subnet-ipv4-cidr-block"):
        del leaves[f"{_MACS}{mac}/{leaf}"]
    if leaves["meta-data/mac"] == mac:
        del leaves["meta-data/local-ipv4"]


def _two_cidrs(leaves: dict[str, str], _: str) -> None:
    for path in leaves:
        if path.endswith("/vpc-ipv4-cidr-blocks"):
            leaves[path] = f"{vpc.VPC_CIDR}\n{SECOND_CIDR}"


def _no_network_card(leaves: dict[str, str], _: str) -> None:
    """The shape of an instance type with a single card."""
    for path in [path for path in leaves if "/network-card" in path]:
        del leaves[path]


# What the service says; each is given the MAC of the node's last ENI.
CONTENTS: dict[str, Callable[[dict[str, str], str], None]] = {
    "ipv6-only": _ipv6_only,
    "two-cidrs": _two_cidrs,
    "no-network-card": _no_network_card,
}
MODES = (*BEHAVIOURS, *CONTENTS)


class Metadata:
    """What the IMDS is to serve: one file, which it reads again at each request.

    Args:
        path: The file; its directory need not exist before the first write.
        enis: The node's own ENIs.
        modes: See Lab.set_imds.
    """

    def __init__(self, path: Path, enis: Sequence[Eni], modes: Iterable[str] = ()) -> None:
        self.path = path
        self._enis: list[Eni | TaskEni] = list(enis)
        self._last = enis[-1].mac
        self._modes = _checked(modes)
        self._uses: int | None = 1
        self._seconds: float | None = None

    def set(self, modes: Iterable[str], *, uses: int | None, seconds: float | None) -> None:
        """Go on in these modes; none is a healthy service. See Lab.set_imds."""
        self._modes, self._uses, self._seconds = _checked(modes), uses, seconds
        self.write()

    def add(self, eni: TaskEni) -> None:
        """List *eni* from the next request on."""
        if eni not in self._enis:
            self._enis.append(eni)
        self.write()

    def remove(self, eni: TaskEni) -> None:
        """List *eni* no more; one that was not listed is fine."""
        self._enis = [known for known in self._enis if known != eni]
        self.write()

    def write(self) -> None:
        """Write the file, whole: a request never sees half of it."""
        if not self.path.parent.is_dir():
            return  # The lab is not up yet; it writes when it starts the service.
        leaves = tree(self._enis)
        for mode in self._modes:
            if mode in CONTENTS:
                CONTENTS[mode](leaves, self._last)
        state = {
            "tree": leaves,
            "modes": [mode for mode in self._modes if mode in BEHAVIOURS],
            "uses": self._uses,
            "seconds": self._seconds,
        }
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(state))
        new.replace(self.path)


def _checked(modes: Iterable[str]) -> list[str]:
    modes = list(modes)
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise LabError(f"no IMDS mode {unknown[0]!r}; there are {', '.join(MODES)}")
    return modes
