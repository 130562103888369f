"""What a frame is, worked out a second time: from DESIGN.md and RFCs, for comparison with bpf/.

Slow and plain on purpose. Rules that the standards leave open, and eni53 decides:

* the VLAN of a frame is the first id that is not 0, of at most two tags;
* a later fragment is told by its IP header alone, whatever is behind it;
* at most eight IPv6 extension headers are followed, in any order;
* headers that end beyond the frame are malformed, whoever they are for;
* UDP and TCP to another port than 53 count only for 169.254.169.0/24 and fd00:ec2::/32, where the
  services live; ICMP counts to a resolver wherever it is.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

RESOLVERS = ("10.0.0.2", "169.254.169.253", "fd00:ec2::253", "2001:db8::53")
"""What the tests tell the programs."""

Verdict = tuple[str, ...] | tuple[str, str, str, int]
NOTHING: Verdict = ("nothing",)
FRAGMENT: Verdict = ("fragment",)
MALFORMED: Verdict = ("malformed",)

_SERVICES = {
    "169.254.169.254": "imds",
    "fd00:ec2::254": "imds",
    "169.254.169.123": "ntp",
    "fd00:ec2::123": "ntp",
    "169.254.169.250": "linklocal_other",
    "169.254.169.251": "linklocal_other",
    "fd00:ec2::250": "linklocal_other",
    "fd00:ec2::251": "linklocal_other",
}
_SERVICE_OF = {ipaddress.ip_address(text).packed: name for text, name in _SERVICES.items()}
_RESOLVERS = frozenset(ipaddress.ip_address(text).packed for text in RESOLVERS)
_NETS = (bytes([169, 254, 169]), bytes.fromhex("fd000ec2"))
_EIGHT_BYTE_UNITS = {0: "hop-by-hop", 43: "routing", 60: "options", 135: "mobility", 139: "hip"}
_EIGHT_BYTE_UNITS[140] = "shim6"
_FOLLOWED = 8


class _Ends(Exception):
    """The frame is judged already."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Datagram:
    """The headers of a frame that has an IP packet in it, first fragments included."""

    vlan: int
    source: bytes
    destination: bytes
    protocol: str
    ports: tuple[int, int]
    transport: bytes


def _take(data: bytes, count: int) -> tuple[bytes, bytes]:
    if len(data) < count:
        raise _Ends(MALFORMED)
    return data[:count], data[count:]


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _open_ipv4(data: bytes) -> tuple[bytes, bytes, int, bytes]:
    header, rest = _take(data, 20)
    words = header[0] & 15
    if header[0] >> 4 != 4 or words < 5:
        raise _Ends(MALFORMED)
    if _number(header[6:8]) & 0x1FFF:
        raise _Ends(FRAGMENT)
    _, rest = _take(rest, words * 4 - 20)
    return header[12:16], header[16:20], header[9], rest


def _open_ipv6(data: bytes) -> tuple[bytes, bytes, int, bytes]:
    header, rest = _take(data, 40)
    if header[0] >> 4 != 6:
        raise _Ends(MALFORMED)
    number, followed = header[6], 0
    while number in _EIGHT_BYTE_UNITS or number in (44, 51):
        followed += 1
        if followed > _FOLLOWED:
            raise _Ends(MALFORMED)
        start, _ = _take(rest, 8)
        if number == 44:
            if _number(start[2:4]) >> 3:
                raise _Ends(FRAGMENT)
            length = 8
        elif number == 51:
            length = (start[1] + 2) * 4
        else:
            length = (start[1] + 1) * 8
        number = start[0]
        _, rest = _take(rest, length)
    return header[8:24], header[24:40], number, rest


