"""The latest snapshot as Prometheus families; docs/metrics.md describes each.

Names and labels are an interface: add, never rename.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .. import __version__
from ..model import BASIS_CLASSES, SEVERITIES, STATES, EniUsage, Health, Snapshot, Workload
from ..sample import RESPONSE_BOUNDS_S
from ..text import clean
from .conntrack_metrics import conntrack_families

_ENI = ("eni", "mac", "interface")
_WORKLOAD = ("kind", "namespace", "workload", "container")
_MAX_NAME = (
    600  # a task's name is family:revision/id, of at most 256 each, and the id tells it apart
)
_RCODES = ("noerror", "formerr", "servfail", "nxdomain", "notimp", "refused")


class SnapshotCollector(Collector):
    """Turns whatever `latest` returns into metrics at each scrape.

    Args:
        latest: The newest snapshot; None before the first one.
    """

    def __init__(self, latest: Callable[[], Snapshot | None]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        """Every family of the newest snapshot."""
        yield _build_info()
        snapshot = self._latest()
        if snapshot is None:
            return
        yield from _eni_families(snapshot.enis)
        yield from _workload_families(snapshot)
        yield from _answer_families(snapshot.enis)
        yield from conntrack_families(snapshot.conntrack)
        yield from _agent_families(snapshot.health)


def render(latest: Callable[[], Snapshot | None]) -> bytes:
    """The text exposition of the newest snapshot."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(latest))
    return generate_latest(registry)


def _build_info() -> Metric:
    family = GaugeMetricFamily(
        "eni53_agent_build_info", "1, with the agent's version.", labels=("version",)
    )
    family.add_metric((__version__,), 1)
    return family


def _eni(usage: EniUsage) -> tuple[str, ...]:
    return (clean(usage.eni.label), clean(usage.eni.mac), clean(usage.eni.interface))


def _owner(workload: Workload) -> tuple[str, ...]:
    return (
        workload.kind,
        clean(workload.namespace, _MAX_NAME),
        clean(workload.workload, _MAX_NAME),
        clean(workload.container, _MAX_NAME),
    )


def _eni_families(enis: tuple[EniUsage, ...]) -> Iterator[Metric]:
    packets = CounterMetricFamily(
        "eni53_eni_packets",
        "Packets sent to link-local services and to port 53 through an ENI.",
        labels=(*_ENI, "class", "protocol"),
    )
    window = GaugeMetricFamily(
        "eni53_eni_window_pps", "Packets in the last full second.", labels=(*_ENI, "basis")
    )
    peak = GaugeMetricFamily(
        "eni53_eni_peak_pps",
        "Packets in the highest one-second window of the trailing 60 seconds.",
        labels=(*_ENI, "basis"),
    )
    limit = GaugeMetricFamily(
        "eni53_eni_limit_pps", "Packets a second that the ENI may send.", labels=_ENI
    )
    ratio = GaugeMetricFamily("eni53_eni_utilization_ratio", "Peak divided by limit.", labels=_ENI)
    over = CounterMetricFamily(
        "eni53_eni_over_threshold_seconds",
        "Seconds that the one-second window spent over a part of the limit.",
        labels=(*_ENI, "threshold"),
    )
    exceeded = CounterMetricFamily(
        "eni53_ena_allowance_exceeded",
        "Packets that AWS held back or dropped, as the ENA driver counts since its last reset.",
        labels=(*_ENI, "allowance"),
    )
    for usage in enis:
        labels = _eni(usage)
        for name, count in (usage.allowances or {}).items():
            allowance = name.removesuffix("_allowance_exceeded")
            if allowance != name:
                exceeded.add_metric((*labels, allowance), count)
        for (packet_class, protocol), count in sorted(usage.protocols.items()):
            packets.add_metric((*labels, packet_class, protocol), count)
        for basis in BASIS_CLASSES:
            window.add_metric((*labels, basis), usage.window_pps[basis])
            peak.add_metric((*labels, basis), usage.peak_pps[basis])
        limit.add_metric(labels, usage.limit_pps)
        ratio.add_metric(labels, usage.utilization)
        for threshold, seconds in usage.over_threshold_s.items():
            over.add_metric((*labels, f"{threshold:g}"), seconds)
    yield from (packets, window, peak, limit, ratio, over, exceeded)
    state = GaugeMetricFamily(
        "eni53_alert_state",
        "1 while an alert of that severity is raised; a worse one includes the milder.",
        labels=(*_ENI, "severity"),
    )
    growth = GaugeMetricFamily(
        "eni53_eni_minutes_to_limit",
        "Minutes until the limit at the growth of the last ten minutes; absent when not steady.",
        labels=_ENI,
    )
    for usage in enis:
        if usage.minutes_to_limit is not None:
            growth.add_metric(_eni(usage), usage.minutes_to_limit)
    yield growth
    for usage in enis:
        for height, severity in enumerate(SEVERITIES, start=1):
            raised = STATES.index(usage.state) >= height
            state.add_metric((*_eni(usage), severity), int(raised))
    yield state


