"""``python -m tests.bench.scale``: one real Prometheus, N simulated nodes, the shipped rules.

Everything runs in a network and process namespace of its own and is gone afterwards. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from eni53 import fleet
from eni53.errors import Eni53Error
from eni53.fleet_client import Prometheus
from eni53.sinks.metrics import render

from tests.fixtures import monitoring

from .page import table
from .simulated import FULL, USUAL, Shape, address, series, snapshot

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- measured -->", "<!-- end -->"
_START_S = 60.0
_ASKED = 5
_SETTLED_S = 1000.0


@dataclass(frozen=True, slots=True)
class Result:
    """What one run found.

    Attributes:
        up: Nodes whose last scrape succeeded.
        node_series: Series of one node, the rules' own not among them.
        series: Series in the head, rules and Prometheus' own included.
        samples_per_s: Appended, mean over the run's second half.
        resident_mib: Of Prometheus.
        cores: Processor time per second of Prometheus.
        scrape_s: The slowest node's last scrape.
        rules_s: Seconds the recording rules took, last evaluation.
        recorded_s: All fleet questions with the recording rules, best of five.
        raw_s: The same without.
        command_s: `eni53 fleet --json`, from its start to its end.
        hottest: ENIs over their limit, as the fleet sees them.
    """

    nodes: int
    up: int
    node_series: int
    series: int
    samples_per_s: float
    resident_mib: float
    cores: float
    scrape_s: float
    rules_s: float
    recorded_s: float
    raw_s: float
    command_s: float
    hottest: tuple[str, ...]


def exposed(shape: Shape) -> int:
    """Series that a node of *shape* exports."""
    return series(render(lambda: snapshot(1, shape, _SETTLED_S)))


@contextlib.contextmanager
def _running(log: Path, *argvs: list[str]) -> Iterator[None]:
    """Run them; what they said is shown when the block fails."""
    processes = []
    try:
        with log.open("wb") as out:
            processes += [
                subprocess.Popen(
                    argv, env=monitoring.bare_environment(), cwd=ROOT, stdout=out, stderr=out
                )
                for argv in argvs
            ]
        yield
    except BaseException:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)


def _until(what: str, ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"scale: {what} not within {seconds:g} s")
        time.sleep(0.2)


def measure(nodes: int, interval_s: int, seconds: float, shape: Shape) -> Result:
    """Run it; call in a namespace that has nothing but a loopback interface that is up."""
    with tempfile.TemporaryDirectory(prefix="eni53-scale-") as directory:
        server = monitoring.prometheus(
            Path(directory),
            {"eni53": map(address, range(nodes)), "prometheus": ["127.0.0.1:9090"]},
            interval_s=interval_s,
        )
        crowd = [
            sys.executable, "-m", "tests.bench.simulated", str(shape.workloads), str(shape.enis),
        ]  # fmt: skip
        with (
            _running(Path(directory) / "log", crowd, server),
            Prometheus(monitoring.PROMETHEUS) as prometheus,
        ):

            def ask(expression: str) -> float:
                try:
                    found = prometheus.query(expression)
                except Eni53Error:  # not up yet
                    return 0.0
                return (found[0].value or 0.0) if found else 0.0

            _until("all nodes scraped", lambda: ask('sum(up{job="eni53"})') >= nodes,
                   _START_S + 2 * interval_s)  # fmt: skip
            half = seconds / 2
            time.sleep(half)
            before = ask("prometheus_tsdb_head_samples_appended_total"), time.monotonic()
            time.sleep(half)
            _until("the rules' results", lambda: ask(fleet.RECORDED) > 0, _START_S)
            after = ask("prometheus_tsdb_head_samples_appended_total"), time.monotonic()
            recorded_s, hottest = _fleet(prometheus, recorded=True)
            raw_s, _ = _fleet(prometheus, recorded=False)
            begun_s = time.monotonic()
            argv = [str(Path(sys.executable).with_name("eni53")), "fleet", "--json"]
            argv += ["--prometheus", monitoring.PROMETHEUS]
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, timeout=120)
            command_s = time.monotonic() - begun_s
            window = f"[{max(5, int(half))}s]"
            return Result(
                nodes=nodes,
                up=int(ask('sum(up{job="eni53"})')),
                node_series=int(ask('quantile(0.5, scrape_samples_scraped{job="eni53"})')),
                series=int(ask("prometheus_tsdb_head_series")),
                samples_per_s=(after[0] - before[0]) / (after[1] - before[1]),
                resident_mib=ask('process_resident_memory_bytes{job="prometheus"}') / 2**20,
                cores=ask(f'rate(process_cpu_seconds_total{{job="prometheus"}}{window})'),
                scrape_s=ask('max(scrape_duration_seconds{job="eni53"})'),
                rules_s=ask(
                    'prometheus_rule_group_last_duration_seconds{rule_group=~".*eni53.records"}'
                ),
                recorded_s=recorded_s,
                raw_s=raw_s,
                command_s=command_s,
                hottest=hottest,
            )


def _fleet(prometheus: Prometheus, *, recorded: bool) -> tuple[float, tuple[str, ...]]:
    """Seconds of the questions behind `eni53 fleet`, and the ENIs over their limit."""
    took = []
    for _ in range(_ASKED):
        begun_s = time.monotonic()
        found = fleet.gather(prometheus, 20, recorded=recorded)
        took.append(time.monotonic() - begun_s)
    assert len(found.workloads) == 20
    assert all(one.nodes for one in found.workloads)
    return min(took), tuple(one.eni for one in found.enis if one.utilization > 1)


def report(result: Result, interval_s: int, seconds: float, shape: Shape) -> str:
    """The part of docs/scale.md that is measured."""
    usual, full = exposed(USUAL), exposed(FULL)
    own = table(
        ("node", "series", "1,000 nodes", "10,000 nodes"),
        [
            [f"{each.workloads} workloads, {each.enis} ENIs", f"{one:,}", f"{one / 1e3:.2f} M",
             f"{one / 1e2:.1f} M"]
            for each, one in ((USUAL, usual), (FULL, full))
        ],
    )  # fmt: skip
    run = table(
        (f"{result.nodes} nodes, every {interval_s} s", ""),
        [
            ["nodes whose last scrape succeeded", f"{result.up}"],
            ["series of a node", f"{result.node_series:,}"],
            ["series in the head, with those of the rules", f"{result.series:,}"],
            ["samples a second", f"{result.samples_per_s:,.0f}"],
            ["resident memory of Prometheus", f"{result.resident_mib:.0f} MiB"],
            ["of it for each series", f"{result.resident_mib * 1024 / result.series:.1f} KiB"],
            ["its processor time", f"{result.cores:.2f} cores"],
            ["slowest scrape (the simulated nodes share one Python process)",
             f"{result.scrape_s:.2f} s"],
            ["recording rules, one evaluation", f"{result.rules_s:.2f} s"],
            ["questions of `eni53 fleet`, with recording rules", f"{result.recorded_s:.2f} s"],
            ["the same without them", f"{result.raw_s:.2f} s"],
            ["the whole command `eni53 fleet`", f"{result.command_s:.2f} s"],
        ],
    )  # fmt: skip
    version = subprocess.run(
        ["prometheus", "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[2]
    where = (
        f"{time.strftime('%Y-%m-%d')}: Prometheus {version}, {os.cpu_count()} processors, load"
        f" average {os.getloadavg()[0]:.1f}, {seconds:g} s after the first full round;"
        f" {shape.workloads} workloads and {shape.enis} ENIs a node."
    )
    return f"{own}\n\n{where}\n\n{run}"


def main(argv: list[str]) -> int:
    """Measure, print, and write where that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--interval", type=int, default=15, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--workloads", type=int, default=USUAL.workloads)
    parser.add_argument("--enis", type=int, default=USUAL.enis)
    parser.add_argument("--json", action="store_true", help="the bare figures")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace its measured part")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("scale makes a network namespace: run it as root", file=sys.stderr)
        return 2
    if not args.inside:
        # With a pid namespace: whatever ends this ends all that it started.
        apart = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        again = [sys.executable, "-m", "tests.bench.scale", "--inside", *argv]
        return subprocess.run([*apart, *again], check=False, cwd=ROOT).returncode
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    shape = Shape(args.workloads, args.enis)
    result = measure(args.nodes, args.interval, args.seconds, shape)
    if args.json:
        print(json.dumps(asdict(result)))
        return 0
    text = report(result, args.interval, args.seconds, shape)
    print(text)
    if args.write is not None:
        before, rest = args.write.read_text().split(BEGIN)
        _, after = rest.split(END)
        args.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
