"""Builds frames byte by byte, right ones and wrong ones: nothing here corrects what it is told."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence

IPV4 = 0x0800
IPV6 = 0x86DD
VLAN = 0x8100
QINQ = 0x88A8

ICMP = 1
TCP = 6
UDP = 17
SCTP = 132
ICMP6 = 58
NO_NEXT = 59

HOP_BY_HOP = 0
ROUTING = 43
FRAGMENT = 44
AUTH = 51
DESTINATION = 60
MOBILITY = 135
HIP = 139
SHIM6 = 140

Extension = tuple[int, bytes]  # its number, and all of it but the first byte


def ethernet(payload: bytes, ethertype: int, tags: Sequence[tuple[int, int]] = ()) -> bytes:
    """A frame; *tags* are (EtherType of the tag, TCI) from the outermost on."""
    frame = bytes.fromhex("02aa00000001") + bytes.fromhex("02bb00000002")
    for tpid, tci in tags:
        frame += struct.pack("!HH", tpid, tci)
    return frame + struct.pack("!H", ethertype) + payload


def ipv4(
    payload: bytes,
    protocol: int,
    destination: str,
    source: str = "10.0.1.9",
    *,
    options: bytes = b"",
    version: int = 4,
    ihl: int | None = None,
    offset: int = 0,
    flags: int = 0,
    tags: Sequence[tuple[int, int]] = (),
) -> bytes:
    """An IPv4 frame. *offset* is in units of 8 bytes; flags: 1 more fragments, 2 don't fragment."""
    words = 5 + len(options) // 4 if ihl is None else ihl
    header = struct.pack(
        "!BBHHHBBH4s4s",
        version << 4 | words,
        0,
        (20 + len(options) + len(payload)) & 0xFFFF,
        0x1234,
        flags << 13 | offset,
        64,
        protocol,
        0,
        ipaddress.IPv4Address(source).packed,
        ipaddress.IPv4Address(destination).packed,
    )
    return ethernet(header + options + payload, IPV4, tags)


def ipv6(
    payload: bytes,
    protocol: int,
    destination: str,
    source: str = "2001:db8::9",
    *,
    extensions: Sequence[Extension] = (),
    version: int = 6,
    tags: Sequence[tuple[int, int]] = (),
) -> bytes:
    """An IPv6 frame with *extensions* in between, each naming the one behind it."""
    numbers = [number for number, _ in extensions] + [protocol]
    chain = b"".join(
        bytes([following]) + rest
        for (_, rest), following in zip(extensions, numbers[1:], strict=True)
    )
    header = struct.pack(
        "!IHBB16s16s",
        version << 28 | 0x0BEEF,
        (len(chain) + len(payload)) & 0xFFFF,
        numbers[0],
        64,
        ipaddress.IPv6Address(source).packed,
        ipaddress.IPv6Address(destination).packed,
    )
    return ethernet(header + chain + payload, IPV6, tags)


def option_header(number: int, units: int = 0) -> Extension:
    """Any extension that counts its length in units of 8 bytes beyond the first."""
    return number, bytes([units]) + bytes(6 + units * 8)


def auth_header(words: int = 4) -> Extension:
    """Authentication header: its length counts words of 4 bytes, less two."""
    return AUTH, bytes([words]) + bytes((words + 2) * 4 - 2)


def fragment_header(offset: int = 0, *, more: bool = True) -> Extension:
    """Fragment header; *offset* in units of 8 bytes."""
    return FRAGMENT, struct.pack("!xHI", offset << 3 | more, 0xFEEDFACE)


def udp(destination: int = 53, source: int = 40000, payload: bytes = b"") -> bytes:
    """A UDP header and what it carries."""
    return struct.pack("!HHHH", source, destination, 8 + len(payload), 0) + payload


def tcp(destination: int = 53, source: int = 40000, payload: bytes = b"") -> bytes:
    """A TCP header without options (ACK) and what it carries."""
    return struct.pack("!HHIIBBHHH", source, destination, 1, 1, 5 << 4, 0x10, 512, 0, 0) + payload


def icmp() -> bytes:
    """An echo request."""
    return struct.pack("!BBHHH", 8, 0, 0, 1, 1)


def question(name: str, kind: int = 1) -> bytes:
    """The question section for one name."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part)
    return labels + b"\0" + struct.pack("!HH", kind, 1)


def dns_query(name: str = "example.com", identity: int = 7, kind: int = 1) -> bytes:
    """A query with recursion desired."""
    return struct.pack("!HHHHHH", identity, 0x0100, 1, 0, 0, 0) + question(name, kind)


def dns_answer(name: str = "example.com", identity: int = 7, rcode: int = 0) -> bytes:
    """An answer without records."""
    return struct.pack("!HHHHHH", identity, 0x8180 | rcode, 1, 0, 0, 0) + question(name)
