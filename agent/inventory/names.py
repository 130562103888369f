"""What a container's labels, or its ECS agent, say about whom it works for. Pure.

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


def pod_workload(namespace: str, name: str, container: str = "") -> Workload:
    """A pod, or one *container* of it, from what the runtime itself calls them."""
    return Workload(
        "pod",
        namespace=clean(namespace, MAX_PART),
        workload=clean(name, MAX_PART),
        container=clean(container, MAX_PART),
    )


def is_ecs_pause(container: DockerContainer) -> bool:
    """Whether it is the pause container of an awsvpc task: it owns the task's ENI."""
    return container.labels.get(f"{ECS}container-name") == ECS_PAUSE


def ecs_workload(
    task_arn: str, cluster: str, family: str, revision: str, container: str
) -> Workload:
    """A container of an ECS task, from what the ECS agent says of it, on labels or when asked.

    Args:
        task_arn: Its last part is the task's id.
        cluster: Name or ARN; empty means the one in *task_arn*, if that has one.
        family: Of the task definition; may be empty. So may the rest.
        revision: Of the task definition.
        container: The container's name in it.
    """
    name = cluster.rsplit("/", 1)[-1] or arn_cluster(task_arn)
    family, revision = clean(family, MAX_PART), clean(revision, MAX_PART)
    definition = f"{family}:{revision}" if family and revision else family
    task_id = clean(task_arn.rsplit("/", 1)[-1], MAX_PART)
    return Workload(
        "ecs_task",
        namespace=clean(name, MAX_PART),
        workload=f"{definition}/{task_id}" if definition else task_id,
        container=clean(container, MAX_PART),
    )


def arn_cluster(task_arn: str) -> str:
    """The cluster in ``arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID``; ARNs before 2018 have none."""
    parts = task_arn.split("/")
    return parts[-2] if len(parts) > 2 else ""


def _task(labels: Mapping[str, str]) -> Workload:
    names = ("task-arn", "cluster", "task-definition-family", "task-definition-version",
             "container-name")  # fmt: skip
    return ecs_workload(*(labels.get(f"{ECS}{name}", "") for name in names))


def _pod(labels: Mapping[str, str]) -> Workload:
    container = labels.get(f"{KUBERNETES}container.name", "")
    return pod_workload(
        labels.get(f"{KUBERNETES}pod.namespace", ""),
        labels.get(f"{KUBERNETES}pod.name", ""),
        "" if container == "POD" else container,
    )


def _part(labels: Mapping[str, str], key: str) -> str:
    return clean(labels.get(key, ""), MAX_PART)
