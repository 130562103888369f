"""Makes ext4 images of directories; no mount, no loop device, so no root."""

from __future__ import annotations

import os
from pathlib import Path

from .shell import run

_BLOCK = 4096
_NO_JOURNAL = "^has_journal,^resize_inode,^metadata_csum"  # a disk that lives for one run


def write(tree: Path, image: Path, spare_mib: int = 4) -> None:
    """Make *image* hold what is in *tree*, with *spare_mib* left over."""
    blocks = files = 0
    for place, directories, names in os.walk(tree):
        files += len(directories) + len(names)
        blocks += len(directories)
        for name in names:
            blocks += -(-Path(place, name).lstat().st_size // _BLOCK)
    # An inode takes 256 bytes; directories, bitmaps and extents a few blocks in a hundred.
    inodes = files + 1024
    blocks += blocks // 20 + inodes // 12 + spare_mib * 256
    image.unlink(missing_ok=True)
    options = ["-q", "-F", "-t", "ext4", "-O", _NO_JOURNAL, "-b", str(_BLOCK), "-m", "0"]
    run(["mke2fs", *options, "-N", str(inodes), "-d", tree, image, str(blocks)])
