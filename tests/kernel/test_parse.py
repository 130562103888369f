"""Each kind of frame, by name: what the programs make of it, by the frame's own lights."""

from __future__ import annotations

from collections import Counter

import pytest
from eni53.kernel import bpf

from . import frames as f
from . import oracle
from .kernel import NEXT, Kernel, assert_agrees, context
from .oracle import FRAGMENT, MALFORMED, NOTHING, Verdict

RESOLVER4, RESOLVER6 = "10.0.0.2", "fd00:ec2::253"
DNS4 = f.ipv4(f.udp(), f.UDP, RESOLVER4)
DNS6 = f.ipv6(f.udp(), f.UDP, RESOLVER6)

_BODIES4 = {
    "udp": (f.UDP, f.udp(53)),
    "tcp": (f.TCP, f.tcp(53)),
    "icmp": (f.ICMP, f.icmp()),
    "other": (f.SCTP, bytes(12)),
}
_BODIES6 = _BODIES4 | {"icmp": (f.ICMP6, f.icmp())}
_SERVICES = {
    "imds": ("169.254.169.254", "fd00:ec2::254"),
    "ntp": ("169.254.169.123", "fd00:ec2::123"),
    "linklocal_other": ("169.254.169.250", "fd00:ec2::251"),
}


def _every_class_protocol_and_family() -> list[tuple[bytes, Verdict]]:
    cases = []
    for protocol in ("udp", "tcp", "icmp", "other"):
        number4, body4 = _BODIES4[protocol]
        number6, body6 = _BODIES6[protocol]
        has_port = protocol in ("udp", "tcp")
        for name, (four, six) in _SERVICES.items():
            cases.append((f.ipv4(body4, number4, four), name, protocol))
            cases.append((f.ipv6(body6, number6, six), name, protocol))
        at_resolver = "resolver" if has_port else "linklocal_other"
        cases.append((f.ipv4(body4, number4, "169.254.169.253"), at_resolver, protocol))
        cases.append((f.ipv6(body6, number6, RESOLVER6), at_resolver, protocol))
        if has_port:
            cases.append((f.ipv4(body4, number4, RESOLVER4), "resolver", protocol))
            cases.append((f.ipv6(body6, number6, "2001:db8::53"), "resolver", protocol))
            cases.append((f.ipv4(body4, number4, "9.9.9.9"), "dns_other", protocol))
            cases.append((f.ipv6(body6, number6, "2620:fe::fe"), "dns_other", protocol))
    return [(frame, ("counted", name, protocol, 0)) for frame, name, protocol in cases]


def _tagged(*tags: tuple[int, int]) -> bytes:
    return f.ipv4(f.udp(), f.UDP, RESOLVER4, tags=tags)