def dissect(frame: bytes) -> Datagram:
    """The IP packet in *frame*, or `_Ends` with the verdict."""
    _, rest = _take(frame, 12)
    kind, rest = _take(rest, 2)
    vlan = tags = 0
    while _number(kind) in (0x8100, 0x88A8) and tags < 2:
        tag, rest = _take(rest, 4)
        vlan = vlan or _number(tag[:2]) & 0xFFF
        kind, tags = tag[2:], tags + 1
    if _number(kind) == 0x0800:
        source, destination, number, rest = _open_ipv4(rest)
    elif _number(kind) == 0x86DD:
        source, destination, number, rest = _open_ipv6(rest)
    else:
        raise _Ends(NOTHING)
    ports = (0, 0)
    if number in (6, 17):
        both, _ = _take(rest, 4)
        ports = (_number(both[:2]), _number(both[2:]))
    icmp = 1 if len(source) == 4 else 58
    protocol = {6: "tcp", 17: "udp", icmp: "icmp"}.get(number, "other")
    return Datagram(vlan, source, destination, protocol, ports, rest)


def _class_of(datagram: Datagram) -> str | None:
    destination, to_dns = datagram.destination, datagram.ports[1] == 53
    local = destination.startswith(_NETS[len(destination) == 16])
    if not local and not to_dns and datagram.protocol != "icmp":
        return None
    if destination in _RESOLVERS:
        return "resolver" if to_dns else "linklocal_other"
    return _SERVICE_OF.get(destination) or ("dns_other" if to_dns else None)


def judge(frame: bytes) -> Verdict:
    """What the ENI's egress program must do with *frame*."""
    try:
        datagram = dissect(frame)
    except _Ends as ends:
        return ends.verdict
    found = _class_of(datagram)
    return ("counted", found, datagram.protocol, datagram.vlan) if found else NOTHING


def sent(frame: bytes) -> Verdict:
    """What the veth's program must do with *frame*: it keeps classes and nothing else."""
    verdict = judge(frame)
    return verdict[:2] if verdict[0] == "counted" else NOTHING  # type: ignore[return-value]


def answer(frame: bytes) -> Verdict:
    """What the ENI's ingress program must do with *frame*: count the rcode of answers over UDP."""
    try:
        datagram = dissect(frame)
    except _Ends:
        return NOTHING
    dns = datagram.transport[8:12]
    if datagram.protocol != "udp" or datagram.ports[0] != 53 or len(dns) < 4 or not dns[2] & 0x80:
        return NOTHING
    return ("answer", str(dns[3] & 15), "udp", datagram.vlan)


def question(message: bytes) -> bytes | None:
    """What a DNS query asks for, as far as eni53 tells questions apart; None: for nothing.

    The name up to its first zero byte, which must be among the first 256, A to Z as a to z; then
    the type. Two messages ask for the same when this is the same. A response asks for nothing.
    """
    body = message[12:]
    end = body[:256].find(0)
    if end < 0 or len(body) < end + 3 or message[2] & 0x80:
        return None
    return body[:end].lower() + body[end : end + 3]


def query(frame: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Source, destination and question of a DNS query over UDP; None for every other frame."""
    try:
        datagram = dissect(frame)
    except _Ends:
        return None
    found = question(datagram.transport[8:])
    if datagram.protocol != "udp" or datagram.ports[1] != 53 or found is None:
        return None
    return datagram.source, datagram.destination, found


@dataclass(slots=True)
class _Ask:
    client: bytes
    cache: bytes
    served: bool = False


class Askers:
    """Who is charged for a cache's queries, when nothing is older than five seconds."""

    def __init__(self) -> None:
        self._asks: dict[bytes, _Ask] = {}

    def inbound(self, frame: bytes) -> None:
        """A client's question, perhaps: the first one that waits for an answer stays."""
        found = query(frame)
        if found is None:
            return
        source, destination, asked = found
        if asked not in self._asks or self._asks[asked].served:
            self._asks[asked] = _Ask(source, destination)

    def outbound(self, frame: bytes) -> bytes | None:
        """Address of the client for whom the frame is sent; None: the sender's own doing."""
        found = query(frame)
        ask = self._asks.get(found[2]) if found else None
        if found is None or ask is None or ask.cache != found[0]:
            return None
        ask.served = True
        return ask.client
