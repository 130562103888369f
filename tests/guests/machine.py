"""Boots one guest, waits for its end within a limit, and brings back what it said."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .kernels import Kernel
from .shell import GuestError

_MEMORY_MIB = 768
_PROCESSORS = 1  # a second one is not worth the emulator's effort to keep two in step
_LAST_LINES = 15

# No guest of these needs protection from itself, and retpolines are slow to emulate. Not
# `mitigations=off`: by that word kernels from 6.7 on also relax the verifier, which is under test.
_KERNEL_OPTIONS = "console=ttyS0 quiet panic=-1 nokaslr nopti spectre_v2=off no_timer_check"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a guest's command.

    Attributes:
        status: Its exit code.
        output: What it wrote.
        reports: The JSON objects that it wrote to /dev/ttyS2, in order.
        seconds: From power on to power off.
    """

    status: int
    output: str
    reports: tuple[dict[str, Any], ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Disks:
    """What a guest boots from, besides the kernel: images, all but the last read-only."""

    initramfs: Path
    root: Path
    checkout: Path


def boot(
    kernel: Kernel,
    disks: Disks,
    scratch: Path,
    limit_s: float,
    tell: Callable[[str], None] | None = None,
) -> Result:
    """Run a guest to its end; it is gone when this returns or raises.

    Args:
        kernel: What to boot.
        disks: Its disks.
        scratch: A directory for what the guest says.
        limit_s: After this many seconds it is killed.
        tell: Given the command's output as it comes.

    Raises:
        GuestError: It did not come to an end of its own, with the last lines it wrote.
    """
    ports = {name: scratch / name for name in ("console", "output", "report")}
    for port in ports.values():
        port.write_bytes(b"")
    started = time.monotonic()
    emulator = subprocess.Popen(
        _command(kernel, disks, ports),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(scratch / "emulator").open("wb"),
    )
    told = 0
    try:
        while emulator.poll() is None:
            if time.monotonic() - started > limit_s:
                raise GuestError(f"no end after {limit_s:g} s{_last_words(scratch)}")
            time.sleep(0.1)
            told = _pass_on(ports["output"], told, tell)
    finally:
        emulator.kill()
        emulator.wait()
    _pass_on(ports["output"], told, tell)
    *said, last = ports["report"].read_text(errors="replace").splitlines() or [""]
    if not last.startswith("exit "):
        raise GuestError(f"it went off before the command's end{_last_words(scratch)}")
    return Result(
        status=int(last.split()[1]),
        output=ports["output"].read_text(errors="replace"),
        reports=tuple(json.loads(line) for line in said),
        seconds=time.monotonic() - started,
    )


def _command(kernel: Kernel, disks: Disks, ports: dict[str, Path]) -> list[str]:
    # The death signal takes the emulator along should we be killed.
    words = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults"]
    words += ["-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc"]
    # Never kvm: where /dev/kvm opens and does not work, qemu would take it and hang. No five-level
    # page tables: one more look-up for every miss.
    words += ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"]
    words += ["-smp", str(_PROCESSORS), "-m", str(_MEMORY_MIB)]
    words += ["-kernel", str(kernel.image), "-initrd", str(disks.initramfs)]
    words += ["-append", _KERNEL_OPTIONS]
    for image in (disks.root, kernel.modules):
        words += ["-drive", f"file={image},if=virtio,format=raw,readonly=on"]
    words += ["-drive", f"file={disks.checkout},if=virtio,format=raw,cache=unsafe"]
    for name, path in ports.items():
        words += ["-chardev", f"file,id={name},path={path}", "-serial", f"chardev:{name}"]
    return words


def _pass_on(port: Path, told: int, tell: Callable[[str], None] | None) -> int:
    if tell is None:
        return told
    with port.open("rb") as file:
        file.seek(told)
        new = file.read()
    if new:
        tell(new.decode(errors="replace"))
    return told + len(new)


def _last_words(scratch: Path) -> str:
    """The end of everything that it wrote anywhere, for the message."""
    parts = []
    for name in ("emulator", "console", "output", "report"):
        lines = (scratch / name).read_text(errors="replace").splitlines()[-_LAST_LINES:]
        parts += [f"  {name}: {line}" for line in lines if line.strip()]
    return "".join("\n" + part for part in parts) or ": it said nothing"
