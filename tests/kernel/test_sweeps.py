"""Every value of the fields that steer the parser, and every length a frame can be cut to."""

from __future__ import annotations

import struct

import pytest

from . import frames as f
from .kernel import EXPECTED, Kernel, assert_agrees

RESOLVER4, RESOLVER6 = "10.0.0.2", "fd00:ec2::253"
VLANS = (11, 12)

_CHAIN = [
    f.option_header(f.HOP_BY_HOP),
    f.option_header(f.ROUTING, 2),
    f.fragment_header(),
    f.auth_header(),
    f.option_header(f.DESTINATION, 1),
]
_QUERY = f.udp(payload=f.dns_query())
_ANSWER = f.udp(40000, 53, f.dns_answer(rcode=3))
REPRESENTATIVES = {
    "udp": f.ipv4(_QUERY, f.UDP, RESOLVER4),
    "tcp with options": f.ipv4(f.tcp(payload=b"\0\x1d"), f.TCP, "9.9.9.9", options=bytes(40)),
    "icmp": f.ipv4(f.icmp(), f.ICMP, "169.254.169.254"),
    "tagged twice": f.ipv4(_QUERY, f.UDP, RESOLVER4, tags=[(f.QINQ, 12), (f.VLAN, 11)]),
    "udp6": f.ipv6(_QUERY, f.UDP, RESOLVER6),
    "chain": f.ipv6(_QUERY, f.UDP, RESOLVER6, extensions=_CHAIN),
    "tagged chain": f.ipv6(f.tcp(), f.TCP, RESOLVER6, extensions=_CHAIN, tags=[(f.VLAN, 11)]),
    "later fragment": f.ipv6(_QUERY, f.UDP, RESOLVER6, extensions=[f.fragment_header(5)]),
    "answer": f.ipv4(_ANSWER, f.UDP, "10.0.1.9", RESOLVER4),
    "answer6": f.ipv6(_ANSWER, f.UDP, "2001:db8::9", RESOLVER6, extensions=_CHAIN),
}

every_program = pytest.mark.parametrize("program", EXPECTED)


@every_program
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_cut_at_every_length(bench: Kernel, program: str, name: str) -> None:
    """A frame cut anywhere is counted, skipped or noted as the oracle says, and never read past."""
    frame = REPRESENTATIVES[name]
    assert_agrees(bench, program, [frame[:n] for n in range(14, len(frame) + 1)], VLANS)


@every_program
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_every_value_of_every_header_byte(bench: Kernel, program: str, name: str) -> None:
    """Each byte from the EtherType on takes each of its 256 values, the others being right."""
    frame = REPRESENTATIVES[name]
    for at in range(12, len(frame), 32):
        batch = [
            frame[:place] + bytes([value]) + frame[place + 1 :]
            for place in range(at, min(at + 32, len(frame), 94))
            for value in range(256)
            if not _is_tag(frame, place)
        ]
        assert_agrees(bench, program, batch, VLANS)


def _is_tag(frame: bytes, place: int) -> bool:
    """Tags have a test of their own: there is no room for 4096 branch ENIs."""
    return frame[12:14] in (b"\x81\x00", b"\x88\xa8") and 14 <= place < 22


@every_program
def test_every_ethertype(bench: Kernel, program: str) -> None:
    """All 65536: only IPv4, IPv6 and the two kinds of tag are looked into."""
    for body in (REPRESENTATIVES["udp"][14:], REPRESENTATIVES["udp6"][14:]):
        assert_agrees(bench, program, [f.ethernet(body, kind) for kind in range(1 << 16)])


@every_program
@pytest.mark.parametrize("destination", ["10.0.0.2", "9.9.9.9", "169.254.169.254"])
def test_every_protocol_of_ipv4(bench: Kernel, program: str, destination: str) -> None:
    """All 256, with ports where UDP and TCP have them: other protocols have none."""
    batch = [f.ipv4(f.tcp(), number, destination) for number in range(256)]
    assert_agrees(bench, program, batch)


