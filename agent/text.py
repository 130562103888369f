"""Names from outside, made safe to show: labels, logs and terminals get them from here."""

from __future__ import annotations

import unicodedata
from typing import TextIO

MAX_NAME = 256
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def clean(name: str, limit: int = MAX_NAME) -> str:
    r"""*name* with its control, format and unassigned characters written out: ``\x1b``, ``\u202e``.

    A container may call itself anything; an escape sequence in its name must not move the cursor
    of the person reading it, and a megabyte of name must not fill a label.
    """
    shown = "".join(map(_shown, name[: limit + 1]))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def ascii_only(stream: TextIO | None) -> bool:
    """Whether *stream* can carry no more than ASCII safely: its encoding is not a UTF."""
    encoding = stream.encoding if stream is not None else None
    return not (encoding or "utf-8").lower().startswith("utf")


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
