"""`eni53 fleet`: the hottest ENIs and workloads of all nodes, by instant queries to Prometheus.

All questions are put at one moment, so that their answers fit together. The recording rules of
deploy/prometheus/rules.yml are used where they are; without them Prometheus works harder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from .errors import NeedError
from .fleet_client import Prometheus, Sample
from .model import Workload

ENI_LABELS = ("job", "instance", "eni")
OWNER_LABELS = ("kind", "namespace", "workload")
_ENI, _OWNER = ", ".join(ENI_LABELS), ", ".join(OWNER_LABELS)
_RECORDED_ENIS = "eni:eni53_linklocal_packets:rate5m"
_RECORDED_WORKLOADS = "workload:eni53_linklocal_packets:rate5m"
_RAW_ENIS = f'sum by ({_ENI}) (rate(eni53_eni_packets_total{{class!="dns_other"}}[5m]))'
_RAW_WORKLOADS = (
    f'sum by ({_ENI}, {_OWNER}) (rate(eni53_workload_packets_total{{class!="dns_other"}}[5m]))'
)
AGENTS = "count(eni53_agent_build_info)"
RECORDED = f"count({_RECORDED_WORKLOADS}) and count({_RECORDED_ENIS})"
SILENT = 'up{job=~".*eni53.*"} == 0'
_SCRAPED = "count(up)"
_SILENT_SHOWN = 20

Ask = Callable[[str], Sequence[Sample]]
"""From an expression to its instant vector."""


@dataclass(frozen=True, slots=True)
class FleetEni:
    """One ENI. What Prometheus does not know is None.

    Attributes:
        peak_pps: Highest second of the last 60, on the basis its agent is configured for.
        pps: To link-local services, mean of five minutes.
        drops_1h: Packets AWS dropped, as its driver counts; None where the driver has no count.
        busiest: The workload that sent most there, with its packets per second.
    """

    job: str
    node: str
    eni: str
    mac: str
    interface: str
    utilization: float
    limit_pps: float | None
    peak_pps: float | None
    pps: float | None
    drops_1h: float | None
    busiest: tuple[Workload, float] | None


@dataclass(frozen=True, slots=True)
class FleetWorkload:
    """One workload, summed over all ENIs it sends by.

    Attributes:
        pps: To link-local services, mean of five minutes.
        nodes: How many nodes it sends from.
        node: The one it sends most from.
        eni: The ENI there.
    """

    workload: Workload
    pps: float
    nodes: int | None
    node: str | None
    eni: str | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that is shown.

    Attributes:
        agents: How many agents Prometheus has numbers of.
        silent: Nodes whose agent Prometheus does not reach, some of them.
        silent_count: How many those are.
        recorded: Whether the recording rules were there.
    """

    time_s: float
    agents: int
    silent: tuple[str, ...]
    silent_count: int
    recorded: bool
    enis: tuple[FleetEni, ...]
    workloads: tuple[FleetWorkload, ...]


def run(url: str, *, as_json: bool, limit: int, stream: TextIO) -> int:
    """Ask, print, return 0.

    Raises:
        UsageError: *url* is none.
        NeedError: Nobody answers there, not Prometheus does, or it has nothing of eni53.
    """
    from .fleet_view import print_table, write_json  # noqa: PLC0415 - rich is for people only

    with Prometheus(url) as server:
        fleet = gather(server, limit)
    if as_json:
        write_json(fleet, stream)
    else:
        print_table(fleet, stream)
    return 0


def gather(server: Prometheus, limit: int, *, recorded: bool | None = None) -> Fleet:
    """The *limit* hottest ENIs and workloads.

    Args:
        server: Who is asked.
        limit: Rows of each table at most.
        recorded: Whether to use the recording rules; None: if they are there.

    Raises:
        NeedError: As `run`.
    """
    agents = server.query(AGENTS)
    silent = server.query(SILENT)
    if not agents:
        raise _nothing(server, len(silent))
    now_s = agents[0].time_s

    def ask(expression: str) -> Sequence[Sample]:
        return server.query(expression, now_s)

    if recorded is None:
        recorded = bool(ask(RECORDED))
    return Fleet(
        now_s,
        int(agents[0].value or 0),
        tuple(sorted(one.labels.get("instance", "") for one in silent)[:_SILENT_SHOWN]),
        len(silent),
        recorded,
        _enis(ask, limit, recorded),
        _workloads(ask, limit, recorded),
    )


def _nothing(server: Prometheus, silent: int) -> NeedError:
    who = f"Prometheus at {server.shown}"
    if silent:
        return NeedError(
            f"{who} reaches none of the {silent} agents it knows: do they run, and do they listen"
            " on an address it can reach (--listen)?"
        )
    scraped = server.query(_SCRAPED)
    if not scraped:
        return NeedError(f"{who} scrapes nothing yet: add the agents to its scrape_configs")
    return NeedError(
        f"{who} scrapes {scraped[0].value or 0:.0f} targets and has no numbers of eni53: add the"
        " agents to its scrape_configs"
    )


