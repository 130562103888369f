"""A dockerd of the lab's own, inside the node namespace, on the lab's containerd.

It is started here with every path in the lab's directory. Left to itself, dockerd would use
the machine's containerd if there is one.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import image, vpc
from .processes import end
from .shell import LabError, daemon_environment, in_netns, popen, run, wait_until


class Docker:
    """The daemon and its client.

    Args:
        containerd_socket: Of the containerd under it; Docker's namespace there is ``moby``.

    Attributes:
        socket: dockerd's socket, for DOCKER_HOST or the agent.
    """

    def __init__(
        self, netns: str, directory: Path, lab_id: str, *, containerd_socket: Path
    ) -> None:
        self.directory = directory
        self.socket = directory / "docker.sock"
        self._containerd_socket = containerd_socket
        self._prefix = in_netns(netns)
        self._daemon_env = daemon_environment(lab_id, directory)
        # Without a DOCKER_CONFIG of its own, the client gives the caller's proxies to containers.
        self._env = self._daemon_env | {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(directory / "client"),
        }
        self._process: subprocess.Popen[str] | None = None

    def start(self, *, ipv6: bool) -> None:
        """Start it and load the lab's image.

        Args:
            ipv6: Containers on the default bridge get an address that the VPC routes back.
        """
        (self.directory / "client").mkdir(parents=True)
        log = self.directory / "dockerd.log"
        argv = [*self._prefix, *self._dockerd(ipv6=ipv6)]
        self._process = popen(argv, self._daemon_env, log)
        wait_until("dockerd", self._pings, self._process, log, deadline=40)
        tar = self.directory / "image.tar"
        image.write(tar)
        self.run("load", "-q", "-i", str(tar))

    def _dockerd(self, *, ipv6: bool) -> list[str]:
        config = self.directory / "daemon.json"
        config.write_text("{}")
        argv = ["dockerd", "--config-file", str(config), "-H", f"unix://{self.socket}"]
        argv += ["--containerd", str(self._containerd_socket), "--log-level", "warn"]
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
        """Remove every container, then end it. Never raises for what is gone already."""
        self._remove_containers()
        if self._process is not None:
            # TERM, so that it unmounts; KILL after the grace leaves mounts for the sweep.
            end([self._process.pid] if self._process.poll() is None else [], grace=10)
            self._process.wait(10)
            self._process = None

    def _remove_containers(self) -> None:
        if not self.socket.exists():
            return
        try:
            listed = self.call("ps", "-aq", check=False, timeout=10).stdout.split()
            if listed:
                self.call("rm", "-f", *listed, check=False, timeout=30)
        except LabError:
            return  # A daemon that hangs: its containers are ended by their mark.

    def _pings(self) -> bool:
        return self.call("version", check=False, timeout=20).returncode == 0
