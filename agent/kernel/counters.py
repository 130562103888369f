"""What the kernel keeps of one ENI, from the words of its map value."""

from __future__ import annotations

from ..model import CLASSES, PROTOCOLS
from ..sample import EniCounters, Slot
from . import layout

_BEFORE_COUNTERS = 5 + layout.SETTINGS["LEVELS"]  # limit, zero, two sums, their slot, told
_AFTER_LATENCIES = 6  # their sum, cacheable (two), retransmitted, truncated, elsewhere
_CELLS = [(c, p) for c in CLASSES for p in PROTOCOLS]


def eni_counters(words: tuple[int, ...], now_ns: int, least_unanswered: int) -> EniCounters:
    """The words of a ``struct eni`` as they were copied from the map, put in order.

    Args:
        words: All of them, as `layout.ENI` unpacks them.
        now_ns: Monotonic clock, before they were copied.
        least_unanswered: What it was at the last read: it does not fall.
    """
    words = words[_BEFORE_COUNTERS:]
    cells = len(_CELLS)
    buckets = layout.SETTINGS["LATENCY_BUCKETS"]
    rcodes = words[cells : cells + layout.RCODES]
    latency_at = cells + layout.RCODES
    sums = words[latency_at + buckets : latency_at + buckets + _AFTER_LATENCIES]
    latency_sum_ns, resolver, other, retransmitted, truncated, elsewhere = sums
    spans_at = latency_at + buckets + _AFTER_LATENCIES + 1  # behind the span in progress
    slots_at = spans_at + layout.SPANS * 3
    slots = [
        Slot(words[i], words[i + 1] - words[i + 2], words[i + 3] - words[i + 4])
        for i in range(slots_at, slots_at + layout.SLOTS * 5, 5)
        if words[i]
    ]
    return EniCounters(
        slots=tuple(sorted(slots)),  # by number
        overflow={cell: n for cell, n in zip(_CELLS, words, strict=False) if n},
        responses={code: n for code, n in enumerate(rcodes) if n},
        response_buckets=tuple(words[latency_at : latency_at + buckets]),
        response_sum_s=latency_sum_ns / 1e9,
        cacheable={"resolver": resolver / 1000, "dns_other": other / 1000},
        retransmitted=retransmitted,
        truncated=truncated,
        elsewhere=elsewhere,
        unanswered=max(_unanswered(words[spans_at:slots_at], now_ns), least_unanswered),
    )


def _unanswered(spans: tuple[int, ...], now_ns: int) -> int:
    """Queries whose last moment for an answer was over at *now_ns*, a time before the read.

    A span counts when nothing can change it any more: ``SPANS - 2`` spans after its end, which is
    ``UNANSWERED_NS`` and a fifth of a second for a processor that was held up. Until then its place
    counts with what was there before, and that stands since long before the span began. So it does
    not matter what the programs do while the words are copied.
    """
    total = 0
    for waiting, before, number in zip(*[iter(spans)] * 3, strict=True):
        is_final = now_ns >= (number + layout.SPANS - 1) * layout.SPAN_NS
        total += waiting if is_final else before
    return total
