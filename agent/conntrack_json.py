"""`Conntrack` as JSON and back."""

from __future__ import annotations

from typing import Any

from .model import Conntrack
from .strict import Reader


def conntrack_to_json(table: Conntrack | None) -> dict[str, Any] | None:
    """As `/api/v1/snapshot` tells it."""
    if table is None:
        return None
    return {
        "entries": table.entries,
        "limit": table.limit,
        "insert_failed": table.insert_failed,
        "dropped": table.dropped,
    }


def read_conntrack(top: Reader) -> Conntrack | None:
    """What *top* says of it; None where it says nothing.

    Raises:
        SourceError: A value is missing or not what it must be.
    """
    at = top.optional("conntrack", top.inner) if top.has("conntrack") else None
    if at is None:
        return None
    return Conntrack(
        entries=at.integer("entries"),
        limit=at.optional("limit", lambda key: at.integer(key, least=1)),
        insert_failed=at.optional("insert_failed", at.integer),
        dropped=at.optional("dropped", at.integer),
    )
