"""Runs the installed `eni53` command in the lab's node, as a user would."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from .lab import Lab
from .shell import LabError

ENI53 = str(Path(sys.executable).with_name("eni53"))
_FETCH = (
    "import sys, urllib.request as u;"
    " sys.stdout.write(u.urlopen(sys.argv[1], timeout=5).read().decode())"
)
_START_S = 30.0

Labels = dict[str, str]


class Agent:
    """An agent in the lab, from ``with`` to its end.

    Args:
        lab: Where it runs.
        args: Flags besides the ones that point at the lab.
        env: Further environment.
        docker: Point it at the lab's dockerd.
        containerd: Point it at the lab's containerd, which is dockerd's and the pods' alike.
        wrap: Begins every command line: what changes the world it runs in, then executes it.
    """

    def __init__(
        self,
        lab: Lab,
        *args: str,
        env: Mapping[str, str] | None = None,
        docker: bool = True,
        containerd: bool = True,
        wrap: Sequence[str] = (),
    ) -> None:
        self.lab = lab
        self.runtime_dir = lab.directory / "eni53"
        self.log = lab.directory / f"agent-{time.monotonic_ns()}.log"
        nowhere = lab.directory / "no-runtime.sock"
        self._flags = ["--runtime-dir", str(self.runtime_dir)]
        self._flags += ["--docker-socket", str(lab.docker_socket if docker else nowhere)]
        # Always: the usual place is that of the machine's own containerd.
        self._flags += [
            "--containerd-socket",
            str(lab.containerd_socket if containerd else nowhere),
        ]
        self._args = args
        self._env = env or {}
        self._wrap = wrap
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start, and wait until it is ready."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it as systemd would."""
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def start(self) -> None:
        """Start, and wait until it has announced itself."""
        argv = [*self._wrap, ENI53, "agent", *self._flags, *self._args]
        self.process = self.lab.node_popen(argv, env=self._env, log=self.log)
        deadline = time.monotonic() + _START_S
        while not self._announced():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the agent did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        """SIGKILL: it can clean nothing."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def left(self) -> list[str]:
        """What is in its runtime directory, but for recordings, which are meant to stay."""
        return [path.name for path in self.runtime_dir.iterdir() if path.name != "recordings"]

    def _announced(self) -> bool:
        try:
            said = json.loads((self.runtime_dir / "agent.json").read_text())
        except (OSError, ValueError):
            return False
        return self.process is not None and said["pid"] == self.process.pid

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run another `eni53` command beside it, with the same flags."""
        command, *rest = argv
        full = [*self._wrap, ENI53, command, *self._flags, *rest]
        return self.lab.node_exec(full, env=self._env, check=check, timeout=timeout)

    def get(self, path: str) -> str:
        """What its HTTP door answers."""
        url = json.loads((self.runtime_dir / "agent.json").read_text())["url"]
        return self.lab.node_exec([sys.executable, "-c", _FETCH, url + path]).stdout

    def snapshot(self) -> dict[str, Any]:
        """Its newest snapshot, as JSON."""
        snapshot: dict[str, Any] = json.loads(self.get("/api/v1/snapshot"))
        return snapshot

    def settled(self, packets: int | None = None, timeout: float = 15) -> dict[str, Any]:
        """A snapshot in which nothing waits for its name, with *packets* if that is given."""
        deadline = time.monotonic() + timeout
        while True:
            snapshot = self.snapshot()
            rows = [row for eni in snapshot["enis"] for row in eni["workloads"]]
            pending = any(row["workload"] == "pending" for row in rows)
            count = sum(eni["packets"] for eni in snapshot["enis"])
            if not pending and (packets is None or count >= packets):
                return snapshot
            if time.monotonic() > deadline:
                return snapshot
            time.sleep(0.2)

    def metrics(self) -> Iterator[tuple[str, Labels, float]]:
        """Its samples: name, labels, value."""
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def total(self, name: str, /, **labels: str) -> float:
        """The sum of the samples of that name with those labels."""
        return sum(
            value
            for found, its, value in self.metrics()
            if found == name and labels.items() <= its.items()
        )


def rows(snapshot: dict[str, Any], eni: int = 0) -> dict[tuple[str, str, str, str], int]:
    """Packets by (kind, namespace, workload, container) of one ENI."""
    return {
        (row["kind"], row["namespace"], row["workload"], row["container"]): row["packets"]
        for row in snapshot["enis"][eni]["workloads"]
    }
