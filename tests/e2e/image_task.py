"""Runs the task of deploy/ecs/task-definition.json on the lab's dockerd, as the ECS agent does.

Only where things of the node are differs: its sockets and /run/eni53 are in the lab's directory.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.e2e.image_node import places
from tests.lab.lab import Lab
from tests.lab.shell import MARK

_OFTEN_WITHHELD = {"SYS_MODULE": 16, "SYS_RAWIO": 17, "SYS_BOOT": 22, "SYS_RESOURCE": 24}


class EcsTask:
    """The task of deploy/ecs/task-definition.json on the lab's dockerd, from ``with`` to its end.

    Args:
        task: The task definition.
        image: What runs in place of its image.
    """

    def __init__(self, lab: Lab, task: Mapping[str, Any], image: str) -> None:
        self._lab = lab
        self._task = task
        self._container = task["containerDefinitions"][0]
        self._image = image
        self.id = ""

    def __enter__(self) -> Self:
        """Start it."""
        self.id = self.docker("run", "-d", *self._flags(), self._image).stdout.strip()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, at once if it has not ended by then."""
        self.docker("rm", "-f", self.id, check=False)

    def docker(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The docker command on the node."""
        argv = ["docker", "-H", f"unix://{self._lab.docker_socket}", *args]
        return self._lab.node_exec(argv, check=check, timeout=120)

    def healthy(self) -> bool:
        """Whether the task definition's health check says so."""
        command = self._container["healthCheck"]["command"]
        assert command[0] == "CMD"
        return self.docker("exec", self.id, *command[1:], check=False).returncode == 0

    def stop(self) -> int:
        """``docker stop``; its exit code."""
        self.docker("stop", self.id)
        return int(self.docker("inspect", "-f", "{{.State.ExitCode}}", self.id).stdout)

    def log(self) -> str:
        """What it said."""
        done = self.docker("logs", self.id)
        return done.stdout + done.stderr

    def _flags(self) -> list[str]:
        task, container = self._task, self._container
        flags = [f"--network={task['networkMode']}", f"--pid={task['pidMode']}"]
        flags += privileges(container["privileged"])
        flags += [f"--read-only={json.dumps(container['readonlyRootFilesystem'])}"]
        flags += [f"--memory={container['memory']}m", "-e", f"{MARK}={self._lab.id}"]
        for variable in container["environment"]:
            flags += ["-e", f"{variable['name']}={variable['value']}"]
        sources = {volume["name"]: volume["host"]["sourcePath"] for volume in task["volumes"]}
        for mount in container["mountPoints"]:
            source = places(self._lab)[sources[mount["sourceVolume"]]]
            end = ":ro" if mount["readOnly"] else ""
            flags += ["-v", f"{source}:{mount['containerPath']}{end}"]
        for tmpfs in container["linuxParameters"]["tmpfs"]:
            flags += ["--tmpfs", f"{tmpfs['containerPath']}:size={tmpfs['size']}m"]
        return flags


def privileges(privileged: bool) -> list[str]:
    """Docker's flag; on a machine that itself lacks capabilities, all that it has."""
    if not privileged:
        return []
    held = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            held = int(line.split()[1], 16)
    lacking = [name for name, bit in _OFTEN_WITHHELD.items() if not held >> bit & 1]
    if not lacking:
        return ["--privileged"]
    unconfined = ("seccomp", "apparmor", "systempaths")
    flags = [f"--security-opt={what}=unconfined" for what in unconfined]
    return [*flags, "--cap-add=ALL", *(f"--cap-drop={name}" for name in lacking)]
