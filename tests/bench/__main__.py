"""``python -m tests.bench [--write docs/benchmarks.md]``: the page on stdout. Needs root."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.shell import LabError
from tests.lab.stopping import Terminated

from . import packets, resident, steps
from .page import Section, table

_HEAD = """# What eni53 costs

Printed by `make bench` (`python -m tests.bench --write docs/benchmarks.md`); nothing here is typed
by hand.

{machine}

Everything runs in network namespaces of the lab ([tests/lab](../tests/lab/README.md)) or never
leaves the kernel's test harness. The figures of one table come from one run and are compared within
it; a busy machine or another processor moves all of them, most of all the nanoseconds."""

_TAIL = """## What this does not show

- Exactness is not a benchmark: `make test` compares the counts with an nftables counter, to the
  packet. Nor is how soon an alert leaves.
- One processor does all the sending here. Several that send through one ENI at once share its
  counters' cache lines.
- Containers are stood for by namespaces with a cgroup, a veth and a socket each, and dockerd by a
  stand-in that answers as it does; the agent cannot tell the difference."""


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


def page(sections: list[Section], where: str) -> str:
    """The whole page."""
    aims = [aim.row for section in sections for aim in section.aims]
    head = table(("figure", "here", "aim", ""), aims)
    body = "\n\n".join(section.markdown for section in sections)
    return f"{_HEAD.format(machine=where)}\n\n## Aims\n\n{head}\n\n{body}\n\n{_TAIL}\n"


def main(argv: list[str]) -> int:
    """Measure, print, and write where that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the page there")
    args = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("the bench loads BPF and makes network namespaces: run it as root", file=sys.stderr)
        return 2
    begin, where = time.monotonic(), machine()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begin:5.0f} s  {what}", file=sys.stderr, flush=True)

    try:
        say("packets")
        sections = [packets.section()]
        say("a tick")
        tick = steps.section()
        memory, processor, start = resident.sections(say)
        sections += [memory, processor, tick, start, resident.flood_section(say)]
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    except Terminated:
        return 143
    except KeyboardInterrupt:
        return 130
    text = page(sections, where)
    print(text, end="")
    if args.write is not None:
        args.write.write_text(text)
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
