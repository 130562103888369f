"""Which names were asked for since the last look.

The kernel's table is kept free of what nobody asks for any more, so that a flood of names that are
asked for once never keeps a new one out for long.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping

from ..sample import Question, SenderKey
from . import bpf, layout
from .loader import Loaded
from .ring import Ring
from .senders import SenderKeys
from .told import Told

IDLE_LOOKS = 3  # the agent keeps what it has read: a name that comes back begins anew here alone
_KEY, _VALUE = layout.ASKED_KEY.packer, layout.ASKED.packer
_PARTS = struct.Struct(f"=Q{_KEY.size - 8}s")  # of a key: hash, and who asked, as a sender's key
_WORDS = _VALUE.size // 8  # of a value; the first is how many queries
_CROWDED = 0.75

ByHash = dict[int, int]
"""Queries by hash of name and type."""


class Asked:
    """Reads the counts by name.

    A thousand new names a second are nothing unusual, so rows stay as they are packed; what is the
    same as at the last look is compared and not looked into.

    Args:
        loaded: The programs, and their maps.
        senders: Their keys.
    """

    def __init__(self, loaded: Loaded, senders: SenderKeys) -> None:
        self._fd = loaded.maps["asked"]
        self._room = loaded.max_entries["asked"]
        self._ring = Ring(
            loaded.maps["told_names"], layout.SETTINGS["TOLD_NAMES_PAGES"] * Ring.PAGE
        )
        self._queries: dict[bytes, int] = {}  # at the last look, by packed key
        self._risen: dict[bytes, int] = {}  # the look at which it rose last
        self._looks = 0
        self._senders = senders
        self._told = Told()

    @property
    def entries(self) -> tuple[int, int]:
        """In use at the last look, and room."""
        return len(self._queries), self._room

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()

    def read(self) -> tuple[dict[SenderKey, ByHash], Mapping[int, Question]]:
        """Queries since the last look, by who asked for what; and every question by its hash.

        A question is missing when its name was told while the ring was full: it is told again.
        """
        self._told.take(self._ring.read())
        self._looks += 1
        asked = self._look()
        self._tidy()
        return asked, self._told

    def _look(self) -> dict[SenderKey, ByHash]:
        """Take every row of the kernel's in."""
        asked: dict[bytes, ByHash] = {}
        for packed, queries in self._changed():
            before = self._queries.get(packed, 0)
            self._queries[packed] = queries
            self._risen[packed] = self._looks
            # One that fell was removed, and has begun again.
            rise = queries - before if queries >= before else queries
            if rise:
                question, sender = _PARTS.unpack(packed)
                asked.setdefault(sender, {})[question] = rise
        return {self._senders.of(sender): names for sender, names in asked.items()}

    def _changed(self) -> list[tuple[bytes, int]]:
        """(packed key, queries) of the rows that are not as they were."""
        changed: list[tuple[bytes, int]] = []
        size, known = _KEY.size, self._queries.get
        for keys, values in bpf.map_items(self._fd, size, _VALUE.size, self._room):
            every = bytes(keys)
            rows = [every[at : at + size] for at in range(0, len(every), size)]
            queries = array("Q", bytes(values))[::_WORDS]
            changed += [(row, n) for row, n in zip(rows, queries, strict=True) if known(row) != n]
        return changed

    def _tidy(self) -> None:
        """Remove what was not asked for lately; where it is crowded, not since the last look."""
        crowded = len(self._queries) > self._room * _CROWDED
        oldest = self._looks - (1 if crowded else IDLE_LOOKS)
        idle = [packed for packed, risen in self._risen.items() if risen <= oldest]
        bpf.map_delete_all(self._fd, idle)
        for packed in idle:
            del self._queries[packed], self._risen[packed]
        if len(self._told) > self._room:
            self._told.keep({_PARTS.unpack(packed)[0] for packed in self._queries})