def _workload_families(snapshot: Snapshot) -> Iterator[Metric]:
    packets = CounterMetricFamily(
        "eni53_workload_packets",
        "Packets that a workload put on an ENI.",
        labels=("eni", *_WORKLOAD, "class", "via"),
    )
    ended = CounterMetricFamily(
        "eni53_workload_ended_packets",
        "Packets of workloads whose own series have ended.",
        labels=("eni",),
    )
    sent = CounterMetricFamily(
        "eni53_workload_sent_packets",
        "Packets that a workload sent from its network namespace, answered on the node or not.",
        labels=(*_WORKLOAD, "class"),
    )
    # Two names may look the same once cleaned, and a scrape may not repeat a series.
    totals: defaultdict[tuple[str, ...], int] = defaultdict(int)
    ended_totals: defaultdict[tuple[str, ...], int] = defaultdict(int)
    for usage in snapshot.enis:
        eni = clean(usage.eni.label)
        ended_totals[(eni,)] += usage.ended_packets
        for row in usage.workloads:
            for packet_class, count in row.classes.items():
                totals[eni, *_owner(row.workload), packet_class, row.via] += count.packets
    for labels, total in totals.items():
        packets.add_metric(labels, total)
    for labels, total in ended_totals.items():
        ended.add_metric(labels, total)
    totals.clear()
    for (workload, packet_class), number in snapshot.sent.items():
        totals[*_owner(workload), packet_class] += number
    for labels, total in totals.items():
        sent.add_metric(labels, total)
    yield from (packets, ended, sent)


def _answer_families(enis: tuple[EniUsage, ...]) -> Iterator[Metric]:
    responses = CounterMetricFamily(
        "eni53_eni_responses", "DNS answers over UDP that came in.", labels=(*_ENI, "rcode")
    )
    seconds = HistogramMetricFamily(
        "eni53_eni_response_seconds", "Time from query to answer, over UDP.", labels=_ENI
    )
    unanswered = CounterMetricFamily(
        "eni53_eni_unanswered",
        "DNS queries over UDP that had no answer within two seconds.",
        labels=_ENI,
    )
    retransmitted = CounterMetricFamily(
        "eni53_eni_retransmitted",
        "DNS queries over UDP that came again before they had an answer.",
        labels=_ENI,
    )
    truncated = CounterMetricFamily(
        "eni53_eni_truncated",
        "DNS answers over UDP that did not fit: the question comes again over TCP.",
        labels=_ENI,
    )
    elsewhere = CounterMetricFamily(
        "eni53_eni_answered_elsewhere",
        "DNS answers over UDP from another address than was asked.",
        labels=_ENI,
    )
    cacheable = CounterMetricFamily(
        "eni53_eni_cacheable_packets",
        "DNS queries over UDP that a cache on the node would have answered.",
        labels=(*_ENI, "class"),
    )
    named = CounterMetricFamily(
        "eni53_name_queries",
        "DNS queries over UDP for the names that are exported.",
        labels=("eni", "name", "type"),
    )
    for usage in enis:
        for (name, kind), count in usage.name_queries.items():
            named.add_metric((clean(usage.eni.label), name, kind), count)
    for usage in enis:
        if usage.counters is None or not usage.counters.response_buckets:
            continue  # answers are not looked at: that is not zero of them
        labels = _eni(usage)
        for code, count in sorted(usage.counters.responses.items()):
            name = _RCODES[code] if code < len(_RCODES) else str(code)
            responses.add_metric((*labels, name), count)
        unanswered.add_metric(labels, usage.counters.unanswered)
        retransmitted.add_metric(labels, usage.counters.retransmitted)
        truncated.add_metric(labels, usage.counters.truncated)
        elsewhere.add_metric(labels, usage.counters.elsewhere)
        for packet_class, queries in (usage.cacheable or {}).items():
            cacheable.add_metric((*labels, packet_class), queries)
        total, buckets = 0, []
        bounds = [*(f"{bound:g}" for bound in RESPONSE_BOUNDS_S), "+Inf"]
        for bound, count in zip(bounds, usage.counters.response_buckets, strict=True):
            total += count
            buckets.append((bound, float(total)))
        seconds.add_metric(labels, buckets, usage.counters.response_sum_s)
    yield from (responses, unanswered, seconds, retransmitted, truncated, elsewhere, cacheable)
    yield named


