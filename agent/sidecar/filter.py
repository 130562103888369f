"""The classic filter: which packets are counted, and as what. Pure; the same rules as bpf/.

What a filter returns is how many bytes of the packet the socket gets. Every frame it lets through
is longer than `MOST`, so the length of what arrives *is* the answer: class and protocol, worked
out in the kernel, and of the packet itself nothing but the first bytes of a MAC address.

Other than in bpf/, VLAN tags inside the frame are not followed: nothing in a task makes any.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..model import CLASSES, PROTOCOLS
from . import classic as c
from .classic import Program

CELLS = tuple((name, protocol) for name in CLASSES for protocol in PROTOCOLS)
"""What a returned length stands for: 1 is the first of these."""
FRAGMENT = len(CELLS) + 1
"""A later fragment: it has no port, nobody can say what it is."""
MOST = FRAGMENT

_OUTGOING = 4
_DNS = 53
_ETHER = 14  # every offset below counts from the frame's start
_UDP, _TCP = 17, 6
_IPV4_SERVICES = {
    "169.254.169.254": "imds",
    "169.254.169.123": "ntp",
    "169.254.169.250": "linklocal_other",
    "169.254.169.251": "linklocal_other",
}
_IPV6_SERVICES = {
    "fd00:ec2::254": "imds",
    "fd00:ec2::123": "ntp",
    "fd00:ec2::250": "linklocal_other",
    "fd00:ec2::251": "linklocal_other",
}
_LINKLOCAL4_NET, _EC2_NET6 = 0xA9FEA900, 0xFD000EC2
_FRAGMENT, _AUTH = 44, 51
_EXTENSIONS = (0, 43, _FRAGMENT, _AUTH, 60, 135, 139, 140)
_FOLLOWED = 8
_X, _NEXT, _PROTOCOL, _TO_DNS = 0, 1, 2, 3  # scratch: offset behind the headers, and so on


def build(resolvers: Iterable[str], *, outgoing: bool = True) -> bytes:
    """The program for SO_ATTACH_FILTER on a socket that sees whole Ethernet frames.

    Args:
        resolvers: IPv4 and IPv6 addresses of the VPC's resolver.
        outgoing: Only what leaves; False is for a test whose frames come from no device.
    """
    known = [ip_address(address) for address in resolvers]
    p = Program()
    if outgoing:
        p.do(c.LD_W, c.PACKET_TYPE)
        p.unless(c.JEQ, _OUTGOING, "nothing")
    p.do(c.LD_H, 12)
    p.when(c.JEQ, 0x0800, "ipv4")
    p.when(c.JEQ, 0x86DD, "ipv6")
    p.jump("nothing")
    _ipv4(p, [a for a in known if isinstance(a, IPv4Address)])
    _ipv6(p, [a for a in known if isinstance(a, IPv6Address)])
    for position, name in enumerate(CLASSES):
        p.label(name)
        p.do(c.LDX_MEM, _PROTOCOL)
        p.do(c.LD_IMM, 1 + position * len(PROTOCOLS))
        p.do(c.ADD_X)
        p.do(c.RET_A)
    p.label("fragment")
    p.do(c.RET, FRAGMENT)
    p.label("nothing")
    p.do(c.RET, 0)
    return p.assemble()


def _ipv4(p: Program, resolvers: list[IPv4Address]) -> None:
    p.label("ipv4")
    p.do(c.LD_B, _ETHER)
    p.unless(c.JGE, 0x45, "nothing")  # version 4, and a header of five words at least
    p.unless(c.JGE, 0x50, "version 4")
    p.jump("nothing")
    p.label("version 4")
    p.do(c.LD_B, _ETHER + 19)  # the whole header is there; what is not ends the filter with 0
    p.do(c.LD_H, _ETHER + 6)
    p.when(c.JSET, 0x1FFF, "fragment")
    p.do(c.LDX_IHL, _ETHER)
    p.do(c.LD_B, _ETHER + 9)
    _transport(p, "4", icmp=1)
    p.label("address 4")
    p.do(c.LD_W, _ETHER + 16)
    p.do(c.AND, 0xFFFFFF00)
    _only_candidates(p, "4", c.JEQ, _LINKLOCAL4_NET)
    p.do(c.LD_W, _ETHER + 16)
    for address in resolvers:
        p.when(c.JEQ, int(address), "resolver's")
    for text, name in _IPV4_SERVICES.items():
        p.when(c.JEQ, int(IPv4Address(text)), name)
    _elsewhere(p)
    # Both families end here: DNS to a resolver, or something else to its address.
    p.label("resolver's")
    p.do(c.LD_MEM, _TO_DNS)
    p.when(c.JEQ, 1, "resolver")
    p.jump("linklocal_other")


def _ipv6(p: Program, resolvers: list[IPv6Address]) -> None:
    p.label("ipv6")
    p.do(c.LD_B, _ETHER)
    p.do(c.AND, 0xF0)
    p.unless(c.JEQ, 0x60, "nothing")
    p.do(c.LD_IMM, 40)
    p.do(c.ST, _X)
    p.do(c.LDX_MEM, _X)
    p.do(c.LD_B, _ETHER + 39)
    p.do(c.LD_B, _ETHER + 6)
    p.do(c.ST, _NEXT)
    for number in range(_FOLLOWED):
        _extension(p, number)
    for kind in _EXTENSIONS:  # more than anybody means
        p.when(c.JEQ, kind, "nothing")
    p.label("headers")
    _transport(p, "6", icmp=58)
    p.label("address 6")
    p.do(c.LD_W, _ETHER + 24)
    _only_candidates(p, "6", c.JEQ, _EC2_NET6)
    for position, address in enumerate(resolvers):
        _compare(p, int(address), "resolver's 6", f"not resolver {position}")
    for text, name in _IPV6_SERVICES.items():
        _compare(p, int(IPv6Address(text)), name, f"not {text}")
    _elsewhere(p)
    p.label("resolver's 6")
    p.do(c.LD_MEM, _TO_DNS)
    p.when(c.JEQ, 1, "resolver")
    p.jump("linklocal_other")


def _extension(p: Program, number: int) -> None:
    """One extension header, if the next one is: `_X` and `_NEXT`, X and A move on behind it."""
    inside, behind = f"extension {number}", f"behind {number}"
    for kind in _EXTENSIONS:
        p.when(c.JEQ, kind, inside)
    p.jump("headers")
    p.label(inside)
    p.do(c.LDX_B, _ETHER + 7)  # none is shorter than eight bytes
    p.do(c.LD_MEM, _NEXT)
    p.when(c.JEQ, _FRAGMENT, f"fragment {number}")
    p.when(c.JEQ, _AUTH, f"auth {number}")
    p.do(c.LDX_B, _ETHER + 1)
    p.do(c.ADD, 1)
    p.do(c.LSH, 3)
    p.jump(behind)
    p.label(f"auth {number}")
    p.do(c.LDX_B, _ETHER + 1)
    p.do(c.ADD, 2)
    p.do(c.LSH, 2)
    p.jump(behind)
    p.label(f"fragment {number}")
    p.do(c.LDX_H, _ETHER + 2)
    p.when(c.JSET, 0xFFF8, "fragment")
    p.do(c.LD_IMM, 8)
    p.label(behind)
    p.do(c.ADD_X)
    p.do(c.ST, _X)
    p.do(c.LDX_B, _ETHER)
    p.do(c.ST, _NEXT)
    p.do(c.LDX_MEM, _X)


def _transport(p: Program, family: str, icmp: int) -> None:
    """A is the protocol's number, X the length of the headers before it."""
    done = f"address {family}"
    p.when(c.JEQ, _UDP, f"udp {family}")
    p.when(c.JEQ, _TCP, f"tcp {family}")
    p.when(c.JEQ, icmp, f"icmp {family}")
    p.do(c.LD_IMM, PROTOCOLS.index("other"))
    p.jump(f"portless {family}")
    p.label(f"icmp {family}")
    p.do(c.LD_IMM, PROTOCOLS.index("icmp"))
    p.label(f"portless {family}")
    p.do(c.ST, _PROTOCOL)
    p.do(c.LDX_B, _ETHER - 1)  # the headers are all there
    p.do(c.LD_IMM, 0)
    p.do(c.ST, _TO_DNS)
    p.jump(done)
    p.label(f"tcp {family}")
    p.do(c.LD_IMM, PROTOCOLS.index("tcp"))
    p.do(c.ST, _PROTOCOL)
    p.jump(f"ports {family}")
    p.label(f"udp {family}")
    p.do(c.LD_IMM, PROTOCOLS.index("udp"))
    p.do(c.ST, _PROTOCOL)
    p.label(f"ports {family}")
    p.do(c.LD_IMM, 0)
    p.do(c.ST, _TO_DNS)
    p.do(c.LDX_H, _ETHER + 2)
    p.unless(c.JEQ, _DNS, done)
    p.do(c.LD_IMM, 1)
    p.do(c.ST, _TO_DNS)


def _only_candidates(p: Program, family: str, code: int, services: int) -> None:
    """A is what is compared; on goes a packet to port 53, to a service's network, or ICMP.

    A resolver's address may be any: what else goes there by UDP or TCP is not looked at.
    """
    p.when(code, services, f"candidate {family}")
    p.do(c.LD_MEM, _TO_DNS)
    p.when(c.JEQ, 1, f"candidate {family}")
    p.do(c.LD_MEM, _PROTOCOL)
    p.unless(c.JEQ, PROTOCOLS.index("icmp"), "nothing")
    p.label(f"candidate {family}")


def _elsewhere(p: Program) -> None:
    p.do(c.LD_MEM, _TO_DNS)
    p.when(c.JEQ, 1, "dns_other")
    p.jump("nothing")


def _compare(p: Program, address: int, same: str, other: str) -> None:
    """The four words of an IPv6 destination."""
    for word in range(4):
        p.do(c.LD_W, _ETHER + 24 + word * 4)
        p.unless(c.JEQ, address >> (96 - 32 * word) & 0xFFFFFFFF, other)
    p.jump(same)
    p.label(other)
