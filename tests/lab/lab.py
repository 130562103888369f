"""The lab as its users see it: what runs in it, and what was counted."""

from __future__ import annotations

import itertools
import re
import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cgroups, containers, load, remains, vpc, workloads
from .awsvpc import AwsvpcTask
from .containers import Container, Options
from .kubernetes import Kubernetes
from .load import Dnsperf, Sent
from .shell import LabError, environment, in_netns, popen, run, sender
from .workloads import Workload

if TYPE_CHECKING:
    from .podexec import PodContainer

_ID = re.compile(r"[a-z0-9]{1,16}")
_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


class Lab(Kubernetes):
    """A VPC of network namespaces, for as long as the ``with`` block lasts. Needs root.

    Args:
        enis: How many ENIs the node has, 1 to 15: ens5, ens6, ...
        docker: Start containerd and dockerd in the node.
        docker_ipv6: Containers on the default bridge also get IPv6, not translated.
        pods: Start containerd with CRI, and wire the node as the Amazon VPC CNI does.
        resolver: Start unbound; without it, DNS by UDP is swallowed and by TCP refused.
        imds: Start the metadata service; a mode or several, as for set_imds, start it in those.
        limit_pps: Packets per second per ENI to link-local services, above which they are dropped;
            None drops nothing, which exact counts need.
        lab_id: Up to 16 of a-z and 0-9, in the names of namespaces and directories.
        progress: Called with a line for each step.

    Attributes:
        enis: The node's ENIs, by device number.
        directory: Sockets, logs and state of this lab, gone when it ends.
        vpc_ns: The namespace of the VPC's services, where packets are counted independently.
        node_ns: The namespace of the node, where the agent belongs.
    """

    def __init__(
        self,
        *,
        enis: int = 1,
        docker: bool = True,
        docker_ipv6: bool = False,
        pods: bool = False,
        resolver: bool = True,
        imds: bool | str | Sequence[str] = True,
        limit_pps: int | None = 1024,
        lab_id: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        lab_id = lab_id or secrets.token_hex(3)
        if not 1 <= enis <= vpc.MAX_ENIS or not _ID.fullmatch(lab_id):
            raise LabError(f"enis is 1 to {vpc.MAX_ENIS}, lab_id 1 to 16 of a-z and 0-9")
        super().__init__(
            lab_id,
            [vpc.eni(number) for number in range(enis)],
            wants={"docker": docker, "pods": pods, "resolver": resolver, "imds": bool(imds)},
            imds_modes=() if isinstance(imds, bool) else [imds] if isinstance(imds, str) else imds,
            docker_ipv6=docker_ipv6,
            limit_pps=limit_pps,
            progress=progress,
        )
        self._workloads = 0
        self._task_enis = itertools.count(1)

    def node_exec(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 60,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run *argv* in the node to its end; LabError if it fails and *check* is set."""
        full = environment(self.id, env)
        argv = [*in_netns(self.node_ns), *argv]
        return run(argv, env=full, check=check, timeout=timeout, stdin=stdin)

    def node_popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        cgroup: str | None = None,
    ) -> subprocess.Popen[str]:
        """Start *argv* in the node; the lab ends it with SIGTERM if it is not over by then.

        Output goes to *log*, or to pipes. *cgroup* is "/a/b" in the version 2 hierarchy, made if
        missing and removed with the lab.
        """
        argv = [*in_netns(self.node_ns), *argv]
        if cgroup is not None:
            remains.note_cgroup(self.id, cgroup)
            directory = cgroups.unified() / cgroup.lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
            join = 'echo $$ >"$0" && exec "$@"'
            argv = ["/bin/sh", "-c", join, str(directory / "cgroup.procs"), *argv]
        process = popen(argv, environment(self.id, env), log)
        self._started.append(process)
        return process

    def vpc_exec(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run *argv* beside the VPC's services to its end."""
        argv = [*in_netns(self.vpc_ns), *argv]
        return run(argv, env=environment(self.id), check=check, timeout=timeout)

    def vpc_popen(self, argv: Sequence[str]) -> subprocess.Popen[str]:
        """Start *argv* beside the VPC's services; the lab ends it if it is not over by then."""
        process = popen([*in_netns(self.vpc_ns), *argv], environment(self.id), None)
        self._started.append(process)
        return process

    def send(self, *args: str, timeout: float = 60) -> Sent:
        """Run the sender in the node: ``send("udp", "--to", ADDRESS, "--count", "10")``."""
        return load.parse_sent(self.node_exec(sender(*args), timeout=timeout).stdout)

    def start_send(self, *args: str, cgroup: str | None = None) -> subprocess.Popen[str]:
        """As send, but return at once; its stdout ends with the report."""
        return self.node_popen(sender(*args), cgroup=cgroup)

    def dnsperf(
        self,
        *,
        seconds: float,
        rate: int | None = None,
        to: str = vpc.RESOLVER,
        inside: Container | PodContainer | None = None,
    ) -> Dnsperf:
        """Run dnsperf in the node, or *inside* a container.

        *rate* is queries per second; None is as fast as answers come back.
        """
        share = str(self.directory / "share") if inside is None else "/share"
        argv = load.dnsperf_argv(f"{share}/queries.txt", to, rate=rate, seconds=seconds)
        execute = self.node_exec if inside is None else inside.exec
        return load.parse_dnsperf(execute(argv, timeout=seconds + 30).stdout)

    def docker(self, *args: str, timeout: float = 60) -> str:
        """Run the docker client on the lab's daemon; its output."""
        return self._docker.run(*args, timeout=timeout)

    def run_task(
        self,
        family: str = "checkout",
        revision: int = 42,
        container: str = "app",
        *,
        task_id: str | None = None,
        cluster: str = "prod",
        network: str | None = None,
        extra: Sequence[str] = (),
        command: Sequence[str] = (),
    ) -> Container:
        """Start a container as the ECS agent would, in the cgroup /ecs/<task id>/<container id>.

        The same *task_id* (32 hex digits, random if None) puts containers into one task. *network*
        and *extra* are as for ``docker run``; without a *command* it sleeps.
        """
        task_id = task_id or secrets.token_hex(16)
        labels = containers.ecs_labels(
            task_id, cluster=cluster, family=family, revision=revision, container=container
        )
        name = f"ecs-{family}-{revision}-{container.replace('~', '')}-{secrets.token_hex(10)}"
        parent = f"/ecs/{task_id}"
        started = self._run(name, Options(labels, task_id, parent, network, extra, command))
        self.introspection.started(started, labels)
        return started

    def awsvpc_task(
        self,
        family: str = "shop",
        revision: int = 7,
        *,
        task_id: str | None = None,
        cluster: str = "prod",
        in_imds: bool = True,
        ecs_bridge: bool = True,
    ) -> AwsvpcTask:
        """An ECS task with an ENI of its own, of which nothing is there yet: see AwsvpcTask.

        Without *in_imds* the IMDS does not list its ENI, as with branch ENIs. With *ecs_bridge* it
        has the second interface, ecs-eth0, by which real ones reach their credentials.
        """
        return AwsvpcTask(
            self,
            vpc.task_eni(next(self._task_enis)),
            task_id=task_id or secrets.token_hex(16),
            family=family,
            revision=revision,
            cluster=cluster,
            in_imds=in_imds,
            ecs_bridge=ecs_bridge,
        )

    def run_awsvpc_task(
        self,
        family: str = "shop",
        revision: int = 7,
        containers: Sequence[str] = ("app",),
        *,
        task_id: str | None = None,
        cluster: str = "prod",
        eni_first: bool = False,
        in_imds: bool = True,
        ecs_bridge: bool = True,
    ) -> AwsvpcTask:
        """Start an ECS task with an ENI of its own: pause container, ENI, then *containers*.

        With *eni_first* the ENI is seen on the node before the pause container starts, as on AWS,
        and moves; without, it is made in the task's namespace.
        """
        task = self.awsvpc_task(
            family,
            revision,
            task_id=task_id,
            cluster=cluster,
            in_imds=in_imds,
            ecs_bridge=ecs_bridge,
        )
        if eni_first:
            task.attach_eni()
        task.start_pause()
        task.plug_eni()
        for container in containers:
            task.start_container(container)
        return task

    @property
    def ecs_tasks(self) -> list[dict[str, Any]]:
        """What the ECS agent's introspection lists. To change it, see Introspection."""
        return self.introspection.tasks

    def run_container(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        cgroup_parent: str | None = None,
        network: str | None = None,
        extra: Sequence[str] = (),
        command: Sequence[str] = (),
    ) -> Container:
        """Start a plain container, without ECS labels; in /docker/<id> unless told otherwise."""
        return self._run(name, Options(labels or {}, None, cgroup_parent, network, extra, command))

    def _run(self, name: str, options: Options) -> Container:
        if options.cgroup_parent is not None:
            remains.note_cgroup(self.id, options.cgroup_parent)
        return containers.run(self._docker, self.id, name, self.directory / "share", options)

    def add_workload_netns(self, name: str, *, bridge: bool = False, eni: int = 0) -> Workload:
        """Make a namespace that sends through the node, with an address of its own, un-NATed.

        It is routed, the shape of a pod on EKS, or behind a *bridge* of the node. Its packets leave
        by the ENI with device number *eni*.
        """
        if not _NAME.fullmatch(name):
            raise LabError(f"not a workload name: {name!r}")
        self._workloads += 1
        names = (self.vpc_ns, self.node_ns, f"{remains.prefix(self.id)}w-{name}")
        return workloads.add(self.id, names, self._workloads, bridge=bridge, eni=self.enis[eni])