DNS = ("counted", "resolver", "udp", 0)
CASES: dict[str, tuple[bytes, Verdict]] = {
    f"{verdict[1]}-{verdict[2]}-{number}": (frame, verdict)
    for number, (frame, verdict) in enumerate(_every_class_protocol_and_family())
}
CASES |= {
    "another port of the resolver": (f.ipv4(f.udp(80), f.UDP, RESOLVER4), NOTHING),
    "another port of the link-local resolver": (
        f.ipv4(f.udp(80), f.UDP, "169.254.169.253"),
        ("counted", "linklocal_other", "udp", 0),
    ),
    "ping of the resolver": (
        f.ipv4(f.icmp(), f.ICMP, RESOLVER4),
        ("counted", "linklocal_other", "icmp", 0),
    ),
    "other to the resolver": (f.ipv4(bytes(9), f.SCTP, RESOLVER4), NOTHING),
    "ping of anybody": (f.ipv4(f.icmp(), f.ICMP, "9.9.9.9"), NOTHING),
    "web": (f.ipv4(f.tcp(443), f.TCP, "9.9.9.9"), NOTHING),
    "from port 53": (f.ipv4(f.udp(40000, 53), f.UDP, "9.9.9.9"), NOTHING),
    "ECS credentials never leave": (f.ipv4(f.tcp(80), f.TCP, "169.254.170.2"), NOTHING),
    "unused link-local address": (f.ipv4(f.udp(9), f.UDP, "169.254.169.1"), NOTHING),
    "unused fd00:ec2 address": (f.ipv6(f.udp(9), f.UDP, "fd00:ec2::1"), NOTHING),
    "fd00:ec2 with a middle": (f.ipv6(f.udp(9), f.UDP, "fd00:ec2:0:1::254"), NOTHING),
    "ARP": (f.ethernet(bytes(28), 0x0806), NOTHING),
    "options": (f.ipv4(f.udp(), f.UDP, RESOLVER4, options=bytes(4)), DNS),
    "most options": (f.ipv4(f.udp(), f.UDP, RESOLVER4, options=bytes(40)), DNS),
    "first fragment": (f.ipv4(f.udp(), f.UDP, RESOLVER4, flags=1), DNS),
    "don't fragment": (f.ipv4(f.udp(), f.UDP, RESOLVER4, flags=2), DNS),
    "later fragment": (f.ipv4(f.udp(), f.UDP, RESOLVER4, flags=1, offset=185), FRAGMENT),
    "last fragment": (f.ipv4(f.udp(), f.UDP, RESOLVER4, offset=0x1FFF), FRAGMENT),
    "later fragment to anybody": (f.ipv4(b"", f.TCP, "9.9.9.9", offset=1), FRAGMENT),
    "IHL of 4": (f.ipv4(f.udp(), f.UDP, RESOLVER4, ihl=4), MALFORMED),
    "IPv4 that says 6": (f.ipv4(f.udp(), f.UDP, RESOLVER4, version=6), MALFORMED),
    "IPv6 that says 4": (f.ipv6(f.udp(), f.UDP, RESOLVER6, version=4), MALFORMED),
    "options beyond the frame, ICMP": (
        f.ipv4(f.icmp(), f.ICMP, "169.254.169.254", ihl=15),
        MALFORMED,
    ),
    "extension beyond the frame, nothing next": (
        f.ipv6(b"", f.NO_NEXT, RESOLVER6, extensions=[(f.DESTINATION, b"\x09" + bytes(6))]),
        MALFORMED,
    ),
    "VLAN": (_tagged((f.VLAN, 11)), ("counted", "resolver", "udp", 11)),
    "VLAN with priority bits": (_tagged((f.VLAN, 0xF00B)), ("counted", "resolver", "udp", 11)),
    "service VLAN": (_tagged((f.QINQ, 12)), ("counted", "resolver", "udp", 12)),
    "two tags: the outer": (
        _tagged((f.QINQ, 12), (f.VLAN, 11)),
        ("counted", "resolver", "udp", 12),
    ),
    "priority tag, then a VLAN": (
        _tagged((f.VLAN, 0xE000), (f.VLAN, 11)),
        ("counted", "resolver", "udp", 11),
    ),
    "priority tag": (_tagged((f.VLAN, 0xE000)), DNS),
    "three tags": (_tagged((f.QINQ, 12), (f.VLAN, 11), (f.VLAN, 10)), NOTHING),
    "no room for ports": (f.ipv4(b"\0\0\0", f.UDP, RESOLVER4), MALFORMED),
    "nothing but ports": (f.ipv4(f.udp()[:4], f.UDP, RESOLVER4), DNS),
}
_EVERY = [f.option_header(n, n % 3) for n in (f.HOP_BY_HOP, f.DESTINATION, f.ROUTING)]
_EVERY += [f.fragment_header(), f.auth_header(), f.option_header(f.MOBILITY)]
_EVERY += [f.option_header(f.HIP), f.option_header(f.SHIM6)]
for number, one in _EVERY:
    CASES[f"extension {number}"] = (
        f.ipv6(f.udp(), f.UDP, RESOLVER6, extensions=[(number, one)]),
        DNS,
    )
