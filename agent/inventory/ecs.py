"""The ECS agent's introspection: which of its containers belongs to which task.

It needs no label and no image of Docker's, and the agent alone can answer on its port's behalf:
what it says is what the cluster knows. Pause containers are not in it, plain containers neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from ..errors import SourceError
from ..model import Workload
from ..text import clean
from .docker_shapes import member, shaped
from .local_http import asking
from .names import arn_cluster, ecs_workload

MAX_CONTAINERS = 4096
_SERVICE = "ECS agent"
_TASK_ARN = re.compile(r"arn:[^\s/]{1,256}:task/([^\s/]{1,256}/)?[^\s/]{1,256}")
_DOCKER_ID = re.compile(r"[0-9a-f]{64}")


class EcsIntrospection:
    """Asks one ECS agent. Every call blocks; not for two threads at a time."""

    def __init__(self, base_url: str, timeout_s: float = 2.0) -> None:
        """Send nothing yet.

        Args:
            base_url: ``http://127.0.0.1:51678``; empty turns every call into no request at all.
            timeout_s: Seconds for connecting, and again for each of at most two whole answers.
        """
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._cluster = ""

    def tasks(self) -> Mapping[str, Workload]:
        """The workload of each container of each task, by its Docker id; stopped ones may be in it.

        What cannot be read is left out, and so is a task of an unknown cluster: with an empty one
        it would be a second workload from the moment the cluster is known.

        Raises:
            SourceError: No answer, or not the ECS agent's.
        """
        if not self._base_url:
            return {}
        with asking(_SERVICE, self._base_url, self._timeout_s) as get:
            tasks = self._list(get("/v1/tasks"))
            found: dict[str, Workload] = {}
            for task in tasks:
                for docker_id, workload in self._containers(task, get):
                    found[docker_id] = workload
                    if len(found) > MAX_CONTAINERS:
                        raise self._error(f"lists more than {MAX_CONTAINERS} containers")
        return found

    def _containers(
        self, task: object, get: Callable[[str], object]
    ) -> Iterator[tuple[str, Workload]]:
        """Docker ids and workloads of one task; nothing when it is no task."""
        try:
            arn = member(task, "Arn", str)
            family, revision = member(task, "Family", str), member(task, "Version", str)
            containers = member(task, "Containers", list)
        except ValueError:
            return
        if not _TASK_ARN.fullmatch(arn):
            return
        cluster = arn_cluster(arn) or self._own_cluster(get)
        for container in containers if cluster else ():
            try:
                docker_id = member(container, "DockerId", str)
                name = member(container, "Name", str)
            except ValueError:
                continue
            if _DOCKER_ID.fullmatch(docker_id):  # empty before Docker has made the container
                yield docker_id, ecs_workload(arn, cluster, family, revision, name)

    def _own_cluster(self, get: Callable[[str], object]) -> str:
        """Name of the cluster this instance is in; empty when the agent does not know it yet."""
        if not self._cluster:
            try:
                self._cluster = member(get("/v1/metadata"), "Cluster", str).rsplit("/", 1)[-1]
            except ValueError as error:
                raise self._error(f"no cluster: {error}") from None
        return self._cluster

    def _list(self, answer: object) -> list[object]:
        try:
            if "Tasks" not in shaped(answer, dict):  # not even an empty list: somebody else's port
                raise ValueError("no Tasks in it")
            return member(answer, "Tasks", list)
        except ValueError as error:
            raise self._error(f"not its list of tasks: {error}") from None

    def _error(self, why: str) -> SourceError:
        return SourceError(f"{_SERVICE} at {clean(self._base_url)}: {why}")
