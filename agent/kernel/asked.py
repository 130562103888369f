"""Which names were asked for since the last look, and how they read.

The kernel's table is kept free of what nobody asks for any more, so that a flood of names that are
asked for once never keeps a new one out for long.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from ..model import CLASSES, PROTOCOLS, AskedKey, Question, SenderKey
from . import bpf, layout
from .loader import Loaded
from .ring import Ring

IDLE_LOOKS = 3  # the agent keeps what it has read: a name that comes back begins anew here alone
_KEY, _VALUE = layout.ASKED_KEY.packer, layout.ASKED.packer
_CROWDED = 0.75
_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
    35: "NAPTR", 43: "DS", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 255: "ANY",
}  # fmt: skip


@dataclass(slots=True)
class _Row:
    key: AskedKey
    queries: int = 0
    risen: int = 0


class Asked:
    """Reads the counts by name.

    Args:
        loaded: The programs, and their maps.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._fd = loaded.maps["asked"]
        self._room = loaded.max_entries["asked"]
        self._ring = Ring(
            loaded.maps["told_names"], layout.SETTINGS["TOLD_NAMES_PAGES"] * Ring.PAGE
        )
        self._rows: dict[bytes, _Row] = {}
        self._looks = 0
        self._questions: dict[int, Question] = {}

    @property
    def entries(self) -> tuple[int, int]:
        """In use at the last look, and room."""
        return len(self._rows), self._room

    def close(self) -> None:
        """Let go of the ring."""
        self._ring.close()

    def read(self) -> tuple[dict[AskedKey, int], dict[int, Question]]:
        """Queries since the last look, by who asked for what; and every question by its hash.

        A question is missing when its name was told while the ring was full: it is told again.
        """
        for record in self._ring.read():
            told, length, kind, _, question = layout.TOLD_NAME.packer.unpack(record)
            self._questions[told] = read_question(question[:length], socket.ntohs(kind))
        asked: dict[AskedKey, int] = {}
        self._looks += 1
        self._look(asked)
        self._tidy()
        return asked, self._questions

    def _look(self, asked: dict[AskedKey, int]) -> None:
        """Take every row of the kernel's in."""
        size = _KEY.size
        for keys, values in bpf.map_items(self._fd, size, _VALUE.size, self._room):
            for at, (queries, _, _) in enumerate(_VALUE.iter_unpack(values)):
                packed = bytes(keys[at * size : at * size + size])
                row = self._rows.get(packed)
                if row is None:
                    row = self._rows[packed] = _Row(_asked_key(packed))
                # One that fell was removed, and has begun again.
                rise = queries - row.queries if queries >= row.queries else queries
                row.queries = queries
                if rise:
                    row.risen = self._looks
                    asked[row.key] = rise

    def _tidy(self) -> None:
        """Remove what was not asked for lately; where it is crowded, not since the last look."""
        crowded = len(self._rows) > self._room * _CROWDED
        oldest = self._looks - (1 if crowded else IDLE_LOOKS)
        for packed in [p for p, row in self._rows.items() if row.risen <= oldest]:
            bpf.map_delete(self._fd, packed)
            del self._rows[packed]
        if len(self._questions) > self._room:
            live = {row.key.hash for row in self._rows.values()}
            self._questions = {h: q for h, q in self._questions.items() if h in live}


def read_question(wire: bytes, kind: int) -> Question:
    r"""The name that *wire* begins with, lower case, and the type of number *kind*.

    It ends at its first zero byte, as the kernel's hash does. What no host name has in it is
    written as ``\DDD``, a dot within a label too (RFC 1035, 5.1).
    """
    end = wire.find(0)
    if end < 0:
        return Question("", "")  # longer than a name can be: the kernel hashes no such thing
    labels, at = [], 0
    while at < end:
        length = wire[at]
        labels.append("".join(map(_shown, wire[at + 1 : min(at + 1 + length, end)])))
        at += 1 + length
    return Question(".".join(labels) or ".", _TYPES.get(kind, f"TYPE{kind}"))


def _shown(byte: int) -> str:
    character = chr(byte)
    if byte < 128 and (character.isalnum() or character in "-_*/"):
        return character.lower()
    return f"\\{byte:03d}"


def _asked_key(packed: bytes) -> AskedKey:
    question, cgroup, dev, ingress, vlan, origin, asker, klass, _ = _KEY.unpack(packed)
    sender = SenderKey(dev, vlan, origin, ingress, cgroup, CLASSES[klass], PROTOCOLS[0], asker)
    return AskedKey(question, sender)
