"""Starts the compiler child, takes its descriptors, and says in one line what went wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ..errors import NeedError
from . import layout
from .child import CompilerChild


@dataclass(frozen=True, slots=True)
class Loaded:
    """Descriptors of the loaded programs and maps; closing them unloads what is not attached.

    Attributes:
        programs: Descriptor of each program, by its name in bpf/eni53.c.
        maps: Descriptor of each map, by its name in bpf/maps.h.
        max_entries: Room of each map.
        load_s: Seconds that compiling and loading took.
        seed: What the kernel's hashes of names begin with.
    """

    programs: Mapping[str, int]
    maps: Mapping[str, int]
    max_entries: Mapping[str, int]
    load_s: float
    seed: int

    def close(self) -> None:
        """Close every descriptor."""
        for fd in (*self.programs.values(), *self.maps.values()):
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def load(child: CompilerChild | None = None) -> Loaded:
    """Compile and load the programs in a child process; it is gone when this returns.

    Args:
        child: One that is at work already; None starts one.

    Raises:
        NeedError: BCC is missing, a capability is, or the kernel refused a program.
    """
    with child or CompilerChild() as compiling:
        head, fds, said, status = compiling.result()
    if "error" in head or not head:
        raise _explain(head, said, status)
    names = list(head["programs"])
    described = list(head["maps"])
    loaded = Loaded(
        programs=dict(zip(names, fds, strict=False)),
        maps={d["name"]: fd for d, fd in zip(described, fds[len(names) :], strict=True)},
        max_entries={d["name"]: d["max_entries"] for d in described},
        load_s=head["done_s"] - compiling.started_s,
        seed=head["seed"],
    )
    try:
        layout.verify(described)
    except NeedError:
        loaded.close()
        raise
    return loaded


def _explain(head: dict[str, Any], said: str, code: int) -> NeedError:
    error = str(head.get("error", f"the compiler process ended with status {code}"))
    if head.get("kind") == "bcc":
        return NeedError(
            f"BCC cannot be imported ({error}): install the distribution's python3-bpfcc"
            " (PyPI's `bcc` is another project)"
        )
    # EPERM without CAP_BPF; EACCES when the verifier may not follow offsets, without CAP_PERFMON.
    if any(word in error + said for word in ("Operation not permitted", "Permission denied")):
        return NeedError(
            "the kernel does not let this process load BPF programs: run as root, or with"
            " CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (before Linux 5.8: CAP_SYS_ADMIN); a task's"
            " own ENI can be counted without them, by a sidecar: ENI53_ATTACH=packet"
        )
    details = [line.strip() for line in said.splitlines() if "error" in line or "invalid" in line]
    hint = f": {details[0]}" if details else ""
    return NeedError(f"the BPF programs could not be loaded: {error}{hint}")
