"""One line of `eni53 check`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Item:
    """One thing looked at.

    Attributes:
        name: What, in a word or two.
        status: ok, info (a fact), warn (works with less), fail (cannot run).
        detail: What was found.
        mend: What to do about it; empty when there is nothing to do.
    """

    name: str
    status: str
    detail: str
    mend: str = ""
