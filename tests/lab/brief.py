"""ECS tasks that live for a moment: one container, started, gone, and nobody looked at it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from . import cgroups, image, remains, vpc
from .containers import ecs_labels
from .lab import Lab
from .shell import HERE, MARK, sender


def run(lab: Lab, family: str, *send: str, detach: bool = False, extra: Sequence[str] = ()) -> str:
    """Run one with ``docker run --rm`` whose only act is to send; its task id.

    Args:
        lab: Where.
        family: Of the task definition, revision 1, container ``app``, cluster ``prod``.
        send: Arguments of the sender.
        detach: Return when it has started, not when it is over.
        extra: For ``docker run``.
    """
    task_id = secrets.token_hex(16)
    parent = f"/ecs/{task_id}"
    labels = ecs_labels(task_id, cluster="prod", family=family, revision=1, container="app")
    args = ["run", "--rm", "--cgroup-parent", parent, "--dns", vpc.RESOLVER]
    args += ["-d"] if detach else []
    args += ["-e", f"{MARK}={lab.id}", "-e", "PYTHONDONTWRITEBYTECODE=1"]
    for key, value in labels.items():
        args += ["--label", f"{key}={value}"]
    for source, target in (("/usr", "/usr"), ("/usr/lib", "/lib"), (str(HERE), "/lab")):
        args += ["-v", f"{source}:{target}:ro"]
    args += ["-v", "/usr/lib64:/lib64:ro", *extra, image.NAME, *sender(*send, at="/lab")]
    if detach:
        remains.note_cgroup(lab.id, parent)
    lab.docker(*args)
    if not detach:
        cgroups.remove(parent)  # as the ECS agent does
    return task_id
