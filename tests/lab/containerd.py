"""A containerd of the lab's own, inside the node namespace: for dockerd, and for pods by CRI.

Every path is in the lab's directory. One socket serves both of its namespaces, ``moby`` (dockerd's)
and ``k8s.io`` (CRI's), as on a node that has both.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import cni, image
from .processes import end
from .shell import (
    HERE,
    MARK,
    PYTHON,
    LabError,
    daemon_environment,
    in_netns,
    popen,
    run,
    wait_until,
)

PAUSE = "eni53-lab-pause:1"
# Debian's place for the plugins; others have /opt/cni/bin.
_LOOPBACK = Path("/usr/lib/cni/loopback")
_CRI = "io.containerd.grpc.v1.cri"
_COMMON = """\
version = 2
root = "{d}/root"
state = "{d}/state"
disabled_plugins = [{without_cri}"io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{d}/opt"
"""
# Namespaces under the state directory: /run/netns is the machine's, and read by others.
_WITH_CRI = """\
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{d}/cni/bin"
  conf_dir = "{d}/cni/conf"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
  Root = "{d}/runc"
"""


class Containerd:
    """The daemon.

    Attributes:
        socket: Where it answers, CRI included if started with it.
        cni_leases: Where the CNI plugin finds what a pod may have; see ``cni.lease``.
    """

    def __init__(self, netns: str, directory: Path, lab_id: str) -> None:
        self.directory = directory
        self.socket = directory / "containerd.sock"
        self.cni_leases = directory / "cni/leases"
        self._lab_id = lab_id
        self._prefix = in_netns(netns)
        self._env = daemon_environment(lab_id, directory)
        self._process: subprocess.Popen[str] | None = None

    def start(self, *, cri: bool) -> None:
        """Start it; with *cri* also the images that pods need."""
        self.directory.mkdir(parents=True)
        without = "" if cri else f'"{_CRI}", '
        text = _COMMON.format(d=self.directory, socket=self.socket, without_cri=without)
        if cri:
            text += _WITH_CRI.format(d=self.directory, pause=PAUSE)
            self._write_cni()
        self._config.write_text(text)
        self._run()
        if cri:
            self._import_images()

    @property
    def pid(self) -> int:
        """Of the daemon, while it runs."""
        if self._process is None:
            raise LabError("containerd does not run")
        return self._process.pid

    def start_again(self) -> None:
        """Start it after `stop`, or after its death; what it has started has lived on."""
        self.stop()
        self.socket.unlink(missing_ok=True)
        self._run()

    @property
    def _config(self) -> Path:
        return self.directory / "containerd.toml"

    def _run(self) -> None:
        log = self.directory / "containerd.log"
        argv = [*self._prefix, "containerd", "--config", str(self._config), "--log-level", "warn"]
        self._process = popen(argv, self._env, log)
        wait_until("containerd", self.socket.is_socket, self._process, log)

    def stop(self) -> None:
        """End it. Never raises for what is gone already."""
        if self._process is not None:
            # TERM, so that it unmounts; KILL after the grace leaves mounts for the sweep.
            end([self._process.pid] if self._process.poll() is None else [], grace=10)
            self._process.wait(10)
            self._process = None

    def _write_cni(self) -> None:
        """Our plugin and the loopback plugin, which CRI asks for each pod besides."""
        binaries, conf = self.directory / "cni/bin", self.directory / "cni/conf"
        for path in (binaries, conf, self.cni_leases):
            path.mkdir(parents=True)
        if not _LOOPBACK.exists():
            raise LabError(f"{_LOOPBACK} is missing: install containernetworking-plugins")
        (binaries / "loopback").symlink_to(_LOOPBACK)
        plugin = binaries / cni.TYPE
        plugin.write_text(f'#!/bin/sh\nexec {PYTHON} -I "{HERE}/cni.py"\n')
        plugin.chmod(0o755)
        (conf / "10-lab.conflist").write_text(cni.conflist(self._lab_id, self.cni_leases))

    def _import_images(self) -> None:
        """The pause image carries the lab's mark: CRI gives a sandbox no other environment."""
        tar = self.directory / "image.tar"
        for name, env in ((PAUSE, [f"{MARK}={self._lab_id}"]), (image.NAME, [])):
            image.write(tar, name, env)
            ctr = ["ctr", "-a", str(self.socket), "-n", "k8s.io"]
            run([*ctr, "images", "import", str(tar)], env=self._env)
        tar.unlink()
