"""The number under which the kernel counts a question: as bpf/hash.h and bpf/names.h make it."""

from __future__ import annotations

import socket
import struct

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_WORDS = struct.Struct("=Q")


def mix(number: int, value: int) -> int:
    """The same as in bpf/hash.h."""
    mixed = (number ^ value) * 0x9E3779B97F4A7C15 & _WORD
    return mixed ^ mixed >> 29


def mix_name(number: int, value: int) -> int:
    """The same as in bpf/hash.h, of names."""
    mixed = (number ^ value) * 0x9E3779B97F4A7C15 & _WORD
    mixed = (mixed ^ mixed >> 32) * 0xD6E8FEB86659FD93 & _WORD
    return mixed ^ mixed >> 32


def question_hash(name: str, kind: int, seed: int) -> int:
    """Hash of a question.

    Args:
        name: Labels of ASCII letters, digits and what else a host name may have, by dots.
        kind: Number of the query type.
        seed: The kernel's, `loader.Loaded.seed`.
    """
    labels = (label.encode("ascii") for label in name.lower().split("."))
    wire = b"".join(bytes([len(label)]) + label for label in labels)
    # The word in which the name ends is the first with a zero: behind a whole one comes another.
    wire = wire.ljust((len(wire) // 8 + 1) * 8, b"\0")
    number = seed
    for (word,) in _WORDS.iter_unpack(wire):
        number = mix_name(number, word)
    return mix_name(number, socket.htons(kind)) or 1
