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
        self._others: set[Place] = set()

    def follow(
        self, branches: Iterable[Branch], enis: Mapping[int, Link], others: Iterable[Place]
    ) -> None:
        """These branches are there, and no others.

        Args:
            branches: All of them.
            enis: The host's ENIs; a branch of a trunk that is none of them has no entry.
            others: Places that are another branch's now: what was counted there is not its own.
        """
        here = {(b.trunk, b.vlan) for b in branches if b.trunk in enis}
        self._others = self._others.union(others) & here
        # What has left has its entry for a while yet, and is entered again when it comes back:
        # the tick may have removed it after the netlink thread had found it there.
        self._entered = (self._entered & here) - self._others
        for place in sorted(here - self._entered):
            try:
                self._maps.add_eni(*place, anew=place in self._others)
            except OSError as error:
                # Not the end of the others. The first packet that finds room makes its entry.
                trunk, vlan = place
                reason = error.strerror or type(error).__name__
                self._failed(f"{enis[trunk].name} vlan {vlan}", f"counted with its trunk: {reason}")
            else:
                self._entered.add(place)
                self._others.discard(place)

    def remove(self, places: Iterable[Place]) -> None:
        """These are over. Should one send all the same, its first packet makes an entry again."""
        for place in places:
            self._maps.remove_branch(*place)
