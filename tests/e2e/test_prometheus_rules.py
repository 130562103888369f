"""The shipped rules: valid, tested by promtool, and tests that would notice if they broke."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from eni53.sinks.metrics import SnapshotCollector

from tests.fixtures.snapshots import near_limit

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "deploy/prometheus"
RULES = (HERE / "rules.yml").read_text()
TESTS = (HERE / "rules.test.yml").read_text()
ALERTS = sorted(set(re.findall(r"- alert: (\w+)", RULES)))
RECORDS = re.findall(r"- record: (\S+)", RULES)

MUTANTS = {
    "warned too early": (">= 0.7", ">= 0.69"),
    "warned too late": (">= 0.7", "> 0.7"),
    "critical too early": (">= 0.9", ">= 0.7"),
    "over at the limit": ("ratio > 1\n", "ratio >= 1\n"),
    "any allowance": ('allowance="linklocal"', 'allowance=~".+"'),
    "drops without growth": (
        'increase(eni53_ena_allowance_exceeded_total{allowance="linklocal"}[5m])',
        'eni53_ena_allowance_exceeded_total{allowance="linklocal"}',
    ),
    "unanswered: any share": ("unanswered:ratio_rate5m > 0.05", "unanswered:ratio_rate5m > 0.03"),
    "unanswered: any number": ("[5m])) > 0.1", "[5m])) > 0.001"),
    "unanswered at once": ("for: 2m", "for: 0m"),
    "silent when nothing answers": (
        "or sum by (job, instance, eni) (rate(eni53_eni_unanswered_total[5m]))\n", "\n"),
    "idle ENIs have a share": (") > 0)", ") >= 0)"),
    "pending is nobody": (',workload!="pending"', ""),
    "unattributed: any number": ("[5m])) > 1\n", "[5m])) > 0.1\n"),
    "unattributed at once": ("for: 15m", "for: 0m"),
    "every job is ours": ('up{job=~".*eni53.*"} == 0', "up == 0"),
    "down at once": ("for: 5m", "for: 0m"),
    "a job that is gone": (" unless group", " and group"),
    "no job at all": ("or absent_over_time", "and absent_over_time"),
    "any kernel event": (
        'event!~"vlan_unknown|ask_ambiguous|packet_dropped|query_evicted|asked_full"',
        'event!=""',
    ),
    "table full without growth": ("(increase(eni53_agent", "(sum_over_time(eni53_agent"),
    "a source that answers": ("source_up == 0", "source_up >= 0"),
    "a resolver that is known": ("resolver_known == 0", "resolver_known >= 0"),
    "busiest of another ENI": (",eni=%q})", "})"),
    "dns_other counts": ('class!="dns_other"', 'class!=""'),
}  # fmt: skip


def run(*argv: str, cwd: Path = HERE) -> subprocess.CompletedProcess[str]:
    """Run a tool of Prometheus."""
    return subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )  # fmt: skip


@pytest.mark.parametrize(
    "argv",
    [
        ("promtool", "check", "rules", "--lint=all", "--lint-fatal", "rules.yml"),
        ("promtool", "test", "rules", "rules.test.yml"),
        ("promtool", "check", "config", "prometheus.yml"),
        ("amtool", "check-config", "alertmanager.yml"),
    ],
    ids=" ".join,
)
def test_tools_of_prometheus_are_content(argv: tuple[str, ...]) -> None:
    """What is shipped is valid, and the rules do what their tests say."""
    done = run(*argv)
    assert done.returncode == 0, done.stdout + done.stderr


def failures(directory: Path, old: str, new: str) -> str:
    """What the tests say of rules in which *old* is *new*; a rule that no longer parses says so."""
    assert old in RULES, old
    (directory / "rules.yml").write_text(RULES.replace(old, new))
    (directory / "rules.test.yml").write_text(TESTS)
    done = run("promtool", "test", "rules", "rules.test.yml", cwd=directory)
    assert (done.returncode != 0) == ("FAILED" in done.stderr)
    return done.stderr


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_rules_are_noticed(tmp_path: Path, name: str) -> None:
    """Rules that are wrong in one place fail their tests, by what they give."""
    assert "got:" in failures(tmp_path, *MUTANTS[name])


@pytest.mark.parametrize("name", [*(f"alert: {name}" for name in ALERTS),
                                  *(f"record: {name}" for name in RECORDS)])  # fmt: skip
def test_every_rule_is_tested(tmp_path: Path, name: str) -> None:
    """Under any other name, the tests miss it."""
    kind, _, rest = name.partition(": ")
    assert "got:" in failures(tmp_path, f"- {name}\n", f"- {kind}: not_{rest}\n")


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_both_ways_and_documented(alert: str) -> None:
    """Firing and not firing; a section of docs/alerts.md that its runbook link leads to."""
    cases = re.split(r"(?=alertname: )", TESTS)
    mine = [case for case in cases if re.match(rf"alertname: {alert}\b", case)]
    assert any("exp_alerts: []" in case for case in mine)
    assert any("exp_labels" in case for case in mine)
    block = RULES.split(f"- alert: {alert}\n")[1].split("- alert: ")[0]
    assert f"runbook_url: docs/alerts.md#{alert.lower()}\n" in block + "\n"
    assert re.search(rf"^## {alert}$", (ROOT / "docs/alerts.md").read_text(), re.M)
    assert re.search(r"severity: (warning|critical)\n", block)


def test_every_metric_of_the_rules_is_one_the_agent_has() -> None:
    """A rule about a metric that nobody exports would be silent for ever."""
    exported = set()
    for family in SnapshotCollector(near_limit).collect():
        exported.add(family.name + ("_total" if family.type == "counter" else ""))
    used = set(re.findall(r"(?<![\w:])eni53_\w+", re.sub(r"\w+:eni53\w+:\w+", "", RULES)))
    assert used - exported == set()
