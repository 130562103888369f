"""The agent's side of bpf/maps.h and bpf/settings.h: shapes, sizes, and the proof that they agree.

The compiler child reports every field with its offset as BCC derived it from the C. `verify`
compares, so that a structure changed on one side only ends the start with one line and does not
turn into wrong numbers.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ..errors import NeedError
from ..model import CLASSES, PROTOCOLS

STATS = (
    "fragment",
    "malformed",
    "origin_exhausted",
    "origin_full",
    "sender_full",
    "eni_full",
    "query_evicted",
    "vlan_unknown",
    "remote_exhausted",
    "ask_ambiguous",
    "asked_full",
)
"""Names of the kernel's event counters, in the order of ``enum stat`` in bpf/maps.h."""


def _read_settings() -> dict[str, int]:
    text = resources.files("eni53.bpf").joinpath("settings.h").read_text()
    return {m[1]: int(m[2]) for m in re.finditer(r"^#define (\w+) (\d+)\b", text, re.MULTILINE)}


SETTINGS = _read_settings()
"""The plain numbers of bpf/settings.h."""

SLOT_NS = SETTINGS["SLOT_NS"]
SLOTS = SETTINGS["SLOTS"]
SPAN_NS = SETTINGS["SPAN_NS"]
SPANS = SETTINGS["SPANS"]
TASK_DEV = SETTINGS["TASK_DEV"]
"""Top bit of the key of an ENI in a task's network namespace; the rest is its filter's class id."""
LOOPBACK = SETTINGS["LOOPBACK"]
"""Index of lo: an origin's, when a process of this host asks a server of this host."""
REMOTE_BIT = 0x8000
"""In an asker's id: a client on another node. Without it: an origin's tag."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A structure without hidden padding: field names, each with its `struct` token."""

    fields: tuple[tuple[str, str], ...]

    @property
    def packer(self) -> struct.Struct:
        """Packs and unpacks the whole structure in the host's byte order."""
        return struct.Struct("=" + "".join(token for _, token in self.fields))

    def offsets(self) -> list[tuple[str, int, int]]:
        """(name, offset, size) of each field, as the compiler child reports them."""
        result, offset = [], 0
        for name, token in self.fields:
            size = struct.calcsize("=" + token)
            result.append((name, offset, size))
            offset += size
        return result


U32 = Layout((("", "I"),))
U64 = Layout((("", "Q"),))
RCODES = 16
_N = SETTINGS

