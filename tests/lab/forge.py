"""Sends DNS queries in frames of its own making, whose senders are lies: what NET_RAW allows.

Runs in a container, standard library alone: ``forge.py INTERFACE GATEWAY_MAC OWN TO VICTIM COUNT``.
Each kind is sent COUNT times, to port 53 of TO; the number of all frames is printed.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import struct
import sys

QUERY = (
    struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\x06forged\x04test\0" + struct.pack("!2H", 1, 1)
)


def checksum(header: bytes) -> int:
    """Of an IPv4 header whose own is 0."""
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def packet(source: str, to: str, port: int) -> bytes:
    """An IPv4 packet with a query in it; a UDP checksum of 0 means none."""
    udp = struct.pack("!4H", port, 53, 8 + len(QUERY), 0) + QUERY
    addresses = socket.inet_aton(source) + socket.inet_aton(to)
    start = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), port, 0, 64, socket.IPPROTO_UDP, 0)
    check = checksum(start + addresses)
    return start[:10] + struct.pack("!H", check) + addresses + udp


def mac(text: str) -> bytes:
    """Six bytes."""
    return bytes.fromhex(text.replace(":", ""))


def main(interface: str, gateway: str, own: str, to: str, victim: str, count: str) -> None:
    """Send all of it, in a mixed order that is always the same."""
    lots = random.Random(53)
    frames = []
    for number in range(int(count)):
        honest, port = packet(own, to, 20000 + number), 30000 + number
        made_up = str(ipaddress.IPv4Address(lots.randrange(0x0B000000, 0x63000000)))
        other_mac = b"\x02\x53" + lots.randbytes(4)
        vlan = struct.pack("!2H", 0x8100, 1 + number % 4094)
        plain = struct.pack("!H", 0x0800)
        me = b"\x02\x42\xac\x1f\xc8\x99"
        frames += [
            mac(gateway) + other_mac + plain + honest,
            mac(gateway) + mac(gateway) + plain + honest,  # as if it were the bridge
            mac(gateway) + me + plain + packet(victim, to, port),
            mac(gateway) + me + plain + packet("169.254.169.253", to, port),
            mac(gateway) + me + plain + packet(made_up, to, port),
            mac(gateway) + me + vlan + plain + honest,
            mac(gateway) + me + struct.pack("!2H", 0x8100, 0) + plain + honest,
            mac(gateway) + me + struct.pack("!2H", 0x88A8, 5) + vlan + plain + honest,
        ]
    lots.shuffle(frames)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        for frame in frames:
            raw.send(frame)
    print(len(frames))


if __name__ == "__main__":
    main(*sys.argv[1:])
