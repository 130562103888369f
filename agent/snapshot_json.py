"""A `Snapshot` as the JSON that `/api/v1/snapshot` and ``top --json`` speak, and back.

Version 1 of the shape: fields may be added, never renamed. What it leaves out (agent health,
kernel counters) is empty after a round trip. Text from outside is cleaned in both
directions, so that neither end can be fooled by the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from .conntrack_json import conntrack_to_json
from .model import Alert, Count, EniUsage, Finding, NameRate, ServerAsked, Snapshot, WorkloadUsage
from .resolv_json import resolv_confs_to_json
from .snapshot_reader import (
    MAX_LABEL,
    MAX_PATH,
    MAX_SENTENCE,
    VERSION,
    finding_from_json,
    from_json,
    loads,
)
from .text import clean

__all__ = [
    "alert_to_json",
    "dumps",
    "finding_from_json",
    "finding_to_json",
    "from_json",
    "loads",
    "rfc3339",
    "shares",
    "to_json",
    "workload_to_json",
]


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """*snapshot* as a JSON object of version 1."""
    return {
        "version": VERSION,
        "node": clean(snapshot.node),
        "time": rfc3339(snapshot.time_s),
        "window_seconds": _number(snapshot.window_s),
        "slot": snapshot.slot,
        "enis": [_eni(usage) for usage in snapshot.enis],
        "findings": [finding_to_json(finding) for finding in snapshot.findings],
        "servers": [_server(asked) for asked in snapshot.servers],
        "resolv_confs": resolv_confs_to_json(snapshot.resolv_confs),
        "conntrack": conntrack_to_json(snapshot.conntrack),
        "on_node": [clean(address) for address in snapshot.on_node],
    }


def alert_to_json(alert: Alert) -> dict[str, Any]:
    """*alert* as the body of a webhook, version 1."""
    return {
        "version": VERSION,
        "transition": alert.transition,
        "severity": alert.severity,
        "time": rfc3339(alert.time_s),
        "began": rfc3339(alert.began_s),
        "node": clean(alert.node),
        "eni": clean(alert.eni.label),
        "mac": clean(alert.eni.mac),
        "interface": clean(alert.eni.interface),
        "basis": alert.basis,
        "limit_pps": alert.limit_pps,
        "window_pps": _number(alert.window_pps),
        "peak_pps": _number(alert.peak_pps),
        "allowance_exceeded": alert.allowance_exceeded,
        "workloads": [workload_to_json(row) for row in alert.workloads],
    }


def shares(alert: Mapping[str, Any]) -> list[str]:
    """Who sends how much, in words, of what `alert_to_json` returned."""
    return [f"{row['workload'] or row['kind']} {row['share']:.0%}" for row in alert["workloads"]]


def dumps(snapshot: Snapshot, indent: int | None = None) -> str:
    """*snapshot* as JSON text in pure ASCII, so that any terminal or pipe can carry it."""
    return json.dumps(to_json(snapshot), indent=indent, allow_nan=False)


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """*finding* as a JSON object, the same for a snapshot and for ``doctor --json``."""
    return {
        "code": clean(finding.code),
        "severity": finding.severity,
        "eni": None if finding.eni is None else clean(finding.eni),
        "workload": None if finding.workload is None else clean(finding.workload, MAX_LABEL),
        "summary": _sentences(finding.summary),
        "evidence": {
            clean(key): clean(value, MAX_SENTENCE) if isinstance(value, str) else value
            for key, value in finding.evidence.items()
        },
        "remedy": _sentences(finding.remedy),
    }


def workload_to_json(usage: WorkloadUsage) -> dict[str, Any]:
    """One workload's row, the same for a snapshot and for a webhook."""
    return {
        "kind": clean(usage.workload.kind),
        "namespace": clean(usage.workload.namespace),
        "workload": clean(usage.workload.workload),
        "container": clean(usage.workload.container),
        "cgroup": None if usage.cgroup is None else clean(usage.cgroup, MAX_PATH),
        "cgroup_id": usage.cgroup_id,
        "via": clean(usage.via),
        "packets": usage.packets,
        "pps": _number(usage.pps),
        "share": _number(usage.share),
        "classes": _classes(usage.classes),
        "names": _names(usage.names),
    }


def _eni(usage: EniUsage) -> dict[str, Any]:
    windows = {
        basis: {"window_pps": _number(pps), "peak_pps": _number(usage.peak_pps[basis])}
        for basis, pps in usage.window_pps.items()
        if basis in usage.peak_pps
    }
    return {
        "eni": clean(usage.eni.label),
        "mac": clean(usage.eni.mac),
        "interface": clean(usage.eni.interface),
        "netns": clean(usage.eni.netns),
        "vlan": usage.eni.vlan,
        "limit_pps": usage.limit_pps,
        "basis": usage.basis,
        "packets": usage.packets,
        **windows[usage.basis],
        "windows": windows,
        "utilization": _number(usage.utilization),
        "state": usage.state,
        "classes": _classes(usage.classes),
        "protocols": _protocols(usage.protocols),
        "history": [_number(pps) for pps in usage.history_pps],
        "slots": [[slot.number, slot.linklocal, slot.dns] for slot in usage.slots],
        "ended_packets": usage.ended_packets,
        "unanswered": usage.unanswered,
        "retransmitted": usage.retransmitted,
        "truncated": usage.truncated,
        "elsewhere": usage.elsewhere,
        "cacheable": usage.cacheable
        and {name: _number(packets) for name, packets in usage.cacheable.items()},
        "names": _names(usage.names),
        "workloads": [workload_to_json(workload) for workload in usage.workloads],
    }


def _server(asked: ServerAsked) -> dict[str, Any]:
    return {
        "kind": clean(asked.workload.kind),
        "namespace": clean(asked.workload.namespace),
        "workload": clean(asked.workload.workload),
        "container": clean(asked.workload.container),
        "server": clean(asked.server),
        "queries": asked.queries,
        "fallbacks": asked.fallbacks,
        "waited_seconds": _number(asked.waited_s),
    }


def _names(names: Iterable[NameRate]) -> list[dict[str, Any]]:
    return [
        {
            "name": clean(n.name, MAX_LABEL),
            "type": clean(n.type),
            "pps": _number(n.pps),
            "packets": n.packets,
            "ttl_s": n.answer.ttl_s if n.answer else None,
            "rcode": clean(n.answer.rcode) if n.answer else None,
        }
        for n in names
    ]


def _classes(classes: Mapping[str, Count]) -> dict[str, dict[str, float]]:
    return {
        name: {"packets": count.packets, "pps": _number(count.pps)}
        for name, count in classes.items()
    }


def _protocols(packets: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (packet_class, protocol), count in packets.items():
        found.setdefault(packet_class, {})[protocol] = count
    return found


def _number(value: float) -> float:
    """*value* without the noise of division: a millionth is finer than anything measured."""
    return round(float(value), 6)


def rfc3339(time_s: float) -> str:
    """*time_s*, seconds since the epoch, in UTC with milliseconds."""
    moment = datetime.fromtimestamp(round(time_s, 3), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sentences(text: str) -> str:
    """*text* cleaned line by line: a remedy may have several, a name never."""
    return "\n".join(clean(line, MAX_SENTENCE) for line in text.split("\n"))
