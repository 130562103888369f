"""The ENI of the namespace we are in: by the default route, from /proc and one ioctl.

No netlink: pyroute2 would be a third of a sidecar's memory.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from ..errors import NeedError

_SIOCGIFHWADDR = 0x8927
_ETHERNET = 1
_MAX_BYTES = 1 << 20
_UP, _GATEWAY = 0x1, 0x2
_REJECT = 0x200


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface.

    Attributes:
        mac: Lower case.
        prefixes: IPv4 networks that it reaches without a gateway.
    """

    name: str
    index: int
    mac: str
    prefixes: tuple[str, ...]


def find_interface(wanted: Collection[str], proc_net: Path = Path("/proc/self/net")) -> Interface:
    """The interface that is named, or that of the default route.

    Raises:
        NeedError: There is none, it is none of Ethernet, or more than one is named.
    """
    if len(wanted) > 1:
        raise NeedError("a sidecar counts one ENI: name one interface, or none")
    routes = _read(proc_net / "route")
    name = next(iter(wanted), None) or default_route(routes, _read(proc_net / "ipv6_route"))
    if name is None:
        raise NeedError("no ENI found: no default route names one; name it with --eni IFACE")
    try:
        index, mac = _identity(name)
    except OSError as error:
        raise NeedError(
            f"interface {name!r} does not exist in this network namespace ({error.strerror});"
            " name another one with --eni IFACE"
        ) from error
    return Interface(name, index, mac, prefixes(routes, name))


def default_route(routes: str, routes6: str) -> str | None:
    """Name of the interface of the preferred default route: IPv4 before IPv6."""
    found: list[tuple[int, int, str]] = []
    for line in routes.splitlines()[1:]:
        words = line.split()
        if len(words) >= 8 and words[1] == words[7] == "00000000" and int(words[3], 16) & _UP:
            found.append((0, int(words[6]), words[0]))
    for line in routes6.splitlines():
        words = line.split()
        if len(words) < 10 or words[0] != "0" * 32 or words[1] != "00" or words[9] == "lo":
            continue
        flags = int(words[8], 16)
        if flags & _UP and not flags & _REJECT:
            found.append((1, int(words[5], 16), words[9]))
    return min(found)[2] if found else None


def prefixes(routes: str, name: str) -> tuple[str, ...]:
    """Networks that *name* reaches directly, as ``10.0.64.0/18``."""
    found = []
    for line in routes.splitlines()[1:]:
        words = line.split()
        if len(words) < 8 or words[0] != name or int(words[3], 16) & _GATEWAY:
            continue
        # In the processor's byte order, as the kernel holds it.
        base, mask = (IPv4Address(struct.pack("=I", int(words[at], 16))) for at in (1, 7))
        if int(mask):
            found.append(str(IPv4Network(f"{base}/{mask}", strict=False)))
    return tuple(found)


def _identity(name: str) -> tuple[int, str]:
    index = socket.if_nametoindex(name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFHWADDR, struct.pack("=16s24x", name.encode()))
    (kind,) = struct.unpack_from("=H", answer, 16)
    if kind != _ETHERNET:
        raise NeedError(f"interface {name!r} is no Ethernet device; name another with --eni IFACE")
    return index, ":".join(f"{byte:02x}" for byte in answer[18:24])


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("ascii", "replace")
    except OSError:
        return ""
