"""How names read: told once by the kernel, and made readable when somebody looks.

Of a thousand names a second most are asked for once and shown to nobody, and a name costs more to
read than all else that is done for it.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping

from ..sample import Question
from . import layout

_TOLD = layout.TOLD_NAME.packer
_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
    35: "NAPTR", 43: "DS", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 255: "ANY",
}  # fmt: skip


class Told(Mapping[int, Question]):
    """Every question that was told and is still of use, by its hash.

    Any thread may look while the loop's takes in: what is there is replaced, and never removed but
    with the whole table.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, bytes] | Question] = {}

    def take(self, records: Iterable[bytes]) -> None:
        """What the ring buffer holds."""
        for record in records:
            told, length, kind, _, question = _TOLD.unpack(record)
            self._known[told] = kind, question[:length]

    def keep(self, hashes: Collection[int]) -> None:
        """Forget all others."""
        self._known = {told: known for told, known in self._known.items() if told in hashes}

    def __getitem__(self, told: int) -> Question:
        """The question; KeyError when it has not been told."""
        table = self._known
        known = table[told]
        if isinstance(known, Question):
            return known
        kind, wire = known
        question = table[told] = read_question(wire, socket.ntohs(kind))
        return question

    def __iter__(self) -> Iterator[int]:
        """The hashes."""
        return iter(tuple(self._known))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._known)


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
