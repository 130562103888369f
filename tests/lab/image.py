"""Builds the lab's one container image without a registry: busybox in a docker-archive."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path

from .shell import LabError

NAME = "eni53-lab:1"
BUSYBOX = Path("/bin/busybox")
# Mount points are in the image, so that a read-only root works as well.
DIRECTORIES = ("bin", "etc", "lab", "lib", "lib64", "proc", "share", "sys", "tmp", "usr", "var")
APPLETS = (
    "cat", "env", "false", "grep", "id", "ip", "kill", "ls", "mkdir", "netstat", "nslookup",
    "ping", "ps", "rm", "sh", "sleep", "touch", "true", "wget",
)  # fmt: skip


def archive(busybox: bytes, machine: str, name: str = NAME, env: Sequence[str] = ()) -> bytes:
    """The tar that ``docker load`` and ``ctr images import`` take.

    *env* is what every container of it has in its environment, besides the PATH. The same input
    gives the same bytes, hence the same image id.
    """
    layer = _layer(busybox)
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": ["PATH=/bin:/usr/local/bin:/usr/bin:/usr/sbin", *env],
                "Cmd": ["/bin/sleep", "86400"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "lab"}],
        },
        sort_keys=True,
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    layer_name = f"{layer_digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, config_name, config)
        _add(tar, layer_name, layer)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return out.getvalue()


def write(path: Path, name: str = NAME, env: Sequence[str] = ()) -> None:
    """Write the archive for this machine to *path*; see ``archive``."""
    try:
        busybox = BUSYBOX.read_bytes()
    except FileNotFoundError as error:
        raise LabError(f"{BUSYBOX} is missing: install busybox-static") from error
    path.write_bytes(archive(busybox, platform.machine(), name, env))


def _layer(busybox: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, "bin/busybox", busybox, 0o755)
        for name in APPLETS:
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\n")
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
