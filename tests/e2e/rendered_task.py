"""Runs containers as a task definition says, on the lab's dockerd: what `eni53 remedy` printed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tests.lab import vpc
from tests.lab.agent import Agent
from tests.lab.containers import Container
from tests.lab.lab import Lab


def rendered(agent: Agent, name: str, *flags: str) -> dict[str, Any]:
    """The documents that the command prints on the lab's node, by the name of their file.

    Nothing is given on the command line: resolver and bridge are what it finds there.
    """
    text = agent.run("remedy", name, *flags).stdout
    assert f"# resolver: {vpc.RESOLVER}  (the metadata service)\n" in text
    if name.endswith("-ecs"):
        assert f"# bridge: {vpc.DOCKER_GATEWAY.partition('/')[0]}  (docker0)\n" in text
    parts = text.split("\n# ---- ")[1:]
    return {part.partition("\n")[0]: yaml.safe_load(part.partition("\n")[2]) for part in parts}


def start(
    lab: Lab,
    task: Mapping[str, Any],
    container: Mapping[str, Any],
    *,
    task_id: str | None = None,
    network: str | None = None,
    extra: Sequence[str] = (),
    command: Sequence[str] = (),
) -> Container:
    """Start one container of *task* as the ECS agent would; *command* in place of its own."""
    flags = [*extra]
    capabilities = container.get("linuxParameters", {}).get("capabilities", {})
    flags += [f"--cap-drop={name}" for name in capabilities.get("drop", ())]
    flags += [f"--cap-add={name}" for name in capabilities.get("add", ())]
    if container.get("readonlyRootFilesystem"):
        flags.append("--read-only")
    if "user" in container:
        flags.append(f"--user={container['user']}")
    for variable in container.get("environment", ()):
        flags += ["-e", f"{variable['name']}={variable['value']}"]
    for mount in container.get("mountPoints", ()):
        flags += ["-v", f"{task['family']}-{mount['sourceVolume']}:{mount['containerPath']}"]
    for server in container.get("dnsServers", ()):
        flags += ["--dns", server]
    if "healthCheck" in container:
        check = container["healthCheck"]
        assert check["command"][0] == "CMD"
        flags += ["--health-cmd", shlex.join(check["command"][1:])]
        flags += [f"--health-{key}={check[key]}s" for key in ("interval", "timeout")]
    entry = container.get("entryPoint", [])
    if entry:
        flags += ["--entrypoint", entry[0]]
    if network is None and task["networkMode"] == "host":
        network = "host"
    words = [*entry[1:], *(command or container.get("command", ()))]
    return lab.run_task(
        task["family"],
        1,
        container["name"],
        task_id=task_id,
        network=network,
        extra=flags,
        command=words,
    )


def healthy(lab: Lab, container: Container, timeout: float = 30) -> None:
    """Wait until the health check says so, as `dependsOn: HEALTHY` does."""
    deadline = time.monotonic() + timeout
    state = ""
    while state != "healthy":
        assert time.monotonic() < deadline, (state, lab.docker("logs", container.id))
        time.sleep(0.1)
        state = lab.docker("inspect", "-f", "{{.State.Health.Status}}", container.id)
