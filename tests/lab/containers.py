"""Containers on the lab's dockerd, with or without the labels of the ECS agent."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import image, vpc
from .dockerd import Docker
from .load import Sent, parse_sent
from .shell import HERE, MARK, sender

_files = itertools.count(1)


@dataclasses.dataclass(frozen=True, slots=True)
class Container:
    """A running container.

    Attributes:
        pid: Of its first process, in the machine's pid namespace.
        task_id: The ECS task's 32 hex digits; None for a container without ECS labels.
    """

    id: str
    name: str
    pid: int
    task_id: str | None
    _docker: Docker

    def exec(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run *argv* inside to its end; LabError if it fails and *check* is set."""
        flags = [] if stdin is None else ["-i"]
        args = ("exec", *flags, self.id, *argv)
        return self._docker.call(*args, check=check, timeout=timeout, stdin=stdin)

    def popen(self, argv: Sequence[str]) -> ExecProcess:
        """Start *argv* inside and leave it running."""
        pid_file = f"/tmp/exec-{next(_files)}"  # noqa: S108 - the container's own /tmp
        shell = ["/bin/sh", "-c", f'echo $$ >{pid_file}; exec "$@"', "sh"]
        return ExecProcess(self, self._docker.popen("exec", self.id, *shell, *argv), pid_file)

    def send(self, *args: str, timeout: float = 60) -> Sent:
        """Run the sender inside: ``send("udp", "--to", ADDRESS, "--count", "10")``."""
        return parse_sent(self.exec(sender(*args, at="/lab"), timeout=timeout).stdout)

    def start_send(self, *args: str) -> ExecProcess:
        """As send, but return at once; its stdout ends with the report."""
        return self.popen(sender(*args, at="/lab"))

    def remove(self) -> None:
        """End and delete it, at once."""
        self._docker.run("rm", "-f", self.id)


class ExecProcess:
    """A command that runs in a container. ``docker exec`` forwards no signal, so this does."""

    def __init__(self, container: Container, client: subprocess.Popen[str], pid_file: str) -> None:
        self._container = container
        self._client = client
        self._pid_file = pid_file

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._client.poll()

    def terminate(self) -> None:
        """Send SIGTERM to the command. One that has ended already is fine."""
        kill = f"kill -TERM $(cat {self._pid_file})"
        self._container.exec(["/bin/sh", "-c", kill], check=False)

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """Wait for the end; what it wrote to stdout and stderr."""
        return self._client.communicate(timeout=timeout)


def ecs_labels(
    task_id: str, *, cluster: str, family: str, revision: int, container: str
) -> dict[str, str]:
    """The labels that the ECS agent puts on every container of a task."""
    ecs = "com.amazonaws.ecs."
    return {
        ecs + "cluster": cluster,
        ecs + "container-name": container,
        ecs + "task-arn": f"arn:aws:ecs:eu-west-1:123456789012:task/{cluster}/{task_id}",
        ecs + "task-definition-family": family,
        ecs + "task-definition-version": str(revision),
    }


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a container is started with; see Lab.run_task and Lab.run_container."""

    labels: Mapping[str, str]
    task_id: str | None
    cgroup_parent: str | None
    network: str | None
    extra: Sequence[str]
    command: Sequence[str]


def run(docker: Docker, lab_id: str, name: str, share: Path, options: Options) -> Container:
    """Start a container that can run the machine's programs and the lab's scripts.

    /usr is mounted read-only, so python3 and dnsperf run inside though the image holds busybox
    only; this directory is /lab, and *share* is /share.
    """
    args = ["run", "-d", "--name", name]
    args += ["-e", f"{MARK}={lab_id}", "-e", "PYTHONDONTWRITEBYTECODE=1"]
    if options.cgroup_parent is not None:
        args += ["--cgroup-parent", options.cgroup_parent]
    for key, value in options.labels.items():
        args += ["--label", f"{key}={value}"]
    if options.network is not None:
        args += ["--network", options.network]
    shared = options.network is not None and options.network.startswith("container:")
    if not shared and "--dns" not in options.extra:
        # Otherwise Docker copies the machine's resolv.conf.
        args += ["--dns", vpc.RESOLVER]
    mounts = {"/usr": "/usr", "/usr/lib": "/lib", str(HERE): "/lab", str(share): "/share"}
    if Path("/usr/lib64").exists():
        mounts["/usr/lib64"] = "/lib64"
    for source, target in mounts.items():
        args += ["-v", f"{source}:{target}:ro"]
    container_id = docker.run(*args, *options.extra, image.NAME, *options.command)
    pid = docker.run("inspect", "-f", "{{.State.Pid}}", container_id)
    return Container(container_id, name, int(pid), options.task_id, docker)
