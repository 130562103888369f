"""Without any capability: how many UDP datagrams the whole network namespace has sent.

An upper bound of its DNS over UDP, and said to be one: all UDP counts, wherever it goes, loopback
too. What it cannot see at all is TCP (the metadata service, DNS over TCP), ICMP and raw sockets.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from ..kernel.layout import SLOT_NS
from ..model import UNCLASSIFIED
from .heard import UDP_COUNTERS, Heard

_MAX_BYTES = 64 * 1024
_LITE_TOO = ("Udp", "UdpLite")


class UdpCounter:
    """Reads the namespace's counters; what they held before is not counted.

    Args:
        proc_net: The namespace's directory of /proc.

    Raises:
        OSError: They cannot be read.
    """

    mode = UDP_COUNTERS

    def __init__(self, proc_net: Path = Path("/proc/self/net")) -> None:
        self._proc_net = proc_net
        self._before = self._sent()

    @property
    def stats(self) -> dict[str, int]:
        """Nothing is told."""
        return {}

    def set_resolvers(self, addresses: Iterable[str]) -> None:
        """Makes no difference: where a datagram went is not told."""

    def read(self) -> list[Heard]:
        """What was sent since the last call, all in the slot in progress."""
        sent = self._sent()
        risen, self._before = sent - self._before, sent
        if risen <= 0:
            return []
        return [Heard(UNCLASSIFIED, "udp", risen, time.monotonic_ns() // SLOT_NS)]

    def close(self) -> None:
        """There is nothing to let go of."""

    def _sent(self) -> int:
        try:
            four = out_datagrams(self._text("snmp"))
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                return four + out_datagrams6(self._text("snmp6"))
        except ValueError as error:
            raise OSError(f"no number among the UDP counters: {error}") from None
        return four

    def _text(self, name: str) -> str:
        with (self._proc_net / name).open("rb") as file:
            return file.read(_MAX_BYTES).decode("ascii", "replace")


def out_datagrams(snmp: str) -> int:
    """UDP datagrams sent over IPv4, from /proc/net/snmp: a line of names, then one of numbers.

    Raises:
        OSError: It says nothing of UDP: not knowing is not zero.
    """
    lines = [line.split() for line in snmp.splitlines()]
    found = [
        int(numbers[names.index("OutDatagrams")])
        for names, numbers in pairwise(lines)
        if names and numbers and names[0] == numbers[0]
        and names[0].rstrip(":") in _LITE_TOO and "OutDatagrams" in names
        and names.index("OutDatagrams") < len(numbers)
    ]  # fmt: skip
    if not found:
        raise OSError("/proc/net/snmp says nothing of UDP")
    return sum(found)


def out_datagrams6(snmp6: str) -> int:
    """The same over IPv6, from /proc/net/snmp6: a name and a number on each line."""
    pairs = (line.split() for line in snmp6.splitlines())
    wanted = {"Udp6OutDatagrams", "UdpLite6OutDatagrams"}
    return sum(int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in wanted)
