"""The sidecar's classic filter, run by the kernel on a socket pair, against the oracle.

A datagram socket gets as many bytes as its filter returns, or none at all: the same answer that a
packet socket gets, without a device.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterable, Iterator
from ctypes import addressof, create_string_buffer

import pytest
from eni53.sidecar.filter import CELLS, FRAGMENT, build

from . import frames as f
from . import oracle
from .test_parse import CASES
from .test_random import mutated, noise, plausible_noise
from .test_sweeps import REPRESENTATIVES

_SO_ATTACH_FILTER = 26
_SHORTEST = 34  # no frame with an IP header is shorter
SEED = 0xE5353


class Filter:
    """The filter between two ends of a pair."""

    def __init__(self, program: bytes) -> None:
        self._in, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._in.setblocking(False)
        buffer = create_string_buffer(program)
        head = struct.pack("HL", len(program) // 8, addressof(buffer))
        self._in.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)

    def run(self, frame: bytes) -> int:
        """What it returns."""
        self._out.send(frame)
        try:
            return len(self._in.recv(1 << 16))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Both ends."""
        self._in.close()
        self._out.close()


@pytest.fixture(scope="module")
def classic() -> Iterator[Filter]:
    """With the resolvers that the oracle knows; frames of a pair are of no direction."""
    made = Filter(build(oracle.RESOLVERS, outgoing=False))
    yield made
    made.close()


def expected(frame: bytes) -> int:
    """By the oracle; a frame with a VLAN tag in it is nothing here."""
    if frame[12:14] in (b"\x81\x00", b"\x88\xa8"):
        return 0
    verdict = oracle.judge(frame)
    if verdict == oracle.FRAGMENT:
        return FRAGMENT
    if verdict[0] != "counted":
        return 0
    _, name, protocol, _ = verdict  # type: ignore[misc]
    return CELLS.index((name, protocol)) + 1


def agree(classic: Filter, batch: Iterable[bytes]) -> int:
    """Each frame as the oracle says; how many were counted."""
    counted = 0
    for frame in batch:
        found = classic.run(frame)
        assert found == expected(frame), frame.hex()
        counted += bool(found)
    return counted


def test_every_case_of_the_parser(classic: Filter) -> None:
    """The frames that bpf/ is tested with, by hand."""
    assert agree(classic, [frame for frame, _ in CASES.values()]) > 20


def test_every_class_and_protocol(classic: Filter) -> None:
    """Each cell has a length of its own, shorter than any frame that could be in it."""
    seen = set()
    services4 = ("169.254.169.254", "169.254.169.123", "169.254.169.250", "9.9.9.9")
    services6 = ("fd00:ec2::254", "fd00:ec2::123", "fd00:ec2::251", "2001:4860::8")
    for host in (*oracle.RESOLVERS, *services4, *services6):
        make, icmp = (f.ipv6, f.ICMP6) if ":" in host else (f.ipv4, f.ICMP)
        for number, body in ((f.UDP, f.udp()), (f.TCP, f.tcp()), (icmp, f.icmp()), (f.SCTP, b"")):
            frame = make(body, number, host)
            agree(classic, [frame])
            seen.add(classic.run(frame))
    assert len(seen - {0}) == 16  # port 53 makes the first two classes: no other protocol has one
    assert max(seen) <= FRAGMENT < _SHORTEST


@pytest.mark.parametrize("name", [n for n in REPRESENTATIVES if "tagged" not in n])
def test_cut_and_changed_everywhere(classic: Filter, name: str) -> None:
    """A frame cut at each length, and each byte of its headers with each of its values."""
    frame = REPRESENTATIVES[name]
    agree(classic, [frame[:n] for n in range(14, len(frame) + 1)])
    agree(
        classic,
        (
            frame[:place] + bytes([value]) + frame[place + 1 :]
            for place in range(12, min(len(frame), 94))
            for value in range(256)
        ),
    )


@pytest.mark.parametrize("make", [noise, plausible_noise, mutated])
def test_frames_nobody_would_think_of(classic: Filter, make) -> None:  # type: ignore[no-untyped-def]
    """A hundred thousand of each kind."""
    dice = random.Random(f"{SEED}-{make.__name__}")
    assert agree(classic, (make(dice) for _ in range(100_000))) > 50
