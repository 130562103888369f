"""Names from outside, made safe to show: labels, logs and terminals get them from here."""

from __future__ import annotations

import unicodedata

MAX_NAME = 256
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def clean(name: str, limit: int = MAX_NAME) -> str:
    r"""*name* with every control, format and unassigned character shown as ``\xNN``.

    A container may call itself anything; an escape sequence in its name must not move the cursor
    of the person reading it, and a megabyte of name must not fill a label.
    """
    shown = "".join(
        f"\\x{ord(c):02x}" if unicodedata.category(c) in _HIDDEN else c for c in name[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
