"""Runs commands in the containers of pods, by CRI's ExecSync as ``kubectl exec`` probes do."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
from collections.abc import Sequence
from typing import Any

import grpc

from .cri import Cri, api, refusal
from .load import Sent, parse_sent
from .shell import LabError, sender

_files = itertools.count(1)


@dataclasses.dataclass(frozen=True, slots=True)
class PodContainer:
    """A running container of a pod.

    Attributes:
        pid: Of its first process, in the machine's pid namespace.
        cgroup: "/kubepods/burstable/pod<uid>/<id>", in every hierarchy.
    """

    id: str
    name: str
    pid: int
    cgroup: str
    _cri: Cri

    def exec(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run *argv* inside to its end; LabError if it fails and *check* is set."""
        request = api.ExecSyncRequest(container_id=self.id, cmd=list(argv))
        answer = self._cri.call(self._cri.runtime.ExecSync, request, timeout)
        done = subprocess.CompletedProcess(
            list(argv),
            answer.exit_code,
            answer.stdout.decode(errors="replace"),
            answer.stderr.decode(errors="replace"),
        )
        if check and done.returncode:
            words = (done.stderr or done.stdout).strip() or "no output"
            raise LabError(f"exit {done.returncode}: {' '.join(argv)}\n{words}")
        return done

    def popen(self, argv: Sequence[str]) -> PodProcess:
        """Start *argv* inside and leave it running."""
        pid_file = f"/tmp/exec-{next(_files)}"  # noqa: S108 - the container's own /tmp
        shell = ["/bin/sh", "-c", f'echo $$ >{pid_file}; exec "$@"', "sh"]
        request = api.ExecSyncRequest(container_id=self.id, cmd=[*shell, *argv])
        return PodProcess(self, self._cri.runtime.ExecSync.future(request), pid_file)

    def send(self, *args: str, timeout: float = 60) -> Sent:
        """Run the sender inside: ``send("udp", "--to", ADDRESS, "--count", "10")``."""
        return parse_sent(self.exec(sender(*args, at="/lab"), timeout=timeout).stdout)

    def start_send(self, *args: str) -> PodProcess:
        """As send, but return at once; its stdout ends with the report."""
        return self.popen(sender(*args, at="/lab"))


class PodProcess:
    """A command that runs in a container of a pod. ExecSync forwards no signal, so this does."""

    def __init__(self, container: PodContainer, answer: Any, pid_file: str) -> None:
        self._container = container
        self._answer = answer
        self._pid_file = pid_file

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return int(self._result(60).exit_code) if self._answer.done() else None

    def terminate(self) -> None:
        """Send SIGTERM to the command. One that has ended already is fine."""
        kill = f"kill -TERM $(cat {self._pid_file})"
        self._container.exec(["/bin/sh", "-c", kill], check=False)

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """Wait for the end; what it wrote to stdout and stderr."""
        answer = self._result(timeout)
        return answer.stdout.decode(errors="replace"), answer.stderr.decode(errors="replace")

    def _result(self, timeout: float) -> Any:
        try:
            return self._answer.result(timeout=timeout)
        except grpc.FutureTimeoutError as error:
            raise LabError(f"no end after {timeout:g} s in {self._container.name}") from error
        except grpc.RpcError as error:
            raise LabError(f"exec in {self._container.name}: {refusal(error)}") from error
