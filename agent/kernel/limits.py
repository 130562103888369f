"""Which entry of the kernel's table of limits is whose.

The value of an ENI names its entry, and that cannot be changed while programs count in it: so each
ENI has an entry of its own from its first moment, and what stands there may become known later.
"""

from __future__ import annotations

import threading

from . import bpf, layout

Place = tuple[int, int]
"""(device key, VLAN id) of an ENI."""


class Limits:
    """The table; entry 0 is the default, also for an ENI that nobody has told us of.

    Of many threads: ENIs are added where netlink is talked, limits become known in the loop.

    Args:
        fd: The map.
        room: Entries it has.
    """

    def __init__(self, fd: int, room: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._free = list(range(room - 1, 0, -1))
        self._default = bytes(layout.LIMIT.packer.size)
        self._entries: dict[Place, int] = {}
        self._known: dict[Place, bytes] = {}

    def add(self, place: Place) -> int:
        """The entry of an ENI's own, a new one with the default in it; 0: there is no more room."""
        with self._lock:
            if place in self._entries:
                return self._entries[place]
            if not self._free:
                return 0
            entry = self._entries[place] = self._free.pop()
            self._write(entry, self._default)
            return entry

    def forget(self, dev: int, vlan: int | None = None) -> None:
        """The ENIs of a device are gone from the kernel, or the one with that VLAN id."""
        with self._lock:
            for place in [p for p in self._entries if p[0] == dev and vlan in {None, p[1]}]:
                self._free.append(self._entries.pop(place))
                self._known.pop(place, None)

    def set(self, place: Place | None, value: bytes) -> None:
        """What holds for an ENI, which keeps the default if it has no entry; None: the default."""
        with self._lock:
            if place is None:
                self._default = value
                unknown = (e for p, e in self._entries.items() if p not in self._known)
                for entry in (0, *unknown):
                    self._write(entry, value)
            elif place in self._entries and self._known.get(place) != value:
                self._known[place] = value
                self._write(self._entries[place], value)

    def _write(self, entry: int, value: bytes) -> None:
        bpf.map_update(self._fd, layout.U32.packer.pack(entry), value)
