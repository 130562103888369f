"""The first root of a guest, unpacked by the kernel: busybox, four modules and two scripts.

Debian's kernels have their disk driver as a module, so there must be something before the disk.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path

from .kernels import Kernel
from .shell import GuestError

_NEEDED = ("virtio_pci", "virtio_blk", "ext4")
_INIT = Path(__file__).with_name("init.sh")


@dataclass(slots=True)
class _Archive:
    """A cpio archive of the kind the kernel unpacks ("newc")."""

    data: bytes = b""
    inode: int = 0

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        self.inode += 1
        numbers = (self.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        self.data += b"070701" + b"".join(b"%08X" % n for n in numbers)
        self._pad(name.encode() + b"\0")
        self._pad(content)

    def _pad(self, more: bytes) -> None:
        self.data += more
        self.data += bytes(-len(self.data) % 4)


def modules(kernel: Kernel) -> list[Path]:
    """The modules that lead to the disks, each after what it depends on."""
    place = kernel.tree / "lib/modules" / kernel.release
    needs: dict[str, list[Path]] = {}
    for line in (place / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        # modules.dep lists what must be loaded last first.
        paths = [place / word for word in reversed([name, *rest.split()])]
        needs[Path(name).name.split(".")[0].replace("-", "_")] = paths
    ordered: dict[Path, None] = {}
    for name in _NEEDED:  # one that is built in is in nobody's way
        ordered.update(dict.fromkeys(needs.get(name, [])))
    return list(ordered)


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def write(kernel: Kernel, command: str, settings: dict[str, str], image: Path) -> None:
    """Make *image* boot *kernel* into init.sh, which runs *command* on the disks' root.

    Args:
        kernel: Whose modules to take.
        command: A shell script.
        settings: Variables for init.sh and for the command.
        image: Where to write it.
    """
    busybox = shutil.which("busybox", path="/bin:/usr/bin:/sbin:/usr/sbin")
    if busybox is None:
        raise GuestError("busybox is not installed: run deploy/setup-guests.sh")
    archive = _Archive()
    for name in ("bin", "dev", "new", "guest", "modules"):
        archive.add(name, 0o040755)
    archive.add("bin/busybox", 0o100755, Path(busybox).read_bytes())
    archive.add("init", 0o100755, _INIT.read_bytes())
    lines = [f"export {name}='{value}'" for name, value in settings.items()]
    archive.add("guest/settings", 0o100644, "\n".join([*lines, ""]).encode())
    archive.add("guest/command", 0o100755, command.encode())
    for number, path in enumerate(modules(kernel)):
        archive.add(f"modules/{number:02d}-{path.name.split('.')[0]}.ko", 0o100644, _unpacked(path))
    archive.add("TRAILER!!!", 0)
    image.write_bytes(gzip.compress(archive.data, 1, mtime=0))
