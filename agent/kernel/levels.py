"""Tells the kernel side at how many packets in a window to wake the agent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from . import layout
from .limits import Place
from .loader import Loaded
from .maps import Maps
from .ring import Ring


@dataclass(frozen=True, slots=True)
class Crossing:
    """A window has reached a level.

    Attributes:
        place: (device key, VLAN id) of the ENI.
        packets: In the window so far.
        at_ns: Monotonic clock of the packet that did it.
    """

    place: tuple[int, int]
    packets: int
    at_ns: int


class Watch:
    """The thresholds of every ENI, and the crossings of them.

    Args:
        loaded: The programs.
        maps: Their maps.
        parts: Where warning and critical begin, as parts of the limit.
        default_pps: Limit of an ENI without one of its own.
        basis: ``linklocal`` or ``dns``.
    """

    def __init__(
        self,
        loaded: Loaded,
        maps: Maps,
        parts: tuple[float, float],
        default_pps: int,
        basis: str,
    ) -> None:
        self._maps = maps
        self._parts = parts
        self._basis = basis
        self.fd = loaded.maps["crossings"]
        self._ring = Ring(self.fd, layout.SETTINGS["CROSSINGS_PAGES"] * Ring.PAGE)
        self._set(None, default_pps)

    def follow(self, limits: Mapping[Place, int]) -> None:
        """Tell the kernel side the limits, in packets a second, that are known of ENIs.

        Cheap where nothing has changed. An ENI that the kernel side met before it was told of it
        keeps the default.
        """
        for place, limit_pps in limits.items():
            self._set(place, limit_pps)

    def _set(self, place: Place | None, limit_pps: int) -> None:
        # The limit itself is still allowed: one more is too many.
        packets = (*(_fewest(part, limit_pps) for part in self._parts), limit_pps + 1)
        self._maps.set_limit(place, packets, self._basis)

    def read(self) -> list[Crossing]:
        """Every crossing since the last time; never blocks."""
        found = []
        for record in self._ring.read():
            dev, vlan, _, _, packets, at_ns = layout.CROSSING.packer.unpack(record)
            found.append(Crossing((dev, vlan), packets, at_ns))
        return found

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()


def _fewest(part: float, limit_pps: int) -> int:
    """The fewest packets that are *part* of the limit, judged as the states are: by division.

    0.55 * 100 is 55.00000000000001, and 55 / 100 is 0.55: the product alone would wake too late.
    """
    packets = math.ceil(part * limit_pps)
    return packets - 1 if (packets - 1) / limit_pps >= part else packets
