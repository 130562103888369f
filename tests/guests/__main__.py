"""``python -m tests.guests``: eni53's kernel tests under other kernels. Debian, amd64."""

from __future__ import annotations

import argparse
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import images, initramfs, kernels, machine
from .report import Row, table
from .shell import CHECKOUT, GuestError, NotToBeHad, cache

_TESTS = f"exec {images.VENV}/bin/python -m tests.guests.inside.run"
_LIMIT_S = 1800.0  # of a busy machine; an idle one needs a fifth of it


def main(argv: list[str]) -> int:
    """Boot what was asked for, one after the other; 1 when anything failed."""
    args = _arguments(argv)
    if platform.machine() != "x86_64":
        print("guests: kernels and machine are amd64; this one is not", file=sys.stderr)
        return 2
    wanted = [line for line in kernels.LINES if not args.kernel or line.name in args.kernel]
    # As for Ctrl-C: the guest and the scratch directory must not stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows, bad = [], 0
    try:
        root = images.root()
        for line in wanted:
            row = _one(line, root, args)
            rows.append(row)
            bad += not row.ok
    except GuestError as error:
        print(f"guests: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(table(rows))
    return 1 if bad else 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.guests", description=__doc__)
    names = [line.name for line in kernels.LINES]
    parser.add_argument("--kernel", action="append", choices=names, help="default: all")
    parser.add_argument("--command", default=None, help="a shell command instead of the tests")
    parser.add_argument("--tests", default="", help="arguments for pytest instead of the usual")
    parser.add_argument("--tree", type=Path, default=CHECKOUT, help="test this copy instead")
    parser.add_argument("--cgroups", choices=["v2", "v1"], default="v2")
    parser.add_argument("--limit", type=float, default=_LIMIT_S, help="seconds for each guest")
    parser.add_argument("--refresh", action="store_true", help="ask the mirror for newer kernels")
    parser.add_argument("--quick", action="store_true", help="a tenth of the tests")
    parser.add_argument("--quiet", action="store_true", help="only the table, and what failed")
    return parser.parse_args(argv)


def _one(line: kernels.Line, root: Path, args: argparse.Namespace) -> Row:
    """One kernel, from fetching it to its row in the table."""
    started = time.monotonic()
    try:
        kernel = kernels.get(line, refresh=args.refresh)
    except NotToBeHad as error:
        if line.leaving:
            return Row.left_out(line.name, str(error))
        return Row.broken(line.name, "", str(error))
    fetched_s = time.monotonic() - started
    print(f"guests: {line.name}: {kernel.release} (fetched in {fetched_s:.1f} s)", flush=True)
    command = args.command or f"{_TESTS} {args.tests}"
    settings = {
        "CHECKOUT": str(CHECKOUT),
        "CGROUPS": args.cgroups,
        "GUEST_TESTS": "v1" if args.cgroups == "v1" else "quick" if args.quick else "usual",
        "ENI53_REPORT": "/dev/ttyS2",
    }
    tell = None if args.quiet else _say
    with tempfile.TemporaryDirectory(dir=cache()) as name:
        scratch = Path(name)
        disks = machine.Disks(scratch / "initramfs", root, scratch / "checkout.ext4")
        images.checkout(disks.checkout, args.tree.resolve())
        initramfs.write(kernel, command + "\n", settings, disks.initramfs)
        try:
            result = machine.boot(kernel, disks, scratch, args.limit, tell)
        except GuestError as error:
            return Row.broken(line.name, kernel.release, str(error))
    if result.status and args.quiet:
        print(result.output)
    return Row.of(line.name, kernel.release, result)


def _say(text: str) -> None:
    print(text, end="", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