# --- ENIs -------------------------------------------------------------------------------------


def hottest_enis(limit: int) -> str:
    """The question for the ENIs with the highest utilization; idle ones are not hot."""
    return f"topk({limit}, eni53_eni_utilization_ratio > 0)"


def about_enis(least: float, recorded: bool) -> dict[str, str]:
    """The questions about all ENIs whose utilization is *least* or more, by field.

    By that and not by another topk: where several are equal, each topk may choose others.
    """
    them = f"and on ({_ENI}) (eni53_eni_utilization_ratio >= {least!r})"
    enis, workloads = _rates(recorded)
    return {
        "limit_pps": f"eni53_eni_limit_pps {them}",
        "pps": f"{enis} {them}",
        # Summed: an agent that was started anew may have got another label of its pod.
        "drops_1h": f"sum by ({_ENI})"
        ' (increase(eni53_ena_allowance_exceeded_total{allowance="linklocal"}[1h]))'
        f" {them}",
        "busiest": f"topk by ({_ENI}) (1, {workloads} {them})",
    }


def _enis(ask: Ask, limit: int, recorded: bool) -> tuple[FleetEni, ...]:
    hot = [(one.labels, one.value) for one in ask(hottest_enis(limit)) if one.value is not None]
    hot = sorted(hot, key=lambda pair: -pair[1])[:limit]
    if not hot:
        return ()
    facts = {
        field: {_names(one.labels): one for one in ask(question)}
        for field, question in about_enis(hot[-1][1], recorded).items()
    }
    rows = []
    for labels, utilization in hot:
        job, node, eni = key = _names(labels)
        limit_pps = _value(facts["limit_pps"].get(key))
        busiest = facts["busiest"].get(key)
        most = _value(busiest)
        rows.append(
            FleetEni(
                job,
                node,
                eni,
                labels.get("mac", ""),
                labels.get("interface", ""),
                utilization,
                limit_pps,
                None if limit_pps is None else utilization * limit_pps,
                _value(facts["pps"].get(key)),
                _value(facts["drops_1h"].get(key)),
                None if busiest is None or most is None else (_owner(busiest), most),
            )
        )
    return tuple(rows)


# --- workloads --------------------------------------------------------------------------------


def hottest_workloads(limit: int, recorded: bool) -> str:
    """The question for the workloads that send most, over all ENIs."""
    return f"topk({limit}, sum by ({_OWNER}) ({_rates(recorded)[1]}) > 0)"


def about_workloads(least: float, recorded: bool) -> dict[str, str]:
    """The questions about all workloads that send *least* or more, by field."""
    rate = _rates(recorded)[1]
    # Sums of the same numbers in another order differ in their last digits.
    them = f"and on ({_OWNER}) (sum by ({_OWNER}) ({rate}) >= {least * (1 - 1e-9)!r})"
    return {
        "nodes": f"count by ({_OWNER}) (group by (job, instance, {_OWNER}) ({rate} {them}))",
        "most": f"topk by ({_OWNER}) (1, {rate} {them})",
    }


def _workloads(ask: Ask, limit: int, recorded: bool) -> tuple[FleetWorkload, ...]:
    asked = ask(hottest_workloads(limit, recorded))
    hot = [(_owner(one), one.value) for one in asked if one.value is not None]
    hot = sorted(hot, key=lambda pair: (-pair[1], pair[0]))[:limit]
    if not hot:
        return ()
    facts = {
        field: {_owner(one): one for one in ask(question)}
        for field, question in about_workloads(hot[-1][1], recorded).items()
    }
    rows = []
    for workload, pps in hot:
        nodes, most = _value(facts["nodes"].get(workload)), facts["most"].get(workload)
        where: Mapping[str, str] = most.labels if most else {}
        rows.append(
            FleetWorkload(
                workload,
                pps,
                None if nodes is None else int(nodes),
                where.get("instance"),
                where.get("eni"),
            )
        )
    return tuple(rows)


def _rates(recorded: bool) -> tuple[str, str]:
    return (_RECORDED_ENIS, _RECORDED_WORKLOADS) if recorded else (_RAW_ENIS, _RAW_WORKLOADS)


def _names(labels: Mapping[str, str]) -> tuple[str, str, str]:
    return (labels.get("job", ""), labels.get("instance", ""), labels.get("eni", ""))


def _owner(sample: Sample) -> Workload:
    return Workload(*(sample.labels.get(name, "") for name in OWNER_LABELS))


def _value(sample: Sample | None) -> float | None:
    return None if sample is None else sample.value
