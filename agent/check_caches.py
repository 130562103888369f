"""Which DNS servers listen here: what they ask upstream is charged to who asks them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from sys import byteorder

from .check_item import Item

_PORT = 53
_WORD = 4  # /proc writes an address word by word, each in the machine's own order
_MOST_SHOWN = 4


def local_servers(*, cgroup2: bool, proc: Path = Path("/proc")) -> Iterator[Item]:
    """One item if there is any.

    Args:
        cgroup2: Whether processes of the host can be told apart.
        proc: Where procfs is mounted.
    """
    found = sorted(
        {
            address
            for name in ("udp", "udp6")
            for address in _listening(proc / "self" / "net" / name)
        }
    )
    if not found:
        return
    shown = ", ".join(found[:_MOST_SHOWN]) + (" …" if len(found) > _MOST_SHOWN else "")
    mend = ""
    if not cgroup2:
        mend = "without cgroup v2 that is known of containers behind a veth, not of host processes"
    yield Item(
        "dns servers here",
        "warn" if mend else "ok",
        f"{shown}: what they ask upstream over UDP is charged to who asks them",
        mend,
    )


def _listening(table: Path) -> Iterator[str]:
    """Addresses of the UDP sockets at port 53."""
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return  # no IPv6
    for line in lines:
        words = line.split()
        address, _, port = words[1].partition(":") if len(words) > 1 else ("", "", "")
        if port and int(port, 16) == _PORT:
            yield _address(address)


def _address(text: str) -> str:
    octets = bytes.fromhex(text)
    if byteorder == "little":
        words = (octets[at : at + _WORD] for at in range(0, len(octets), _WORD))
        octets = b"".join(word[::-1] for word in words)
    return str(IPv4Address(octets) if len(octets) == _WORD else IPv6Address(octets))
