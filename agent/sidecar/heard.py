"""What a counter of the sidecar hands on, however it counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

PACKET = "packet"
UDP_COUNTERS = "udp-counters"


@dataclass(frozen=True, slots=True)
class Heard:
    """Packets of one kind in one slot.

    Attributes:
        packet_class: One of `model.COUNTED_CLASSES`.
        protocol: One of `model.PROTOCOLS`.
        slot: Number of the slot they belong to: monotonic clock divided by the slot length.
    """

    packet_class: str
    protocol: str
    packets: int
    slot: int


class Counter(Protocol):
    """Something that counts the packets of one network interface.

    Attributes:
        mode: `PACKET` or `UDP_COUNTERS`.
    """

    mode: str

    @property
    def stats(self) -> Mapping[str, int]:
        """Events since start, by name: what could not be classified, what was lost."""
        ...

    def set_resolvers(self, addresses: Iterable[str]) -> None:
        """Which addresses are resolvers from now on."""
        ...

    def read(self) -> list[Heard]:
        """Everything since the last call; never blocks.

        Raises:
            OSError: The kernel does not say.
        """
        ...

    def close(self) -> None:
        """Stop counting."""
        ...
