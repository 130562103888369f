"""Brings a lab up and takes it down, whatever happens in between."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from . import load, network, nft, remains, services, stopping, vpccni
from .containerd import Containerd
from .dockerd import Docker
from .ecs import Introspection
from .metadata import Metadata
from .processes import end, end_marked
from .vpc import Eni, TaskEni

if TYPE_CHECKING:
    from .pods import Kubelet


class Lifecycle:
    """The part of Lab that starts and stops. See Lab for the arguments."""

    def __init__(
        self,
        lab_id: str,
        enis: list[Eni],
        *,
        wants: dict[str, bool],
        imds_modes: Sequence[str] = (),
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
        self.task_enis: list[TaskEni] = []
        self._imds = Metadata(self.directory / "imds.json", enis, imds_modes)
        self.introspection = Introspection(self.directory / "introspection.json", enis)
        self._containerd = Containerd(self.node_ns, self.directory / "containerd", lab_id)
        self._docker = Docker(
            self.node_ns,
            self.directory / "docker",
            lab_id,
            containerd_socket=self._containerd.socket,
        )
        self._kubelet: Kubelet | None = None
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
            services.start_imds(*args, self._imds, started=self._services.append)
            begin = self._step("metadata service", begin)
        if self._wants["docker"] or self._wants["pods"]:
            self._containerd.start(cri=self._wants["pods"])
            begin = self._step("containerd", begin)
        if self._wants["pods"]:
            self._start_kubelet()
            begin = self._step("kubelet", begin)
        if self._wants["docker"]:
            self._docker.start(ipv6=self._docker_ipv6)
            self._step("docker", begin)

    def _start_kubelet(self) -> None:
        # gRPC and protobuf are slow to import and start threads: only labs with pods have them.
        from .pods import Kubelet  # noqa: PLC0415

        vpccni.set_up(self.vpc_ns, self.node_ns, self.enis)
        self._kubelet = Kubelet(
            self.id,
            self.directory,
            self.vpc_ns,
            self._containerd,
            self.introspection,
        )

    def set_limit(self, limit_pps: int | None) -> None:
        """Load the limiter anew, for every ENI. The counters start at 0 again."""
        self._limit_pps, resolver = limit_pps, self._wants["resolver"]
        enis: list[Eni | TaskEni] = [*self.enis, *self.task_enis]
        network.load_rules(self.vpc_ns, enis, limit_pps=limit_pps, resolver=resolver)

    def set_imds(self, *modes: str, uses: int | None = 1, seconds: float | None = None) -> None:
        """Make the metadata service go on in these *modes*, all at once; none is a healthy one.

        ``expired`` (401 for a token used *uses* times or older than *seconds*), ``503``, ``silent``
        (takes the request, never answers), ``no-token`` (the same for token requests alone),
        ``ipv6-only`` (the last ENI of the node has no IPv4), ``two-cidrs``, ``no-network-card``.
        """
        self._imds.set(modes, uses=uses, seconds=seconds)

    def start_introspection(self) -> None:
        """Serve what the ECS agent (127.0.0.1:51678) and the CNI (:61679) tell on a node."""
        self.introspection.write()
        args = (self.node_ns, self.directory, self.id)
        services.start_introspection(*args, started=self._services.append)

    def join_eni(self, eni: TaskEni, *, in_imds: bool) -> None:
        """Count and limit *eni*, whose pair is there but down; the IMDS lists it if it should."""
        network.add_rules(self.vpc_ns, eni, limit_pps=self._limit_pps)
        self.task_enis.append(eni)
        if in_imds:
            self.list_eni(eni)

    def list_eni(self, eni: TaskEni) -> None:
        """Let the metadata service list *eni*, if it does not."""
        self._imds.add(eni)

    def part_eni(self, eni: TaskEni) -> None:
        """Forget *eni*; one that never joined is fine. Its counters stay, until set_limit."""
        self.task_enis = [known for known in self.task_enis if known != eni]
        network.drop_chain(self.vpc_ns, eni)
        self._imds.remove(eni)

    def counters(self) -> dict[str, int]:
        """Packets that arrived in the vpc namespace, by name: "ens5_ip_udp_resolver", ...

        Counted before the limiter; "ens5_drops" is what the limiter took.
        """
        return nft.parse_counters(network.list_counters(self.vpc_ns))

    @property
    def containerd(self) -> Containerd:
        """The daemon itself, to stop it, hold it (by its ``pid``) and start it again."""
        return self._containerd

    @property
    def docker_socket(self) -> Path:
        """The socket of dockerd, for ``--docker-socket``."""
        return self._docker.socket

    @property
    def containerd_socket(self) -> Path:
        """The socket of containerd, dockerd's and the pods', for ``--containerd-socket``."""
        return self._containerd.socket

    def close(self) -> None:
        """Take the lab down and leave nothing. Signals wait until it is done; twice is fine.

        Pipes of processes from node_popen are closed too: read them before.
        """
        with stopping.held_back():
            if self._owner == os.getpid():
                begin = time.monotonic()
                self._end(self._started, grace=3)
                if self._kubelet is not None:
                    self._kubelet.close()
                    self._kubelet = None
                self._docker.stop()
                self._containerd.stop()
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
