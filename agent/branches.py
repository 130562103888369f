"""Which branch ENIs there are, and which that were are over. Pure: no clock, no I/O.

A branch ENI is a VLAN id on a trunk, and goes with its pod or task; the id is soon the next one's.
Whoever said that it is there (its VLAN device) says that it is not there any more. Of one that only
its packets made known nobody ever does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .kernel.limits import Place
from .model import Branch

SILENT_S = 900.0
"""After this long without a packet one that nobody declared is over. It may live on: its counters
begin again with its next packet, which to a reader of counters is a restart and costs nothing. Not
to end it costs a place of 256 for good, for anybody on the host's network can make one up."""


@dataclass(slots=True)
class _Known:
    """One place on a trunk.

    Attributes:
        branch: As it was declared last; None: only its packets made it known.
        here: It is declared now.
        since_s: When it was last here, or sent last; None: not looked at yet.
        packets: Sent by then.
    """

    branch: Branch | None
    here: bool
    since_s: float | None = None
    packets: int = 0


class Branches:
    """Follows what is declared, and what is sent all the same.

    Args:
        retired_s: How long one that is here no more is kept, for its last packets to be seen. It
            must have been silent for as long: whose device has moved to where nobody looks still
            sends.
    """

    def __init__(self, retired_s: float) -> None:
        self._retired_s = retired_s
        self._known: dict[Place, _Known] = {}

    @property
    def here(self) -> dict[Place, Branch]:
        """Those that are declared."""
        return {p: k.branch for p, k in self._known.items() if k.here and k.branch is not None}

    def at(self, place: Place) -> Branch | None:
        """The one that is there or was there last; None: nobody has declared any."""
        known = self._known.get(place)
        return known.branch if known is not None else None

    def declare(self, branches: Iterable[Branch]) -> tuple[Place, ...]:
        """These are there, and no others; returns places that are another's than before."""
        here = {(b.trunk, b.vlan): b for b in branches}
        for place, known in self._known.items():
            known.here = place in here
        others = []
        for place, branch in here.items():
            before = self.at(place)
            if before is not None and before.mac != branch.mac:
                others.append(place)
                del self._known[place]
            known = self._known.setdefault(place, _Known(branch, here=True))
            known.branch, known.here = branch, True
        return tuple(others)

    def update(self, packets: Mapping[Place, int], now_s: float) -> None:
        """What each has sent in all; those that have sent nothing may be absent."""
        for place in packets.keys() - self._known.keys():
            self._known[place] = _Known(None, here=False)
        for place, known in self._known.items():
            sent = packets.get(place, 0)
            if known.here or sent != known.packets or known.since_s is None:
                known.since_s, known.packets = now_s, sent

    def take_over(self, now_s: float) -> tuple[Place, ...]:
        """Forget those that are over; returns where they were."""
        over = tuple(
            place
            for place, known in self._known.items()
            if not known.here and known.since_s is not None
            and now_s - known.since_s >= (SILENT_S if known.branch is None else self._retired_s)
        )  # fmt: skip
        for place in over:
            del self._known[place]
        return over

    def forget_trunk(self, dev: int) -> None:
        """A trunk is gone, with all that was on it."""
        for place in [place for place in self._known if place[0] == dev]:
            del self._known[place]
