"""Which addresses a UDP port is listened on, from procfs; and which addresses are this node's."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

MAX_BYTES = 1024 * 1024
DNS = 53
_WILDCARDS = {4: frozenset({"0.0.0.0", "::"}), 6: frozenset({"::"})}  # noqa: S104


def bound(table: bytes, port: int = DNS) -> frozenset[str]:
    """Addresses that *port* is bound to and not connected, of ``/proc/PID/net/udp`` or ``udp6``."""
    found = set()
    wanted = b":%04X" % port
    for line in table.split(b"\n")[1:]:
        words = line.split(None, 3)
        if len(words) < 4 or not words[1].endswith(wanted) or not words[2].endswith(b":0000"):
            continue
        try:
            found.add(_address(bytes.fromhex(words[1].partition(b":")[0].decode())))
        except ValueError:
            continue
    return frozenset(found)


def whole(table: bytes) -> bool:
    """Whether nothing was cut off: in a part of it what is missing may be what is looked for."""
    return len(table) < MAX_BYTES


def covers(listening: Iterable[str], address: str) -> bool:
    """Whether what is sent to *address*, one of that namespace's own, is heard.

    Of ``::`` nobody can see whether it takes IPv4 as well; most do.
    """
    wanted = {address, *_WILDCARDS[ip_address(address).version]}
    return not wanted.isdisjoint(listening)


def is_local(address: str) -> bool:
    """Whether *address* is one of the calling thread's network namespace. Sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, DNS))  # of UDP it only chooses the route and our own address
        except OSError:
            return False
        return str(sock.getsockname()[0]) == address


def _address(raw: bytes) -> str:
    if len(raw) not in {4, 16}:
        raise ValueError("no address")
    # 32-bit words in the machine's byte order, each of which is in the network's.
    words = struct.pack(f"={len(raw) // 4}I", *struct.unpack(f">{len(raw) // 4}I", raw))
    if len(raw) == 4:
        return str(IPv4Address(words))
    six = IPv6Address(words)
    return str(
        six.ipv4_mapped or six
    )  # ::ffff:127.0.0.1, as Java binds, hears what is sent by IPv4
