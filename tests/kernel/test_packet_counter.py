"""The sidecar's packet socket on a real device: what it counts, cuts up, loses, and says of it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from eni53.kernel.layout import SLOT_NS
from eni53.model import UNCLASSIFIED
from eni53.sidecar.heard import Heard
from eni53.sidecar.packet import PacketCounter, segments

from . import frames as f
from .netns import Pair, inside, until

RESOLVERS = ("10.0.0.2", "169.254.169.253", "2001:db8::53")
_UDP_SEGMENT = 103


@pytest.fixture
def counter(pair: Pair) -> Iterator[PacketCounter]:
    """On the pair's ENI."""
    with inside(pair.node.name):
        made = PacketCounter("eni", RESOLVERS)
    yield made
    made.close()


def cells(heard: list[Heard]) -> Counter[tuple[str, str]]:
    """Packets by class and protocol."""
    found: Counter[tuple[str, str]] = Counter()
    for one in heard:
        found[one.packet_class, one.protocol] += one.packets
    return found


def test_what_leaves_is_counted_and_nothing_else(pair: Pair, counter: PacketCounter) -> None:
    """As nftables counts it behind the wire: both families, in classes; not what comes in, nor what
    goes to another port.
    """
    with pair.node.socket() as four, pair.node.socket(socket.AF_INET6) as six:
        for number in range(97):
            four.sendto(b"x" * (number % 40), ("10.0.0.2", 53))
            four.sendto(b"x", ("10.0.0.9", 54))
        for _ in range(31):
            six.sendto(b"y", ("2001:db8::53", 53))
    with pair.node.socket() as server, pair.vpc.socket() as back:
        server.bind(("10.0.0.1", 53))  # or an ICMP error would leave, to a resolver's address
        back.sendto(b"to port 53 here", ("10.0.0.1", 53))
        assert server.recv(99) == b"to port 53 here"
    assert until(lambda: pair.counted("udp6") == 31)
    heard = counter.read()
    assert cells(heard) == {("resolver", "udp"): 97 + 31}
    assert pair.counted("udp4") + pair.counted("udp6") == 97 + 31
    assert counter.read() == []
    assert counter.stats == {"fragment": 0, "packet_dropped": 0}


def test_frames_of_every_kind(pair: Pair, counter: PacketCounter) -> None:
    """A sender with a raw socket chooses its frames: they are counted by what they are."""
    frames = [
        f.ipv4(f.udp(), f.UDP, "9.9.9.9"),
        f.ipv4(f.tcp(), f.TCP, "169.254.169.254"),
        f.ipv4(f.icmp(), f.ICMP, "169.254.169.123"),
        f.ipv6(f.udp(), f.UDP, "2001:db8::53", extensions=[f.option_header(0)]),
        f.ipv4(f.udp(), f.UDP, "10.0.0.2", offset=9),
        f.ipv4(f.udp(443), f.UDP, "10.0.0.2"),
    ]
    with inside(pair.node.name), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eni", 0))
        for frame in frames:
            raw.send(frame)
    assert cells(counter.read()) == {
        ("dns_other", "udp"): 1,
        ("imds", "tcp"): 1,
        ("ntp", "icmp"): 1,
        ("resolver", "udp"): 1,
    }
    assert counter.stats["fragment"] == 1


def test_each_packet_in_the_slot_of_its_time(pair: Pair, counter: PacketCounter) -> None:
    """However late they are read."""
    counter.read()
    sent: Counter[int] = Counter()
    with pair.node.socket() as sender:
        for number in range(8):
            # In the middle of a slot: between two readings of a clock there is room for neither.
            time.sleep((SLOT_NS * 1.5 - time.monotonic_ns() % SLOT_NS) / 1e9)
            before = time.monotonic_ns() // SLOT_NS
            for _ in range(number + 1):
                sender.sendto(b"z", ("10.0.0.2", 53))
            if time.monotonic_ns() // SLOT_NS == before:
                sent[before] += number + 1
    found = {one.slot: one.packets for one in counter.read()}
    assert len(sent) >= 4, "this machine stood still in the middle of most slots"
    assert {slot: found[slot] for slot in sent} == dict(sent)


def test_a_full_ring_is_counted_too(pair: Pair, counter: PacketCounter) -> None:
    """Nobody reads for 25,000 packets: those without room are unclassified, the sum is exact."""
    most = 25_000
    with pair.node.socket() as sender:
        for _ in range(most):
            sender.sendto(b"flood", ("10.0.0.2", 53))
    assert until(lambda: pair.counted("udp4") == most)
    found = cells(counter.read())
    assert found.keys() == {("resolver", "udp"), (UNCLASSIFIED, "other")}
    assert sum(found.values()) == most
    assert found[UNCLASSIFIED, "other"] == counter.stats["packet_dropped"] > 0
    with pair.node.socket() as sender:
        sender.sendto(b"after", ("10.0.0.2", 53))
    assert cells(counter.read()) == {("resolver", "udp"): 1}


