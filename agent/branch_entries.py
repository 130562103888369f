"""Entries in the kernel's table for branch ENIs that are known before they send anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .inventory.links import Link
from .kernel.limits import Place
from .kernel.maps import Maps
from .model import Branch


class BranchEntries:
    """Gives each branch ENI that is there its entry. Belongs to the event loop.

    Its first packet makes one too, but that wakes the agent at the default limit.

    Args:
        maps: Where the entries are.
        failed: Told of a branch for which there is no room, and of the reason.
    """

    def __init__(self, maps: Maps, failed: Callable[[str, str], None]) -> None:
        self._maps = maps
        self._failed = failed
        self._entered: set[Place] = set()

    def follow(self, branches: Iterable[Branch], enis: Mapping[int, Link]) -> None:
        """These branches are there, and no others.

        Args:
            branches: All of them.
            enis: The host's ENIs; a branch of a trunk that is none of them has no entry.
        """
        here = {(b.trunk, b.vlan) for b in branches if b.trunk in enis}
        self._entered &= here
        for place in sorted(here - self._entered):
            try:
                self._maps.add_eni(*place)
            except OSError as error:
                # Not the end of the others. The first packet that finds room makes its entry.
                trunk, vlan = place
                reason = error.strerror or type(error).__name__
                self._failed(f"{enis[trunk].name} vlan {vlan}", f"counted with its trunk: {reason}")
            else:
                self._entered.add(place)
