"""An assembler for classic BPF, the kind that needs no capability. Pure.

A jump may be to any label further down: classic jumps with a condition reach 255 instructions, so
each is written as one over an unconditional jump, which reaches everywhere. The kernel translates
the whole into its own instructions anyway.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_INSTRUCTION = struct.Struct("=HBBI")
MAX_INSTRUCTIONS = 4096

LD_B, LD_H, LD_W = 0x30, 0x28, 0x20  # A = packet[k]
LDX_B, LDX_H = 0x50, 0x48  # A = packet[X + k]
LD_IMM, LD_MEM, LDX_MEM = 0x00, 0x60, 0x61
LDX_IHL = 0xB1  # X = 4 * (packet[k] & 0xf)
ST = 0x02
ADD, AND, LSH, RSH = 0x04, 0x54, 0x64, 0x74  # A = A op k
ADD_X = 0x0C
JA, JEQ, JGT, JGE, JSET = 0x05, 0x15, 0x25, 0x35, 0x45
RET, RET_A = 0x06, 0x16

PACKET_TYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE: who a packet is for


@dataclass(slots=True)
class Program:
    """Instructions in order, with labels still to be found."""

    _lines: list[tuple[int, int, str]] = field(default_factory=list)
    _labels: dict[str, int] = field(default_factory=dict)

    def do(self, code: int, k: int = 0) -> None:
        """One instruction that goes on to the next."""
        self._lines.append((code, k, ""))

    def label(self, name: str) -> None:
        """The next instruction goes by *name*."""
        self._labels[name] = len(self._lines)

    def jump(self, name: str) -> None:
        """To *name*, always."""
        self._lines.append((JA, 0, name))

    def when(self, code: int, k: int, name: str) -> None:
        """To *name* if A compares so with *k*; else on."""
        self._lines.append((code, k, ""))
        self.jump(name)

    def unless(self, code: int, k: int, name: str) -> None:
        """To *name* if A does not compare so with *k*; else on."""
        self._lines.append((code | 0x10000, k, ""))
        self.jump(name)

    def assemble(self) -> bytes:
        """The program as SO_ATTACH_FILTER takes it.

        Raises:
            ValueError: A jump leads nowhere or backwards, or the kernel would not take as many.
        """
        if len(self._lines) > MAX_INSTRUCTIONS:
            raise ValueError(f"{len(self._lines)} instructions")
        packed = bytearray()
        for at, (code, k, name) in enumerate(self._lines):
            if name:
                k = self._labels.get(name, 0) - at - 1  # noqa: PLW2901
                if k < 0:
                    raise ValueError(f"no label {name} ahead")
            kind = code & 0xFFFF
            # A condition that holds goes to the next line (the jump), or over it when turned round.
            conditional = kind & 7 == 5 and kind != JA
            true, false = ((0, 1) if code == kind else (1, 0)) if conditional else (0, 0)
            packed += _INSTRUCTION.pack(kind, true, false, k)
        return bytes(packed)