@every_program
@pytest.mark.parametrize("destination", ["fd00:ec2::253", "2620:fe::fe", "fd00:ec2::254"])
def test_every_next_header_of_ipv6(bench: Kernel, program: str, destination: str) -> None:
    """All 256, at the front and behind an extension."""
    batch = [
        f.ipv6(f.tcp(), number, destination, extensions=chain)
        for number in range(256)
        for chain in ([], _CHAIN[:1], _CHAIN)
    ]
    assert_agrees(bench, program, batch)


@every_program
def test_every_header_length_of_ipv4(bench: Kernel, program: str) -> None:
    """IHL and version 0 to 15, with the options there, half there and missing."""
    batch = [
        f.ipv4(body, number, RESOLVER4, options=bytes(room), ihl=words, version=version)
        for words in range(16)
        for version in range(16)
        for room in (0, 8, 40)
        for number, body in ((f.UDP, _QUERY), (f.TCP, f.tcp()), (f.ICMP, f.icmp()))
    ]
    assert_agrees(bench, program, batch)


@every_program
def test_every_length_of_every_extension(bench: Kernel, program: str) -> None:
    """Lengths 0 to 255, with that much there, and with less: the ports are found or it is noted."""
    kinds = (f.HOP_BY_HOP, f.ROUTING, f.DESTINATION, f.MOBILITY, f.HIP, f.SHIM6, f.AUTH)
    for kind in kinds:
        right = f.auth_header if kind == f.AUTH else lambda n, kind=kind: f.option_header(kind, n)
        batch = []
        for units in range(256):
            number, whole = right(units)
            for there in {len(whole), max(len(whole) - 9, 7), 7}:
                chain = [(number, whole[:there])]
                batch.append(f.ipv6(_QUERY, f.UDP, RESOLVER6, extensions=chain))
        assert_agrees(bench, program, batch)


@every_program
def test_every_fragment_offset(bench: Kernel, program: str) -> None:
    """All 8192 offsets in both families: the first alone has ports."""
    assert_agrees(
        bench, program, [f.ipv4(_QUERY, f.UDP, RESOLVER4, offset=n) for n in range(1 << 13)]
    )
    batch = []
    for offset in range(1 << 13):
        chain = [f.fragment_header(offset, more=bool(offset & 1))]
        batch.append(f.ipv6(_QUERY, f.UDP, RESOLVER6, extensions=chain))
    assert_agrees(bench, program, batch)


def test_every_vlan(bench: Kernel) -> None:
    """All 4096 ids are told apart, priority bits and all, under one tag or two."""
    for start in range(0, 1 << 12, 128):
        batch = []
        for vlan in range(start, start + 128):
            tag = (f.VLAN, vlan % 16 << 12 | vlan)
            batch.append(f.ipv4(_QUERY, f.UDP, RESOLVER4, tags=[tag]))
            batch.append(f.ipv6(_QUERY, f.UDP, RESOLVER6, tags=[tag, (f.QINQ, 7)]))
        assert_agrees(bench, "eni_egress", batch)


@every_program
def test_every_port(bench: Kernel, program: str) -> None:
    """All 65536, as source and as destination: 53 and no other is DNS."""
    batch = []
    for port in range(1 << 16):
        carried = struct.pack("!HH", port, 53 if port & 1 else 54) + _QUERY[4:]
        batch.append(f.ethernet(_v4(f.UDP, carried), f.IPV4))
        carried = struct.pack("!HH", 53 if port & 2 else 54, port) + _ANSWER[4:]
        batch.append(f.ethernet(_v4(f.TCP if port & 4 else f.UDP, carried), f.IPV4))
    assert_agrees(bench, program, batch)


def _v4(protocol: int, carried: bytes) -> bytes:
    """An IPv4 packet to the resolver, made faster than `frames.ipv4` does."""
    return b"\x45" + bytes(8) + bytes([protocol, 0, 0, 9, 9, 9, 9, 10, 0, 0, 2]) + carried
