"""The kernel's table of connections as Prometheus families."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from ..model import Conntrack

_PREFIX = "eni53_node_conntrack_"


def conntrack_families(table: Conntrack | None) -> Iterator[Metric]:
    """Each without a sample where that is not known."""
    gauges = (
        (
            "entries",
            "Connections that the kernel follows.",
            table.entries if table is not None else None,
        ),
        ("limit", "Connections that it has room for.", table.limit if table is not None else None),
    )
    counters = (
        (
            "insert_failed",
            "Packets that lost the race for a place in the table of connections.",
            table.insert_failed if table is not None else None,
        ),
        (
            "dropped",
            "Packets dropped for want of a place in the table of connections.",
            table.dropped if table is not None else None,
        ),
    )
    for name, text, value in gauges:
        gauge = GaugeMetricFamily(_PREFIX + name, text)
        if value is not None:
            gauge.add_metric((), value)
        yield gauge
    for name, text, value in counters:
        counter = CounterMetricFamily(_PREFIX + name, text)
        if value is not None:
            counter.add_metric((), value)
        yield counter
