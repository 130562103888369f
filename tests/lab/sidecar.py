"""eni53 as a container of a task, with no more rights than it is given.

The lab's image is busybox; the machine's python and this checkout are mounted into it, read-only,
as an image would have them. Everything else is Docker's: namespaces, capabilities, seccomp.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from . import task_metadata, vpc
from .awsvpc import AwsvpcTask
from .containers import Container
from .lab import Lab
from .shell import LabError

ROOT = Path(__file__).resolve().parents[2]
ENI53 = str(Path(sys.executable).with_name("eni53"))
ONLY_NET_RAW = ("--cap-drop=ALL", "--cap-add=NET_RAW", "--security-opt=no-new-privileges",
                "--read-only")  # fmt: skip
NOTHING = ("--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only")


def as_deployed(definition: Mapping[str, Any]) -> tuple[str, ...]:
    """What ``docker run`` is told of a container of a task definition, as far as rights go."""
    drop = definition["linuxParameters"]["capabilities"]["drop"]
    return (
        *(f"--cap-drop={name}" for name in drop),
        f"--user={definition['user']}",
        f"--read-only={json.dumps(definition['readonlyRootFilesystem'])}",
        f"--memory={definition['memory']}m",
        *(f"--env={v['name']}={v['value']}" for v in definition["environment"]),
    )


_URL = "http://127.0.0.1:9153"
_FETCH = (
    "import sys, urllib.request as u;"
    " sys.stdout.write(u.urlopen(sys.argv[1], timeout=5).read().decode())"
)
_START_S = 30.0


class Metadata:
    """The task metadata endpoint of the lab's node, from ``with`` to its end."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._directory = lab.directory / f"tmds-{secrets.token_hex(3)}"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start it; a task with a way to 169.254.170.2 must be there."""
        self._directory.mkdir()
        argv = [sys.executable, "-m", "tests.lab.task_metadata", str(self._directory)]
        self._process = self._lab.node_popen(argv)
        deadline = time.monotonic() + _START_S
        while not (self._directory / "ready").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LabError("the task metadata service did not start")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        assert self._process is not None
        self._process.terminate()
        self._process.communicate(timeout=10)

    def tell(self, task: AwsvpcTask, said: object = None, mode: str = "awsvpc") -> str:
        """Let it say *said* of a task, by default what is so; its URL."""
        if said is None:
            said = task_metadata.task(
                task.task_id, task.cluster, task.family, task.revision, task.eni, mode
            )
        file = self._directory / f"{task.task_id}.json"
        file.with_suffix(".new").write_text(json.dumps(said))
        file.with_suffix(".new").rename(file)
        return f"http://{vpc.ECS_CREDENTIALS}/v4/{task.task_id}"


class Sidecar:
    """An agent in a container of a task, from ``with`` to its end.

    Args:
        task: Whose network namespace it joins.
        flags: For ``docker run``: what it may, above all.
        env: Its environment.
        command: What it runs.
    """

    def __init__(
        self,
        lab: Lab,
        task: AwsvpcTask,
        *flags: str,
        env: Mapping[str, str] | None = None,
        command: tuple[str, ...] = ("agent",),
    ) -> None:
        self._lab, self._task = lab, task
        self._flags, self._env, self._command = flags, env or {}, command
        self._container: Container | None = None

    def __enter__(self) -> Self:
        """Start it, and wait until it is ready."""
        self.start()
        deadline = time.monotonic() + _START_S
        while not self._ready():
            if time.monotonic() > deadline or not self.running():
                raise LabError(f"the sidecar did not start:\n{self.log()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        """End it, at once if it has not ended by then."""
        if self._container is not None:
            self._container.remove()

    def start(self) -> None:
        """Start it."""
        extra = ["-v", f"{ROOT}:{ROOT}:ro", "--tmpfs", "/run/eni53:mode=0755", "--tmpfs", "/tmp"]  # noqa: S108
        for key, value in self._env.items():
            extra += ["-e", f"{key}={value}"]
        self._container = self._lab.run_container(
            f"eni53-{secrets.token_hex(4)}",
            network=f"container:{self._task.pause.id}",
            extra=[*extra, *self._flags],
            command=[ENI53, *self._command],
        )

    @property
    def pid(self) -> int:
        """Of its process, in the machine's pid namespace."""
        assert self._container is not None
        return self._container.pid

    def _docker(self, *args: str) -> str:
        return self._lab.docker(*args)

    def running(self) -> bool:
        """Whether it has not ended."""
        assert self._container is not None
        return self._docker("inspect", "-f", "{{.State.Running}}", self._container.id) == "true"

    def log(self) -> str:
        """What it said, on both streams."""
        assert self._container is not None
        argv = ["docker", "-H", f"unix://{self._lab.docker_socket}", "logs", self._container.id]
        done = self._lab.node_exec(argv, check=False)
        return done.stdout + done.stderr

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run another `eni53` command in the same container."""
        assert self._container is not None
        return self._container.exec([ENI53, *argv], check=check)

    def files(self, directory: str) -> list[str]:
        """Paths of what is in a directory of its container."""
        assert self._container is not None
        done = self._container.exec(["/bin/ls", directory], check=False)
        return [f"{directory}/{name}" for name in done.stdout.split()]

    def healthy(self, command: Sequence[str]) -> bool:
        """Whether a health check of a task definition says so."""
        assert self._container is not None
        kind, _, *rest = command
        assert kind == "CMD"
        return self._container.exec([sys.executable, *rest], check=False).returncode == 0

    def stop(self) -> int:
        """``docker stop``; its exit code."""
        assert self._container is not None
        self._docker("stop", self._container.id)
        return int(self._docker("inspect", "-f", "{{.State.ExitCode}}", self._container.id))

    def get(self, path: str) -> str:
        """What its HTTP door answers, asked from its task."""
        return self._task.exec([sys.executable, "-c", _FETCH, _URL + path]).stdout

    def _ready(self) -> bool:
        done = self._task.exec([sys.executable, "-c", _FETCH, _URL + "/readyz"], check=False)
        return done.returncode == 0

    def snapshot(self) -> dict[str, Any]:
        """Its newest snapshot, as JSON."""
        found: dict[str, Any] = json.loads(self.get("/api/v1/snapshot"))
        return found

    def metrics(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Its samples: name, labels, value."""
        for family in text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value
