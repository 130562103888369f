"""``python -m tests.bench [--write docs/benchmarks.md]``: the page on stdout. Needs root."""

from __future__ import annotations

import argparse
import compileall
import datetime
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

from eni53 import cli

from tests.lab.pods import MAX_PODS
from tests.lab.shell import LabError
from tests.lab.stopping import Terminated

from . import flood, loading, packets, pods, resident, steps
from .page import Section, table

_HEAD = """# What eni53 costs

Printed by `make bench` (`python -m tests.bench --write docs/benchmarks.md`; `--pods 0` leaves out
the node of pods, which takes half of the time); nothing here is typed by hand.

{machine}

Everything runs in network namespaces of the lab ([tests/lab](../tests/lab/README.md)) or never
leaves the kernel's test harness. The figures of one table come from one run and are compared within
it; a busy machine or another processor moves all of them, most of all the nanoseconds.
{pressure}"""

_TAIL = """## What this does not show

- Exactness is not a benchmark: `make test` compares the counts with an nftables counter, to the
  packet. Nor is how soon an alert leaves.
- One processor does all the sending here. Several that send through one ENI at once share its
  counters' cache lines.
- Where it says workloads, containers are stood for by namespaces with a cgroup, a veth and a
  socket each, and dockerd by a stand-in that answers as it does; the agent cannot tell the
  difference. Where it says pods, they are pods."""


def machine() -> str:
    """One line about where this ran."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    asked = ["/usr/bin/python3", "-c", "import bcc; print(bcc.__version__)"]
    bcc = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    load = os.getloadavg()[0]
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return (
        f"{today}: Linux {platform.release()}, {os.cpu_count()} processors ({model}),"
        f" Python {platform.python_version()}, BCC {bcc or 'unknown'};"
        f" load average at the start {load:.2f}."
    )


def waited_s() -> float:
    """Seconds since boot in which somebody waited for a processor; 0 where nobody keeps count."""
    try:
        (total,) = re.findall(r"^some .*total=(\d+)", Path("/proc/pressure/cpu").read_text(), re.M)
    except (OSError, ValueError):
        return 0.0
    return int(total) / 1e6


def page(sections: list[Section], where: str, waited: float) -> str:
    """The whole page; *waited* is the part of the time in which the processors were wanted."""
    pressure = f"While it ran, somebody waited for a processor {waited:.0%} of the time."
    aims = [aim.row for section in sections for aim in section.aims]
    head = table(("figure", "here", "aim", ""), aims)
    body = "\n\n".join(section.markdown for section in sections)
    top = _HEAD.format(machine=where, pressure=pressure)
    return f"{top}\n\n## Aims\n\n{head}\n\n{body}\n\n{_TAIL}\n"


def main(argv: list[str]) -> int:
    """Measure, print, and write where that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page there")
    parser.add_argument(
        "--pods",
        type=int,
        default=MAX_PODS,
        metavar="N",
        help=f"how many real pods; 0 leaves them out (default {MAX_PODS})",
    )
    args = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("the bench loads BPF and makes network namespaces: run it as root", file=sys.stderr)
        return 2
    # As pip leaves it: an agent that compiles its modules at each start is slower, and larger.
    compileall.compile_dir(Path(cli.__file__).parent, quiet=1)
    begin, where, waited = time.monotonic(), machine(), waited_s()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begin:5.0f} s  {what}", file=sys.stderr, flush=True)

    try:
        say("packets")
        kernel = packets.section()
        say("compiling, a tick")
        compiling, tick = loading.section(), steps.section()
        memory, processor, start = resident.sections(say)
        full_speed = flood.section(say)
        sections = [kernel, memory, processor, tick, start, compiling, full_speed]
        if args.pods:
            say(f"{args.pods} pods")
            sections.insert(3, pods.section(say, args.pods))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130
    text = page(sections, where, (waited_s() - waited) / (time.monotonic() - begin))
    print(text, end="")
    if args.write is not None:
        args.write.write_text(text)
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
