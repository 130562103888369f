"""``python -m tests.bench.compiling``: compiles as `eni53.kernel.child` has it done, with a watch.

Run by `loading` in a process of its own, for it holds LLVM until it ends. One line of JSON.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from eni53.kernel import compiler


def main() -> None:
    """Import, compile, verify; say how long each took and what the kernel says of each program."""
    spent: dict[str, tuple[float, float]] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        used, begin = time.process_time(), time.perf_counter()
        yield
        spent[name] = (time.process_time() - used, time.perf_counter() - begin)

    directory = Path(str(resources.files("eni53.bpf")))
    with timed("import BCC"):
        bcc = compiler._import_bcc()
    with timed("compile"):
        bpf = compiler.compiled(bcc, directory)
    programs = {}
    for name in compiler.PROGRAMS:
        with timed(name):
            fd = bpf.load_func(name, bcc.BPF.SCHED_CLS).fd
        said = dict(
            re.findall(r"^(\w+):\s+(\w+)$", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.M)
        )
        # Before Linux 5.16 the kernel does not tell.
        followed = int(said["verified_insns"]) if "verified_insns" in said else None
        programs[name] = (len(bpf.dump_func(name)) // 8, followed)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    print(
        json.dumps({"spent": spent, "programs": programs, "peak_kib": int(peak[1] if peak else 0)})
    )


if __name__ == "__main__":
    main()
