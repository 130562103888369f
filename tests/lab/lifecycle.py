"""Brings a lab up and takes it down, whatever happens in between."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from . import load, network, nft, remains, services, stopping
from .dockerd import Docker
from .processes import end, end_marked
from .vpc import Eni


class Lifecycle:
    """The part of Lab that starts and stops. See Lab for the arguments."""

    def __init__(
        self,
        lab_id: str,
        enis: list[Eni],
        *,
        wants: dict[str, bool],
        docker_ipv6: bool,
        limit_pps: int | None,
        progress: Callable[[str], None] | None,
    ) -> None:
        self.id = lab_id
        self.enis = enis
        self.directory = remains.BASE / lab_id
        self.vpc_ns = remains.prefix(lab_id) + "vpc"
        self.node_ns = remains.prefix(lab_id) + "node"
        self._wants = wants
        self._docker_ipv6 = docker_ipv6
        self._limit_pps = limit_pps
        self._progress = progress or (lambda _: None)
        self._docker = Docker(self.node_ns, self.directory / "docker", lab_id)
        self._services: list[subprocess.Popen[str]] = []
        self._started: list[subprocess.Popen[str]] = []
        self._signals: list[signal.Signals] = []
        self._owner = 0

    def __enter__(self) -> Self:
        """Bring the lab up; a failure takes down what was there already."""
        self._signals = stopping.catch()
        # For an interrupt that falls between here and the with block.
        atexit.register(self.close)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the lab down."""
        self.close()

    def _start(self) -> None:
        begin = time.monotonic()
        with remains.locked():
            for dead in remains.sweep():
                self._progress(f"swept what lab {dead} had left behind")
            with stopping.deferred():
                remains.claim(self.id)
                self._owner = os.getpid()
        network.build(self.vpc_ns, self.node_ns, self.enis)
        self.set_limit(self._limit_pps)
        (self.directory / "share").mkdir()
        load.write_queries(self.directory / "share/queries.txt")
        begin = self._step("network", begin)
        if self._wants["resolver"]:
            args = (self.vpc_ns, self.directory, self.id)
            services.start_resolver(*args, started=self._services.append)
            begin = self._step("resolver", begin)
        if self._wants["imds"]:
            args = (self.vpc_ns, self.directory, self.id)
            services.start_imds(*args, self.enis, started=self._services.append)
            begin = self._step("metadata service", begin)
        if self._wants["docker"]:
            self._docker.start(ipv6=self._docker_ipv6)
            self._step("docker", begin)

    def set_limit(self, limit_pps: int | None) -> None:
        """Load the limiter anew, for every ENI. The counters start at 0 again."""
        resolver = self._wants["resolver"]
        network.load_rules(self.vpc_ns, self.enis, limit_pps=limit_pps, resolver=resolver)

    def counters(self) -> dict[str, int]:
        """Packets that arrived in the vpc namespace, by name: "ens5_ip_udp_resolver", ...

        Counted before the limiter; "ens5_drops" is what the limiter took.
        """
        return nft.parse_counters(network.list_counters(self.vpc_ns))

    @property
    def docker_socket(self) -> Path:
        """The socket of dockerd, for ``--docker-socket``."""
        return self._docker.socket

    @property
    def containerd_socket(self) -> Path:
        """The socket of dockerd's containerd, for ``--containerd-socket``."""
        return self._docker.containerd_socket

    def close(self) -> None:
        """Take the lab down and leave nothing. Signals wait until it is done; twice is fine.

        Pipes of processes from node_popen are closed too: read them before.
        """
        with stopping.held_back():
            if self._owner == os.getpid():
                begin = time.monotonic()
                self._end(self._started, grace=3)
                self._docker.stop()
                self._end(self._services, grace=2)
                end_marked(self.id)
                with remains.locked():
                    remains.clear(self.id)
                self._owner = 0
                self._progress(f"taken down in {time.monotonic() - begin:.1f} s")
        atexit.unregister(self.close)
        stopping.release(self._signals)

    @staticmethod
    def _end(processes: list[subprocess.Popen[str]], *, grace: float) -> None:
        end([process.pid for process in processes if process.poll() is None], grace=grace)
        for process in processes:
            process.wait(10)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        processes.clear()

    def _step(self, what: str, begin: float) -> float:
        now = time.monotonic()
        self._progress(f"{what}: up in {now - begin:.1f} s")
        return now