def _agent_families(health: Health) -> Iterator[Metric]:
    skipped = CounterMetricFamily(
        "eni53_agent_skipped_packets",
        "Packets at an ENI that could not be classified.",
        labels=("reason",),
    )
    events = CounterMetricFamily(
        "eni53_agent_kernel_events",
        "Times a kernel table had no room, by what was lost.",
        labels=("event",),
    )
    for name, count in health.stats.items():
        family = skipped if name in {"fragment", "malformed"} else events
        family.add_metric((name,), count)
    yield from (skipped, events)
    tag_lost = CounterMetricFamily(
        "eni53_agent_tag_lost_packets",
        "Packets that came by a known veth without the tag written there.",
    )
    tag_lost.add_metric((), health.tag_lost)
    yield tag_lost
    used = GaugeMetricFamily("eni53_agent_map_entries", "Entries in use.", labels=("map",))
    room = GaugeMetricFamily("eni53_agent_map_max_entries", "Room for entries.", labels=("map",))
    for name, (entries, most) in health.map_entries.items():
        used.add_metric((name,), entries)
        room.add_metric((name,), most)
    yield from (used, room)
    up = GaugeMetricFamily(
        "eni53_agent_source_up", "Whether an outside source answers.", labels=("source",)
    )
    for source, answers in health.sources_up.items():
        up.add_metric((source,), int(answers))
    yield up
    errors = CounterMetricFamily(
        "eni53_agent_errors",
        "Failures, each of which cost one tick or one source.",
        labels=("stage", "reason"),
    )
    failures: defaultdict[tuple[str, str], int] = defaultdict(int)
    for (stage, reason), count in health.errors.items():
        failures[stage, clean(reason)] += count
    for labels, count in failures.items():
        errors.add_metric(labels, count)
    yield errors
    for name, text, value in (
        ("resolver_known", "Whether the VPC's resolver address is known.", health.resolver_known),
        ("load_seconds", "Time that compiling and loading the programs took.", health.load_s),
        ("attach_latency_seconds", "Slowest attachment to a new interface.", health.attach_s),
    ):
        gauge = GaugeMetricFamily(f"eni53_agent_{name}", text)
        gauge.add_metric((), float(value))
        yield gauge
    alerts = CounterMetricFamily(
        "eni53_agent_alerts", "Alerts, by what became of them.", labels=("sink", "result")
    )
    for (sink, result), count in health.deliveries.items():
        alerts.add_metric((sink, result), count)
    yield alerts
    recordings = CounterMetricFamily(
        "eni53_agent_recordings", "Files that the flight recorder has written."
    )
    recordings.add_metric((), health.recordings)
    yield recordings
    mode = GaugeMetricFamily(
        "eni53_agent_attach_info", "1, with the way programs are attached.", labels=("mode",)
    )
    mode.add_metric((health.mode,), 1)
    yield mode
