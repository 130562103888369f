"""What came back for a name: read from the kernel's table when somebody asks for it."""

from __future__ import annotations

import mmap

from ..sample import Answer
from . import layout
from .loader import Loaded
from .question_hash import mix

_PLACE = layout.CACHED.packer
_SETS, _WAYS = layout.SETTINGS["CACHED_SETS"], layout.SETTINGS["CACHED_WAYS"]
_SET_SIZE = _PLACE.size * _WAYS
_NO_TTL, _NO_RCODE = 0xFFFF_FFFF, 0xFF
_RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")


class Answered:
    """The table that says what a cache on the node would hold.

    It is mapped, not copied: of its thousands of places a few are looked at.

    Args:
        loaded: The programs, and their maps.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._table: mmap.mmap | bytes = mmap.mmap(
            loaded.maps["cached"], _SETS * _SET_SIZE, mmap.MAP_SHARED, mmap.PROT_READ
        )

    def close(self) -> None:
        """Unmap it. What it held at the end stays: the last snapshot is looked at afterwards."""
        if isinstance(self._table, mmap.mmap):
            mapped, self._table = self._table, self._table[:]
            mapped.close()

    def answer_of(self, place: tuple[int, int], question: int) -> Answer | None:
        """The answer to a question that was asked through an ENI; None: none was seen lately.

        Args:
            place: (device key, VLAN id) of the ENI.
            question: Hash of name and type.
        """
        key = _key(question, *place)
        start = (key >> 32) % _SETS * _SET_SIZE
        for at in range(start, start + _SET_SIZE, _PLACE.size):
            found, _, _, _, ttl_s, _, _, rcode = _PLACE.unpack_from(self._table, at)
            if found == key:
                if rcode == _NO_RCODE:
                    return None
                name = _RCODES[rcode] if rcode < len(_RCODES) else f"RCODE{rcode}"
                return Answer(None if ttl_s == _NO_TTL else ttl_s, name)
        return None


def _key(question: int, dev: int, vlan: int) -> int:
    """As cached_key() in bpf/cached.h."""
    return mix(question, dev << 32 | vlan) or 1
