"""Labels to workloads: who is charged."""

import pytest
from eni53.inventory.docker_shapes import DockerContainer
from eni53.inventory.names import is_ecs_pause, to_workload
from eni53.model import Workload

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/prod/158d1c8083dd49d6b527399fd6414f5c"


def container(labels=None, name="/quiet_moore", container_id="9581a69a761a557f"):
    """A running container."""
    return DockerContainer(container_id, name, 42, "default", labels or {}, "", (), True)


def ecs(**changes) -> DockerContainer:
    """A container of an ECS task; None takes a label away."""
    labels = {
        "cluster": "prod",
        "container-name": "web",
        "task-arn": ARN,
        "task-definition-family": "checkout",
        "task-definition-version": "42",
    } | {key.replace("_", "-"): value for key, value in changes.items()}
    return container({f"com.amazonaws.ecs.{k}": v for k, v in labels.items() if v is not None})


TASK = "checkout:42/158d1c8083dd49d6b527399fd6414f5c"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (ecs(), Workload("ecs_task", "prod", TASK, "web")),
        (
            ecs(cluster="arn:aws:ecs:eu-west-1:1:cluster/blue"),
            Workload("ecs_task", "blue", TASK, "web"),
        ),
        (ecs(cluster=None), Workload("ecs_task", "prod", TASK, "web")),
        (
            ecs(task_arn="arn:aws:ecs:x:1:task/11111111-2222-3333-4444-555555555555", cluster=None),
            Workload("ecs_task", "", "checkout:42/11111111-2222-3333-4444-555555555555", "web"),
        ),
        (
            ecs(task_definition_version=None),
            Workload("ecs_task", "prod", f"checkout/{ARN[-32:]}", "web"),
        ),
        (ecs(task_definition_family=None), Workload("ecs_task", "prod", ARN[-32:], "web")),
        (ecs(container_name=None), Workload("ecs_task", "prod", TASK, "")),
        (ecs(task_arn=None), Workload("container", "", "quiet_moore", "")),
    ],
    ids=["usual", "cluster arn", "cluster from arn", "old arn", "no revision", "no family",
         "no name", "no task"],
)  # fmt: skip
def test_an_ecs_task_is_named_by_its_labels(given, expected):
    """A task is family:revision/task id in its cluster, also where a label is missing."""
    assert to_workload(given) == expected


@pytest.mark.parametrize(("name", "expected"), [("app", "app"), ("POD", "")])
def test_a_pod_is_named_by_dockershims_labels(name, expected):
    """A pod is its name in its namespace; the sandbox is the pod, not a container in it."""
    labels = {
        "io.kubernetes.pod.name": "web-7d4b9c6f5-x2x7k",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.container.name": name,
    }
    pod = Workload("pod", "shop", "web-7d4b9c6f5-x2x7k", expected)
    assert to_workload(container(labels)) == pod


def test_a_plain_container_goes_by_dockers_name():
    """Docker's leading slash is no part of the name; without a name, the short id stands in."""
    assert to_workload(container()) == Workload("container", "", "quiet_moore", "")
    assert to_workload(container(name="")) == Workload("container", "", "9581a69a761a", "")


def test_the_pause_container_is_known_by_its_name():
    """It owns the task's network namespace, and so its ENI."""
    assert is_ecs_pause(ecs(container_name="~internal~ecs~pause")) is True
    assert is_ecs_pause(ecs()) is False
    assert is_ecs_pause(container()) is False


def test_hostile_labels_are_made_safe_to_show():
    """An escape sequence in a label must not reach a terminal, nor a megabyte a metric."""
    named = to_workload(ecs(cluster="a\x1b[2Jb", container_name="\n" + "x" * 10_000))
    assert named.namespace == "a\\x1b[2Jb"
    assert named.container.isprintable()
    assert len(named.container) <= 256


def test_the_longest_allowed_names_stay_apart():
    """255 characters of family and 253 of pod name are legal: cutting them would merge two."""
    assert to_workload(ecs(task_definition_family="f" * 255)).workload.endswith(ARN[-32:])
    pods = {
        to_workload(container({"io.kubernetes.pod.name": "p" * 252 + end})) for end in ("1", "2")
    }
    assert len(pods) == 2
