"""The exposition: names and labels that others build upon, and sums that hold in it."""

import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from eni53 import __version__
from eni53.model import (
    OTHER,
    PENDING,
    UNATTRIBUTED,
    Count,
    EniUsage,
    Health,
    Snapshot,
    Workload,
    WorkloadUsage,
)
from eni53.sample import EniCounters
from eni53.sinks.metrics import render
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.samples import task
from tests.fixtures.snapshots import three_enis

GOLDEN = Path(__file__).parent.parent / "fixtures" / "metrics.txt"
HOSTILE = 'we"b\\\n\x1b[2J\ud800# HELP x'


def row(workload: Workload, via: str = "direct", **packets: int) -> WorkloadUsage:
    """One workload's packets by class."""
    counts = {name: Count(n, float(n)) for name, n in packets.items()}
    return WorkloadUsage(workload, via, sum(packets.values()), 1.0, 0.5, counts)


def usage(base: EniUsage, ended: int, *rows: WorkloadUsage) -> EniUsage:
    """*base* with these rows, and totals that are their sum."""
    protocols: dict[tuple[str, str], int] = defaultdict(int)
    for one in rows:
        for name, count in one.classes.items():
            protocols[name, "udp"] += count.packets
    protocols["resolver", "tcp"] += ended
    return replace(base, workloads=rows, ended_packets=ended, protocols=dict(protocols),
                   packets=sum(protocols.values()))  # fmt: skip


def snapshot() -> Snapshot:
    """Two ENIs, answers on one of them, and an agent that has had its troubles."""
    first, second, _ = three_enis().enis
    host = Workload("host", workload="chronyd.service")
    counters = EniCounters(
        (), {}, {0: 90, 2: 3, 3: 6, 11: 1}, (5, 60, 20, 5, 4, 3, 1, 0, 1, 0, 0, 0, 1), 1.25, 17
    )
    return Snapshot(
        node="ip-10-0-1-23",
        time_s=1_714_824_896.789,
        window_s=1.0,
        enis=(
            replace(
                usage(first, 250, row(task("web"), resolver=310, imds=2), row(host, ntp=7),
                      row(task("web"), "cache", resolver=40), row(PENDING, resolver=3),
                      row(UNATTRIBUTED, dns_other=1), row(OTHER, resolver=11)),
                over_threshold_s={0.7: 12.5, 0.9: 3.0, 1.0: 0.0}, counters=counters,
            ),
            usage(second, 0, row(task("web"), resolver=5)),
        ),
        sent={(task("web"), "resolver"): 900, (UNATTRIBUTED, "resolver"): 4},
        health=Health(
            errors={("source", "docker"): 2, ("attach", "refused"): 1},
            sources_up={"docker": False, "imds": True},
            stats={"fragment": 3, "malformed": 1, "sender_full": 7},
            map_entries={"senders": (120, 16384), "origins": (60, 16384)},
            tag_lost=42,
            load_s=0.31,
            attach_s=0.004,
            mode="tcx",
        ),
    )  # fmt: skip


def samples(shown: Snapshot | None):
    """Every sample of the exposition; two of the same name and labels fail here."""
    text = render(lambda: shown).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def values(found, name, *labels):
    """Sum by *labels* of all samples called *name*."""
    sums = defaultdict(float)
    for (sample, pairs), value in found.items():
        if sample == name:
            sums[tuple(dict(pairs)[label] for label in labels)] += value
    return dict(sums)


def test_the_exposition_is_the_one_agreed_on():
    """Names, labels and help are an interface; UPDATE_GOLDEN=1 writes the file anew."""
    text = render(snapshot).decode().replace(f'version="{__version__}"', 'version="0"')
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_the_sums_hold_in_the_exposition():
    """Per ENI: workloads of every kind + ended = the ENI's total."""
    found = samples(snapshot())
    parts = values(found, "eni53_workload_packets_total", "eni")
    ended = values(found, "eni53_workload_ended_packets_total", "eni")
    whole = values(found, "eni53_eni_packets_total", "eni")
    assert {eni: parts[eni] + ended[eni] for eni in whole} == whole
    assert whole[(snapshot().enis[0].eni.label,)] == 624.0


def test_before_the_first_snapshot_there_is_only_the_build():
    """A scrape that comes early gets no zeros that mean nothing."""
    assert samples(None) == {("eni53_agent_build_info", frozenset({("version", __version__)})): 1.0}


