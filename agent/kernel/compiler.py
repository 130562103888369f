"""Compiles the BPF programs in a process of its own and hands over the file descriptors.

A process that has compiled with BCC holds over 100 MiB of LLVM until it ends. So this module is
run as ``python -m eni53.kernel.compiler FD`` by `kernel.child`: it compiles, loads, sends the
program and map descriptors over the socket FD, and exits. Nothing else may import ``bcc``.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import secrets
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

PROGRAMS = (
    "workload_ingress",
    "asker_lo",
    "eni_egress",
    "eni_ingress",
    "task_egress",
    "task_ingress",
)
CALLED = ("eni_egress", "eni_ingress")  # in the order of enum task_way in bpf/maps.h
RINGS = ("crossings", "told_names")

# Debian and Ubuntu put BCC where only the distribution's own interpreter looks.
_DISTRIBUTION_PACKAGES = ("/usr/lib/python3/dist-packages", "/usr/lib/python3/site-packages")
# BCC asks for debug information, which nobody reads: without it, compiling is a third faster.
_FLAGS = ["-Wno-unused-function", "-g0"]
_AT_ONCE = 2  # programs that the kernel verifies; small nodes have no more processors
_INCLUDE = re.compile(r'\s*#include "([\w./-]+)"')


def flatten(directory: Path, name: str, seen: set[str] | None = None) -> str:
    """The C of *name* with our own headers in place of their ``#include`` lines.

    BCC rewrites map operations in the main file alone: a ``map.lookup()`` in a real include stays
    as it is and ends in an instruction the kernel does not know. ``#line`` keeps compiler messages
    pointing at the files people edit.
    """
    seen = seen if seen is not None else set()
    seen.add(name)
    lines = [f'#line 1 "bpf/{name}"']
    for number, line in enumerate((directory / name).read_text().splitlines(), start=1):
        match = _INCLUDE.match(line)
        if match is None:
            lines.append(line)
        elif match[1] not in seen:
            lines += [flatten(directory, match[1], seen), f'#line {number + 1} "bpf/{name}"']
        else:
            lines.append("")
    return "\n".join(lines)


def _import_bcc() -> Any:  # noqa: ANN401 - bcc ships no types
    try:
        import bcc  # noqa: PLC0415
    except ImportError:
        sys.path += [p for p in _DISTRIBUTION_PACKAGES if Path(p, "bcc").is_dir()]
        import bcc  # noqa: PLC0415
    if not hasattr(bcc, "BPF"):
        raise ImportError("the module `bcc` found is not the BPF Compiler Collection")
    return bcc


def _fields(structure: Any) -> list[tuple[str, int, int]]:  # noqa: ANN401
    """(name, offset, size) of each field; a plain integer has one nameless field."""
    if not hasattr(structure, "_fields_"):
        return [("", 0, ctypes.sizeof(structure))]
    return [
        (field[0], getattr(structure, field[0]).offset, getattr(structure, field[0]).size)
        for field in structure._fields_
    ]


def _describe_map(bpf: Any, name: str) -> tuple[dict[str, Any], int]:  # noqa: ANN401
    table = bpf[name]
    if name in RINGS:
        fd = int(table.map_fd)
        return {"name": name, "key": [], "leaf": [], "leaf_size": 0, "max_entries": 0}, fd
    key = getattr(table, "Key", None)
    return {
        "name": name,
        "key": _fields(key) if key is not None else [],
        "leaf": _fields(table.Leaf),
        "leaf_size": ctypes.sizeof(table.Leaf),
        "max_entries": int(table.max_entries),
    }, int(table.map_fd)


def compiled(bcc: Any, directory: Path, seed: int = 0) -> Any:  # noqa: ANN401
    """The sources in *directory* as BCC's object, with nothing loaded yet.

    Args:
        bcc: The module.
        directory: Where eni53.c is.
        seed: What hashes of names begin with, 64 bits.
    """
    os.environ["BCC_KERNEL_SOURCE"] = str(directory / "headers")
    # A ring buffer's size is in pages, which are of 4, 16 or 64 KiB on arm64.
    page = f"-DPAGE_SIZE={os.sysconf('SC_PAGESIZE')}"
    return bcc.BPF(
        text=flatten(directory, "eni53.c"), cflags=[*_FLAGS, page, f"-DQUESTION_SEED={seed}ULL"]
    )


def compile_and_send(channel: socket.socket) -> None:
    """Compile, load, and send one JSON line with all descriptors attached."""
    directory = Path(str(resources.files("eni53.bpf")))
    bcc = _import_bcc()
    seed = secrets.randbits(64)
    bpf = compiled(bcc, directory, seed)
    # The verifier takes a fifth of a second for each of the larger ones, and as a call into the
    # kernel it holds no lock of Python's.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        programs = list(pool.map(lambda name: bpf.load_func(name, bcc.BPF.SCHED_CLS), PROGRAMS))
    for way, name in enumerate(CALLED):
        bpf["of_an_eni"][ctypes.c_int(way)] = ctypes.c_int(programs[PROGRAMS.index(name)].fd)
    names = re.findall(
        r"^BPF_(?:ARRAY|HASH|QUEUE|PROG_ARRAY|(?:F_)?TABLE|RINGBUF_OUTPUT)\("
        r"(?:\"\w+\", [\w ]+, [\w ]+, )?(\w+)",
        (directory / "maps.h").read_text(),
        re.MULTILINE,
    )
    maps = [_describe_map(bpf, name) for name in names]
    head = {
        "programs": PROGRAMS,
        "maps": [description for description, _ in maps],
        "seed": seed,
        "done_s": time.monotonic(),  # the same clock for all processes
    }
    fds = [program.fd for program in programs] + [fd for _, fd in maps]
    socket.send_fds(channel, [json.dumps(head).encode() + b"\n"], fds)


def main() -> int:
    """Run as the child; a failure is one JSON line with ``error``, details go to stderr."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        compile_and_send(channel)
    except Exception as error:  # noqa: BLE001 - the parent turns it into one clear line
        with contextlib.suppress(OSError):
            kind = "bcc" if isinstance(error, ImportError) else "kernel"
            channel.sendall(json.dumps({"error": str(error), "kind": kind}).encode() + b"\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
