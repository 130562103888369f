"""A containerd and a dockerd of the lab's own, inside the node namespace.

Both are started here with every path in the lab's directory. Left to itself, dockerd would use
the machine's containerd if there is one.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import image, vpc
from .processes import end
from .shell import LabError, daemon_environment, in_netns, popen, run, wait_until

_CONTAINERD = """\
version = 2
root = "{d}/containerd"
state = "{d}/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs",
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


class Docker:
    """The pair of daemons and their client.

    Attributes:
        socket: dockerd's socket, for DOCKER_HOST or the agent.
        containerd_socket: Of the containerd under it; Docker's namespace there is ``moby``.
    """

    def __init__(self, netns: str, directory: Path, lab_id: str) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self.containerd_socket = directory / "containerd.sock"
        self._prefix = in_netns(netns)
        self._daemon_env = daemon_environment(lab_id, directory)
        # Without a DOCKER_CONFIG of its own, the client gives the caller's proxies to containers.
        self._env = self._daemon_env | {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(directory / "client"),
        }
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *, ipv6: bool) -> None:
        """Start both and load the lab's image.

        Args:
            ipv6: Containers on the default bridge get an address that the VPC routes back.
        """
        (self.directory / "client").mkdir(parents=True)
        config, log = self.directory / "containerd.toml", self.directory / "containerd.log"
        config.write_text(_CONTAINERD.format(d=self.directory, socket=self.containerd_socket))
        argv = [*self._prefix, "containerd", "--config", str(config), "--log-level", "warn"]
        containerd = self._start(argv, log)
        wait_until("containerd", self.containerd_socket.is_socket, containerd, log)
        log = self.directory / "dockerd.log"
        dockerd = self._start([*self._prefix, *self._dockerd(ipv6=ipv6)], log)
        wait_until("dockerd", self._pings, dockerd, log, deadline=40)
        tar = self.directory / "image.tar"
        image.write(tar)
        self.run("load", "-q", "-i", str(tar))

    def _dockerd(self, *, ipv6: bool) -> list[str]:
        config = self.directory / "daemon.json"
        config.write_text("{}")
        argv = ["dockerd", "--config-file", str(config), "-H", f"unix://{self.socket}"]
        argv += ["--containerd", str(self.containerd_socket), "--log-level", "warn"]
        argv += ["--data-root", str(self.directory / "data")]
        argv += ["--exec-root", str(self.directory / "exec")]
        argv += ["-p", str(self.directory / "dockerd.pid"), "--bip", vpc.DOCKER_GATEWAY]
        argv += ["--iptables=true", "--userland-proxy=false"]
        argv += ["--exec-opt", "native.cgroupdriver=cgroupfs"]
        return argv + (["--ipv6", "--fixed-cidr-v6", vpc.DOCKER6] if ipv6 else [])

    def run(self, *args: str, timeout: float = 60, stdin: str | None = None) -> str:
        """Run the docker client on the lab's daemon; its output without the last newline."""
        done = run(["docker", *args], env=self._env, timeout=timeout, stdin=stdin)
        return done.stdout.rstrip("\n")

    def call(
        self, *args: str, check: bool, timeout: float, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """As run, but with the whole result; for commands that may fail."""
        argv = ["docker", *args]
        return run(argv, env=self._env, timeout=timeout, stdin=stdin, check=check)

    def popen(self, *args: str) -> subprocess.Popen[str]:
        """Start the docker client and leave it running."""
        return popen(["docker", *args], self._env)

    def stop(self) -> None:
        """Remove every container, then end both daemons. Never raises for what is gone already."""
        self._remove_containers()
        # TERM, so that dockerd unmounts; KILL after the grace leaves mounts for the sweep.
        for process in reversed(self._processes):
            end([process.pid] if process.poll() is None else [], grace=10)
            process.wait(10)
        self._processes.clear()

    def _remove_containers(self) -> None:
        if not self.socket.exists():
            return
        try:
            listed = self.call("ps", "-aq", check=False, timeout=10).stdout.split()
            if listed:
                self.call("rm", "-f", *listed, check=False, timeout=30)
        except LabError:
            return  # A daemon that hangs: its containers are ended by their mark.

    def _start(self, argv: list[str], log: Path) -> subprocess.Popen[str]:
        process = popen(argv, self._daemon_env, log)
        self._processes.append(process)
        return process

    def _pings(self) -> bool:
        return self.call("version", check=False, timeout=20).returncode == 0