def test_an_idle_node_is_no_error():
    """No ENI, no workload: the agent's own families are there."""
    found = samples(Snapshot("n", 0.0, 1.0, ()))
    assert values(found, "eni53_agent_resolver_known") == {(): 1.0}
    assert values(found, "eni53_workload_packets_total") == {}


def test_hostile_names_are_cleaned():
    """No name ends its line, opens another one, or reaches a terminal as an escape."""
    bad = Workload("container", HOSTILE, HOSTILE, HOSTILE)
    base = snapshot()
    eni = replace(base.enis[0].eni, label=HOSTILE, mac=HOSTILE, interface=HOSTILE)
    shown = replace(
        base,
        enis=(replace(usage(base.enis[0], 1, row(bad, resolver=5)), eni=eni),),
        sent={(bad, "resolver"): 5},
        health=Health(errors={("docker", HOSTILE): 1}),
    )
    text = render(lambda: shown).decode()
    assert "\x1b" not in text
    assert all(line.startswith(("# ", "eni53_")) for line in text.splitlines())
    shown_name = 'we"b\\\\x0a\\x1b[2J\\ud800# HELP x'
    assert values(samples(shown), "eni53_workload_packets_total", "workload", "eni") == {
        (shown_name, shown_name): 5.0
    }


def test_names_that_look_the_same_are_one_series():
    """Prometheus refuses a whole scrape for one repeated series; sums are kept."""
    base = snapshot()
    twins = [Workload("container", workload=name) for name in ("a\n", "a\\x0a")]
    rows = [row(twin, resolver=5) for twin in twins]
    first = usage(base.enis[0], 1, *rows)
    same_label = replace(first, eni=replace(first.eni, interface="eth9"))
    shown = replace(
        base,
        enis=(first, same_label),
        sent=dict.fromkeys([(twin, "resolver") for twin in twins], 3),
        health=Health(errors={("docker", "x\n"): 1, ("docker", "x\\x0a"): 1}),
    )
    found = samples(shown)
    assert list(values(found, "eni53_workload_packets_total", "workload").values()) == [20.0]
    assert list(values(found, "eni53_workload_sent_packets_total", "workload").values()) == [6.0]
    assert list(values(found, "eni53_workload_ended_packets_total", "eni").values()) == [2.0]
    assert list(values(found, "eni53_agent_errors_total", "stage").values()) == [2.0]


def test_the_longest_names_stay_apart():
    """Two tasks of a family with a name of 255 characters differ at the end only."""
    family = "f" * 255
    tasks = [Workload("ecs_task", "prod", f"{family}:42/{n:032x}") for n in (1, 2)]
    shown = replace(snapshot(), enis=(
        usage(snapshot().enis[0], 0, *(row(one, resolver=1) for one in tasks)),
    ))  # fmt: skip
    assert len(values(samples(shown), "eni53_workload_packets_total", "workload")) == 2


def test_answers_are_a_histogram():
    """Buckets are cumulative, +Inf is the count, and rcodes go by name where they have one."""
    found = samples(snapshot())
    by_bound = values(found, "eni53_eni_response_seconds_bucket", "le")
    assert list(by_bound.values()) == sorted(by_bound.values())
    assert by_bound[("+Inf",)] == 100.0
    assert values(found, "eni53_eni_response_seconds_count") == {(): 100.0}
    assert values(found, "eni53_eni_response_seconds_sum") == {(): 1.25}
    assert values(found, "eni53_eni_responses_total", "rcode") == {
        ("noerror",): 90.0, ("servfail",): 3.0, ("nxdomain",): 6.0, ("11",): 1.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("eni53_agent_tag_lost_packets_total", 42.0),
        ("eni53_agent_kernel_events_total", 7.0),
        ("eni53_agent_skipped_packets_total", 4.0),
        ("eni53_agent_source_up", 1.0),
        ("eni53_agent_errors_total", 3.0),
        ("eni53_agent_map_entries", 180.0),
        ("eni53_agent_attach_latency_seconds", 0.004),
    ],
)
def test_the_agents_own_health(name, expected):
    """What was lost, and what does not answer, is there to alert on."""
    assert sum(values(samples(snapshot()), name).values()) == expected