def test_a_reader_that_keeps_up_with_a_flood(pair: Pair, counter: PacketCounter) -> None:
    """Three times as many packets as there is room for, read while they come: none is lost."""
    most, found = 60_000, Counter[tuple[str, str]]()

    def flood() -> None:
        with pair.node.socket() as sender:
            for number in range(most):
                sender.sendto(b"flood", ("10.0.0.2", 53))
                # A reader that is not let run for a while is waited for: there is room for 18,720.
                while number - read[0] > 12_000 and time.monotonic() < give_up:
                    time.sleep(0.002)

    read, give_up = [0], time.monotonic() + 60
    thread = threading.Thread(target=flood)
    thread.start()
    while thread.is_alive():
        found += cells(counter.read())
        read[0] = sum(found.values())
        time.sleep(0.01)
    thread.join()
    found += cells(counter.read())
    assert found == {("resolver", "udp"): most}


def test_resolvers_may_change(pair: Pair, counter: PacketCounter) -> None:
    """An address is a resolver's from the next packet on."""
    with pair.node.socket() as sender:
        sender.sendto(b"1", ("10.0.0.2", 53))
        counter.set_resolvers(["10.9.9.9"])
        sender.sendto(b"2", ("10.0.0.2", 53))
    assert cells(counter.read()) == {("resolver", "udp"): 1, ("dns_other", "udp"): 1}


def test_tcp_that_is_cut_up_by_the_card(pair: Pair) -> None:
    """With the offload on, one record is many packets: as many as TCP itself says it sent."""
    pair.node.enter("ethtool", "-K", "eni", "tx-tcp-segmentation", "on")
    with pair.vpc.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("10.0.0.2", 53))
        listener.listen()
        with inside(pair.node.name):
            counter = PacketCounter("eni", RESOLVERS)
        with contextlib.closing(counter):
            client = pair.node.socket(socket.AF_INET, socket.SOCK_STREAM)
            client.connect(("10.0.0.2", 53))
            taken, _ = listener.accept()
            with client, taken:
                client.sendall(bytes(300_000))
                got = 0
                while got < 300_000:
                    got += len(taken.recv(1 << 20))
                time.sleep(0.05)
                info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                (segs_out,) = struct.unpack_from("=I", info, 136)
                found = cells(counter.read())
    assert found[("resolver", "tcp")] == segs_out > 200


def test_udp_that_is_cut_up_by_the_card(pair: Pair) -> None:
    """The same of UDP_SEGMENT; an older kernel cannot describe one, and says it was lost."""
    pair.node.enter("ethtool", "-K", "eni", "tx-udp-segmentation", "on")
    with inside(pair.node.name):
        counter = PacketCounter("eni", RESOLVERS)
    with contextlib.closing(counter), pair.node.socket() as sender:
        sender.setsockopt(socket.SOL_UDP, _UDP_SEGMENT, 100)
        sender.sendto(bytes(1050), ("10.0.0.2", 53))
        found = cells(counter.read())
    assert found in ({("resolver", "udp"): 11}, {(UNCLASSIFIED, "other"): 1})


@pytest.mark.parametrize(
    ("length", "header", "expected"),
    [
        (34 + 32 + 1448 * 3, (1, 1, 66, 1448, 34, 16), 3),  # headers alone in the linear part
        (34 + 32 + 1448 * 3 + 1, (1, 1, 66, 1448, 34, 16), 4),
        (34 + 20 + 1460 * 2, (1, 1, 54, 1460, 34, 16), 2),  # TCP without time stamps
        (34 + 32 + 1448 * 3, (1, 1, 2000, 1448, 34, 16), 3),  # some payload in the linear part
        (34 + 8 + 1000, (1, 5, 42, 100, 34, 6), 10),
        (60, (1, 1, 66, 1448, 34, 16), 1),
    ],
)
def test_segments(length: int, header: tuple[int, ...], expected: int) -> None:
    """By what virtio says of the headers."""
    assert segments(length, header) == expected


def test_without_the_capability_it_says_so(pair: Pair) -> None:
    """And an interface that is not there likewise; neither leaves a socket."""
    with inside(pair.node.name), pytest.raises(OSError, match="No such device"):
        PacketCounter("nowhere", RESOLVERS)
