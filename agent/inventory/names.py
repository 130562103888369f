"""What a container's labels say about whom it works for. Pure.

Labels are the container's own word: on ECS the agent sets its labels last, over whatever a task
definition says, but on a plain Docker host anybody may call himself a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..model import Workload
from ..text import clean

if TYPE_CHECKING:
    from .docker_shapes import DockerContainer

ECS = "com.amazonaws.ecs."
KUBERNETES = "io.kubernetes."
NAMING_LABELS = frozenset(
    f"{ECS}{name}"
    for name in (
        "cluster",
        "container-name",
        "task-arn",
        "task-definition-family",
        "task-definition-version",
    )
) | frozenset(
    f"{KUBERNETES}{name}" for name in ("pod.name", "pod.namespace", "pod.uid", "container.name")
)
"""Every label that `to_workload` looks at, and the pod's uid."""

ECS_PAUSE = "~internal~ecs~pause"
"""The container whose network namespace all of an awsvpc task's containers share."""

MAX_PART = 256
"""Characters of each part: the longest family and pod names are whole, so none falls together."""


def to_workload(container: DockerContainer) -> Workload:
    """Whom *container*'s packets are charged to.

    ======================  ==========  ===============  =======================  ==============
    labels                  kind        namespace        workload                 container
    ======================  ==========  ===============  =======================  ==============
    of the ECS agent        ecs_task    cluster's name   family:revision/task id  its name there
    of Kubernetes           pod         namespace        pod's name               its name there
    neither                 container   empty            Docker's name            empty
    ======================  ==========  ===============  =======================  ==============

    A pod's sandbox (``POD``) stands for the pod itself, so its container is empty. A container
    without a name goes by the first 12 characters of its id.
    """
    labels = container.labels
    if labels.get(f"{ECS}task-arn"):
        return _task(labels)
    if labels.get(f"{KUBERNETES}pod.name"):
        return _pod(labels)
    name = container.name.removeprefix("/") or container.id[:12]
    return Workload("container", workload=clean(name, MAX_PART))


def is_ecs_pause(container: DockerContainer) -> bool:
    """Whether it is the pause container of an awsvpc task: it owns the task's ENI."""
    return container.labels.get(f"{ECS}container-name") == ECS_PAUSE


def _task(labels: Mapping[str, str]) -> Workload:
    # arn:aws:ecs:<region>:<account>:task/<cluster>/<id>; before 2018 without the cluster.
    parts = labels[f"{ECS}task-arn"].split("/")
    in_arn = parts[-2] if len(parts) > 2 else ""
    cluster = labels.get(f"{ECS}cluster", "").rsplit("/", 1)[-1] or in_arn
    family = _part(labels, f"{ECS}task-definition-family")
    revision = _part(labels, f"{ECS}task-definition-version")
    definition = f"{family}:{revision}" if family and revision else family
    task_id = clean(parts[-1], MAX_PART)
    return Workload(
        "ecs_task",
        namespace=clean(cluster, MAX_PART),
        workload=f"{definition}/{task_id}" if definition else task_id,
        container=_part(labels, f"{ECS}container-name"),
    )


def _pod(labels: Mapping[str, str]) -> Workload:
    container = _part(labels, f"{KUBERNETES}container.name")
    return Workload(
        "pod",
        namespace=_part(labels, f"{KUBERNETES}pod.namespace"),
        workload=_part(labels, f"{KUBERNETES}pod.name"),
        container="" if container == "POD" else container,
    )


def _part(labels: Mapping[str, str], key: str) -> str:
    return clean(labels.get(key, ""), MAX_PART)
