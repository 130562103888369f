"""From JSON, version 1, to a `Snapshot`: strictly, for whoever sent it may be anybody.

`eni53.snapshot_json` writes what is read here, and is the door to both.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from itertools import starmap

from .conntrack_json import read_conntrack
from .errors import SourceError
from .model import (
    BASIS_CLASSES,
    PROTOCOLS,
    STATES,
    Count,
    Eni,
    EniUsage,
    Finding,
    NameRate,
    ServerAsked,
    Snapshot,
    Workload,
    WorkloadUsage,
)
from .resolv_json import read_addresses, read_resolv_confs
from .sample import Answer, Slot
from .strict import Reader

VERSION = 1
SEVERITIES = ("info", "warning", "critical")
HISTORY_S = 60
RING_SLOTS = 64
MAX_PATH = 4096
MAX_SENTENCE = 2000
MAX_LABEL = 300
_LATEST_S = 221_845_392_000.0  # from the end of the calendar there is no way to an hour later
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)", re.ASCII)


def loads(data: str | bytes) -> Snapshot:
    """The snapshot in *data*.

    Raises:
        SourceError: *data* is not JSON, or not a snapshot of version 1.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"snapshot: not JSON ({type(error).__name__})") from error
    return from_json(document)


def from_json(document: object) -> Snapshot:
    """The snapshot that *document*, decoded JSON from anywhere, describes.

    Raises:
        SourceError: A value is missing or not what it must be; the message names its place.
    """
    top = Reader(document, "snapshot")
    if top.integer("version") != VERSION:
        raise SourceError(f"snapshot.version: only {VERSION} is understood; is eni53 up to date?")
    return Snapshot(
        node=top.text("node"),
        time_s=moment_of(top, "time"),
        window_s=top.number("window_seconds"),
        enis=tuple(_read_eni(eni) for eni in top.objects("enis")),
        findings=tuple(finding_from_json(finding) for finding in top.objects("findings")),
        slot=top.optional("slot", top.integer) if top.has("slot") else None,
        servers=tuple(map(_read_server, top.objects("servers"))) if top.has("servers") else (),
        resolv_confs=read_resolv_confs(top),
        on_node=read_addresses(top, "on_node"),
        conntrack=read_conntrack(top),
    )


def finding_from_json(at: Reader) -> Finding:
    """The finding that the object *at* describes.

    Raises:
        SourceError: A value is missing or not what it must be.
    """
    return Finding(
        code=at.text("code"),
        severity=at.choice("severity", SEVERITIES),
        summary=at.lines("summary", MAX_SENTENCE),
        eni=at.optional("eni", at.text),
        workload=at.optional("workload", lambda key: at.text(key, MAX_LABEL)),
        evidence=at.facts("evidence", MAX_SENTENCE),
        remedy=at.lines("remedy", MAX_SENTENCE),
    )


def _read_eni(at: Reader) -> EniUsage:
    basis = at.choice("basis", tuple(BASIS_CLASSES))
    windows = (at.named("windows") if at.has("windows") else {}) | {basis: at}
    return EniUsage(
        eni=Eni(
            label=at.text("eni"),
            mac=at.text("mac"),
            interface=at.text("interface"),
            netns=at.text("netns"),
            ifindex=0,
            vlan=at.integer("vlan") if at.has("vlan") else 0,
        ),
        limit_pps=at.integer("limit_pps", least=1),
        basis=basis,
        packets=at.integer("packets"),
        window_pps={name: window.number("window_pps") for name, window in windows.items()},
        peak_pps={name: window.number("peak_pps") for name, window in windows.items()},
        utilization=at.number("utilization"),
        state=at.choice("state", STATES),
        classes=_read_classes(at),
        protocols=_read_protocols(at) if at.has("protocols") else {},
        workloads=tuple(_read_workload(workload) for workload in at.objects("workloads")),
        ended_packets=at.integer("ended_packets") if at.has("ended_packets") else 0,
        history_pps=at.numbers("history")[-HISTORY_S:] if at.has("history") else (),
        names=_read_names(at) if at.has("names") else (),
        slots=tuple(starmap(Slot, at.rows("slots", 3)[-RING_SLOTS:])) if at.has("slots") else (),
        unanswered=_count(at, "unanswered"),
        retransmitted=_count(at, "retransmitted"),
        truncated=_count(at, "truncated"),
        elsewhere=_count(at, "elsewhere"),
        cacheable=at.optional("cacheable", at.amounts) if at.has("cacheable") else None,
    )


def _count(at: Reader, key: str) -> int | None:
    """What older versions do not tell is not known."""
    return at.optional(key, at.integer) if at.has(key) else None


def _read_server(at: Reader) -> ServerAsked:
    return ServerAsked(
        Workload(*map(at.text, ("kind", "namespace", "workload", "container"))),
        server=at.text("server"),
        queries=at.integer("queries"),
        fallbacks=at.integer("fallbacks"),
        waited_s=at.number("waited_seconds"),
    )


def _read_workload(at: Reader) -> WorkloadUsage:
    return WorkloadUsage(
        workload=Workload(*map(at.text, ("kind", "namespace", "workload", "container"))),
        via=at.text("via"),
        packets=at.integer("packets"),
        pps=at.number("pps"),
        share=at.number("share"),
        classes=_read_classes(at) if at.has("classes") else {},
        cgroup=at.optional("cgroup", lambda key: at.text(key, MAX_PATH)),
        cgroup_id=at.optional("cgroup_id", at.integer),
        names=_read_names(at),
    )


def _read_names(at: Reader) -> tuple[NameRate, ...]:
    return tuple(
        NameRate(
            name.text("name", MAX_LABEL),
            name.text("type"),
            name.number("pps"),
            name.integer("packets") if name.has("packets") else 0,
            _read_answer(name),
        )
        for name in at.objects("names")
    )


def _read_answer(at: Reader) -> Answer | None:
    rcode = at.optional("rcode", at.text) if at.has("rcode") else None
    return None if rcode is None else Answer(_count(at, "ttl_s"), rcode)


def _read_classes(at: Reader) -> dict[str, Count]:
    return {
        name: Count(count.integer("packets"), count.number("pps"))
        for name, count in at.named("classes").items()
    }


def _read_protocols(at: Reader) -> dict[tuple[str, str], int]:
    return {
        (name, protocol): counts.integer(protocol)
        for name, counts in at.named("protocols").items()
        for protocol in PROTOCOLS
        if counts.has(protocol)
    }


def moment_of(at: Reader, key: str) -> float:
    """The moment at *key*, RFC 3339 in UTC, in seconds since the epoch.

    Raises:
        SourceError: It is missing, or not a moment.
    """
    text = at.text(key)
    if not _RFC3339.fullmatch(text):
        raise SourceError(f"{at.place}.{key}: must be RFC 3339 in UTC")
    try:
        time_s = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{at.place}.{key}: no such moment") from error
    if not 0 <= time_s < _LATEST_S:
        raise SourceError(f"{at.place}.{key}: must be after 1970 and before 9000")
    return time_s