ENI_KEY = Layout((("dev", "I"), ("vlan", "I")))
ENI = Layout(
    (
        ("limit", "I"),
        ("zero", "I"),
        ("before_linklocal", "Q"),
        ("before_dns", "Q"),
        ("before", "Q"),
        ("told", f"{_N['LEVELS']}Q"),
        ("overflow", f"{len(CLASSES) * len(PROTOCOLS)}Q"),
        ("rcode", f"{RCODES}Q"),
        ("latency", f"{_N['LATENCY_BUCKETS']}Q"),
        ("latency_sum_ns", "Q"),
        ("cacheable_resolver", "Q"),
        ("cacheable_other", "Q"),
        ("retransmitted", "Q"),
        ("truncated", "Q"),
        ("elsewhere", "Q"),
        ("span", "Q"),
        ("spans", f"{SPANS * 3}q"),
        ("slots", f"{SLOTS * 5}Q"),
    )
)
ORIGIN_KEY = Layout((("cgroup", "Q"), ("ifindex", "I"), ("zero", "I")))
ORIGIN = Layout((("sent", f"{len(CLASSES)}Q"), ("tag", "I"), ("zero", "I")))
SENDER_KEY = Layout(
    (
        ("cgroup", "Q"),
        ("dev", "I"),
        ("ingress", "I"),
        ("vlan", "H"),
        ("origin", "H"),
        ("asker", "H"),
        ("class", "B"),
        ("protocol", "B"),
    )
)
SOURCE_KEY = Layout(
    (("dev", "I"), ("vlan", "H"), ("class", "B"), ("protocol", "B"), ("address", "16s"))
)
LIMIT = Layout((("packets", f"{_N['LEVELS']}Q"), ("on_dns", "I"), ("zero", "I")))
CROSSING = Layout(
    (("dev", "I"), ("vlan", "I"), ("level", "I"), ("zero", "I"), ("packets", "Q"), ("at_ns", "Q"))
)
"""One record of the ring buffer ``crossings``; BCC does not describe those."""
ASKED_KEY = Layout(
    (
        ("hash", "Q"),
        ("cgroup", "Q"),
        ("dev", "I"),
        ("ingress", "I"),
        ("vlan", "H"),
        ("origin", "H"),
        ("asker", "H"),
        ("class", "B"),
        ("zero", "B"),
    )
)
ASKED = Layout((("queries", "Q"), ("told", "I"), ("zero", "I")))
TOLD_NAME = Layout(
    (
        ("hash", "Q"),
        ("length", "I"),
        ("type", "H"),
        ("zero", "H"),
        ("question", f"{_N['NAME_BYTES']}s"),
    )
)
"""One record of the ring buffer ``told_names``."""
CACHED = Layout(
    (
        ("key", "Q"),
        ("until_ns", "Q"),
        ("asked_ns", "Q"),
        ("paid_ns", "Q"),
        ("ttl_s", "I"),
        ("id", "H"),
        ("waiting", "B"),
        ("rcode", "B"),
    )
)
"""One place of a ``struct cached_set``."""
CACHED_SET = Layout((("places", f"{CACHED.packer.size * _N['CACHED_WAYS']}s"),))
REMOTE_KEY = Layout((("address", "16s"),))
REMOTE = Layout((("asked_ns", "Q"), ("id", "I"), ("zero", "I")))
FALLBACK_KEY = Layout((("cgroup", "Q"), ("dev", "I"), ("vlan", "I"), ("server", "16s")))
FALLBACK = Layout((("queries", "Q"), ("fallbacks", "Q"), ("waited_ns", "Q")))
SETTINGS_VALUE = Layout(
    (
        ("resolvers4", "I"),
        ("resolvers6", "I"),
        ("resolver4", f"{_N['MAX_RESOLVERS'] * 4}s"),
        ("resolver6", f"{_N['MAX_RESOLVERS'] * 16}s"),
        ("write_tags", "I"),
        ("names", "I"),
    )
)

MAPS: dict[str, tuple[Layout | None, Layout]] = {
    "settings": (U32, SETTINGS_VALUE),
    "stats": (U32, U64),
    "free_tags": (None, U32),
    "origins": (ORIGIN_KEY, ORIGIN),
    "veths": (U32, U32),
    "senders": (SENDER_KEY, U64),
    "sources": (SOURCE_KEY, U64),
    "enis": (ENI_KEY, ENI),
    "trunks": (U32, U32),
    "limits": (U32, LIMIT),
    "cached": (U32, CACHED_SET),
    "asked": (ASKED_KEY, ASKED),
    "remotes": (REMOTE_KEY, REMOTE),
    "free_remotes": (None, U32),
    "fallbacks": (FALLBACK_KEY, FALLBACK),
}
"""Key and value of every map the agent touches."""


def verify(described: list[dict[str, Any]]) -> None:
    """Raise `NeedError` unless the compiled maps look as `MAPS` says.

    Args:
        described: What the compiler child reported, one entry a map.
    """
    found = {entry["name"]: entry for entry in described}
    for name, (key, value) in MAPS.items():
        entry = found.get(name)
        if entry is None:
            raise NeedError(
                f"BPF map {name} is missing from the compiled programs: reinstall eni53"
            )
        for side, layout in (("key", key), ("leaf", value)):
            expected = layout.offsets() if layout is not None else []
            actual = [tuple(field) for field in entry[side]]
            if actual != expected:
                raise NeedError(
                    f"BPF map {name}: {side} is laid out as {actual}, the agent expects {expected}:"
                    " bpf/ and agent/ are of different versions, reinstall eni53"
                )
