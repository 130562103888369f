"""How much work the verifier had with each program; kernels give up at a million instructions.

The log is the only place where every kernel says so (the program's own info does from 5.16 on). The
agent's compiler runs as it is: only the loading of each program is repeated with a log.
"""

from __future__ import annotations

import ctypes
import re
import socket
from typing import Any

from eni53.kernel import compiler

_STATISTICS = 4  # BPF_LOG_STATS: the last lines of the log and nothing else
_LOG_BYTES = 1 << 20
_PROCESSED = re.compile(rb"processed (\d+) insns")


def count() -> dict[str, int]:
    """Instructions that this kernel's verifier processed, by program."""
    bcc = compiler._import_bcc()
    found: dict[str, int] = {}

    class Telling(bcc.BPF):  # type: ignore[misc, name-defined]
        """BCC, with a second look at each program that is loaded."""

        def load_func(self, name: Any, kind: int, *others: Any) -> Any:
            found[str(name)] = _ask(bcc.lib, self.module, str(name).encode(), kind)
            return super().load_func(name, kind, *others)

    plain, bcc.BPF = bcc.BPF, Telling
    ours, theirs = socket.socketpair()
    try:
        with ours, theirs:
            compiler.compile_and_send(theirs)
    finally:
        bcc.BPF = plain
    return found


def _ask(library: Any, module: int, name: bytes, kind: int) -> int:
    log = ctypes.create_string_buffer(_LOG_BYTES)
    program = (library.bpf_function_start(module, name), library.bpf_function_size(module, name))
    origin = (library.bpf_module_license(module), library.bpf_module_kern_version(module))
    library.bcc_func_load(
        module, kind, name, *program, *origin, _STATISTICS, log, _LOG_BYTES, None, -1
    )
    processed = _PROCESSED.search(log.value)
    assert processed, f"{name.decode()} was refused: {log.value[-2000:].decode(errors='replace')}"
    return int(processed[1])