CASES |= {
    "eight extensions": (f.ipv6(f.udp(), f.UDP, RESOLVER6, extensions=_EVERY), DNS),
    "nine extensions": (
        f.ipv6(f.udp(), f.UDP, RESOLVER6, extensions=[*_EVERY, _EVERY[0]]),
        MALFORMED,
    ),
    "IPv6 later fragment": (
        f.ipv6(f.udp(), f.UDP, RESOLVER6, extensions=[f.fragment_header(1)]),
        FRAGMENT,
    ),
    "IPv6 later fragment behind options": (
        f.ipv6(f.udp(), f.UDP, RESOLVER6, extensions=[_EVERY[0], f.fragment_header(181)]),
        FRAGMENT,
    ),
    "encrypted (ESP)": (f.ipv6(f.udp(), 50, "2001:db8::53"), NOTHING),
    "no next header": (f.ipv6(b"", f.NO_NEXT, "2001:db8::53"), NOTHING),
}


@pytest.mark.parametrize("name", CASES)
def test_a_frame_is_judged_as_it_should_be(bench: Kernel, name: str) -> None:
    """Every class, protocol, family and header: by hand, by the oracle, by all programs."""
    frame, verdict = CASES[name]
    assert verdict == oracle.judge(frame)
    seen = bench.observe("eni_egress", [frame])
    assert ({} if verdict == NOTHING else {verdict: 1}) == dict(seen)
    assert_agrees(bench, "workload_ingress", [frame])
    assert_agrees(bench, "eni_ingress", [frame], [11, 12])


@pytest.mark.parametrize(
    ("segments", "size", "packets"),
    [(0, 0, 1), (1, 0, 1), (7, 0, 7), (65535, 0, 65535), (0, 1400, 2), (0, 1399, 3), (2, 500, 2)],
)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_gso_counts_packets_on_the_wire(
    bench: Kernel, protocol: str, segments: int, size: int, packets: int
) -> None:
    """One GSO skb counts as what the wire will carry, also when nobody has counted it yet."""
    payload = bytes(2 * 1400)
    number = f.TCP if protocol == "tcp" else f.UDP
    body = f.tcp(payload=payload) if protocol == "tcp" else f.udp(payload=payload)
    bench.forget()
    frame = f.ipv4(body, number, RESOLVER4)
    bench.run("eni_egress", frame, gso_segs=segments, gso_size=size)
    bench.run("workload_ingress", frame, gso_segs=segments, gso_size=size)
    sample = bench.maps.read()
    assert [packets] == list(sample.senders.values())
    assert [{"resolver": packets}] == [origin.sent for origin in sample.origins.values()]
    (eni,) = sample.enis.values()
    assert packets == sum(slot.linklocal for slot in eni.slots)


def test_nothing_is_counted_on_an_interface_that_was_not_added(bench: Kernel) -> None:
    """Programs may be attached a moment before the agent knows the ENI: no rows appear by then."""
    bench.forget()
    bench.maps.remove_eni(bench.dev)
    assert bench.run("eni_egress", DNS4) == NEXT
    assert bench.maps.read().senders == {}


def test_a_branch_eni_becomes_known_by_its_first_packet(bench: Kernel) -> None:
    """A VLAN seen on a trunk gets a ring of its own, and the trunk's own ring stays as it was."""
    bench.forget()
    bench.run("eni_egress", _tagged((f.VLAN, 11)))
    enis = bench.maps.read().enis
    counted = {place: sum(s.linklocal for s in eni.slots) for place, eni in enis.items()}
    assert counted == {(bench.dev, 0): 0, (bench.dev, 11): 1}


@pytest.mark.parametrize("length", [1, 13])
def test_the_kernel_runs_no_frame_without_an_ethernet_header(bench: Kernel, length: int) -> None:
    """What is shorter than 14 bytes cannot be tried here: the kernel says EINVAL."""
    with pytest.raises(OSError, match="Invalid argument"):
        bpf.test_run(bench.loaded.programs["eni_egress"], DNS4[:length], context=context())


def test_the_counts_do_not_depend_on_who_answers_for_it(bench: Kernel) -> None:
    """All cases in one batch: the counts add up, none is charged twice."""
    batch = [frame for frame, _ in CASES.values()]
    wanted = Counter(verdict for _, verdict in CASES.values() if verdict != NOTHING)
    assert wanted == bench.observe("eni_egress", batch)
