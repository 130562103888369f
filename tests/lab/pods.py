"""Pods on the lab's containerd, made through CRI as a kubelet does."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import cgroups, cni, image, network, remains, vpc
from .containerd import Containerd
from .cri import Cri, api
from .ecs import Introspection
from .podexec import PodContainer
from .shell import HERE, MARK, LabError
from .vpc import Eni

MAX_PODS = 250
# Ending one takes a quarter of a second, most of it waiting.
_AT_ONCE = 8
_BURSTABLE = "/kubepods/burstable"


@dataclasses.dataclass(frozen=True, slots=True)
class Pod:
    """A running pod.

    Attributes:
        id: Of its sandbox.
        pid: Of the sandbox's process, in the machine's pid namespace.
        netns_inode: Of its network namespace; the node's for a pod on the host network.
        ipv4: Its own address; the node's for a pod on the host network.
        host_ifname: The node's end of its pair; None on the host network.
        eni: Whose address it has.
        containers: By name.
        cgroup: "/kubepods/burstable/pod<uid>"; its containers' are below.
    """

    id: str
    name: str
    namespace: str
    uid: str
    pid: int
    netns_inode: int
    ipv4: str
    host_ifname: str | None
    eni: Eni
    containers: Mapping[str, PodContainer]
    cgroup: str
    _remove: Callable[[Pod], None]

    def remove(self) -> None:
        """End and delete it, at once. Twice is fine."""
        self._remove(self)


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What a pod is started with; see Lab.run_pod."""

    name: str
    namespace: str
    containers: Sequence[str]
    host_network: bool
    command: Sequence[str]
    labels: Mapping[str, str]
    capabilities: Sequence[str]


class Kubelet:
    """Starts and ends the lab's pods.

    Args:
        directory: The lab's; the pods' logs are in it.
        containerd: Started with CRI.
        introspection: What says whose address is whose, once the lab serves it.
    """

    def __init__(
        self,
        lab_id: str,
        directory: Path,
        vpc_ns: str,
        containerd: Containerd,
        introspection: Introspection,
    ) -> None:
        self._lab_id = lab_id
        self._share = directory / "share"
        self._logs = directory / "pods"
        self._vpc_ns = vpc_ns
        self._leases = containerd.cni_leases
        self._introspection = introspection
        self._cri = Cri(containerd.socket)
        self._cri.wait_for_image(image.NAME)
        self._free = list(range(1, MAX_PODS + 1))
        self._lock = threading.Lock()
        self.pods: dict[str, Pod] = {}

    def run(self, wish: Wish, eni: Eni, primary: Eni) -> Pod:
        """Start a pod with an address of *eni*, or with the node's on the host network."""
        uid = str(uuid.uuid4())
        parent = f"{_BURSTABLE}/pod{uid}"
        remains.note_cgroup(self._lab_id, parent)
        lease = cni.lease(self._leases, wish.namespace, wish.name)
        if not wish.host_network:
            self._assign(lease, eni, wish.namespace, wish.name)
        config = self._sandbox(wish, uid, parent)
        sandbox = None
        try:
            sandbox = self._cri.run_sandbox(config)
            containers = {
                name: self._container(wish, sandbox, config, name) for name in wish.containers
            }
            pod = self._describe(
                wish, uid, sandbox, containers, primary if wish.host_network else eni
            )
        except BaseException:
            if sandbox is not None:
                self._remove_quietly(sandbox)
            self._release(lease)
            cgroups.remove(parent)
            raise
        self.pods[sandbox] = pod
        return pod

    def remove(self, pod: Pod) -> None:
        """End and delete *pod*, its address and its cgroups. Twice is fine."""
        if self.pods.pop(pod.id, None) is not None:
            self._cri.remove_sandbox(pod.id)
            if pod.host_ifname is not None:
                self._release(cni.lease(self._leases, pod.namespace, pod.name))
            # A kubelet removes what runc leaves: the pod's own cgroup.
            cgroups.remove(pod.cgroup)

    def log(self, pod: Pod, container: str) -> Path:
        """Where containerd writes what a container says."""
        return self._log_directory(pod.namespace, pod.name, pod.uid) / f"{container}.log"

    def close(self) -> None:
        """End all pods. Never raises: what hangs is ended by its mark."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._remove_quietly, list(self.pods)))
        self.pods.clear()
        self._cri.close()

    def _remove_quietly(self, sandbox: str) -> None:
        with contextlib.suppress(LabError):
            self._cri.remove_sandbox(sandbox)

    def _log_directory(self, namespace: str, name: str, uid: str) -> Path:
        return self._logs / f"{namespace}_{name}_{uid}"

    def _assign(self, lease: Path, eni: Eni, namespace: str, name: str) -> None:
        """What ipamd does: an address of the ENI, which the VPC sends there."""
        if lease.exists():
            raise LabError(f"a pod of that name is there: {lease.stem}")
        with self._lock:
            if not self._free:
                raise LabError(f"a lab has {MAX_PODS} pods at most")
            number = self._free.pop(0)
            ipv4 = vpc.pod_ipv4(number)
            self._introspection.add_pod_ip(eni, ipv4, namespace, name)
        if eni.table is not None:
            network.batch(self._vpc_ns, [f"route add {ipv4} via {eni.ipv4}"])
        lease.write_text(json.dumps({"ipv4": ipv4, "table": eni.table, "number": number}))

    def _release(self, lease: Path) -> None:
        """Take back what _assign gave. The address goes to the end of the queue, as ipamd does."""
        if lease.exists():
            given = json.loads(lease.read_text())
            lease.unlink()
            if given["table"] is not None:
                network.batch(self._vpc_ns, [f"route delete {given['ipv4']}"])
            with self._lock:
                self._free.append(given["number"])
                self._introspection.remove_pod_ip(given["ipv4"])

    def _sandbox(self, wish: Wish, uid: str, parent: str) -> api.PodSandboxConfig:
        logs = self._log_directory(wish.namespace, wish.name, uid)
        return api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(name=wish.name, uid=uid, namespace=wish.namespace),
            # runc refuses a name of its own for the node's UTS namespace.
            hostname="" if wish.host_network else wish.name,
            log_directory=str(logs),
            # Otherwise containerd copies the machine's resolv.conf.
            dns_config=api.DNSConfig(servers=[vpc.RESOLVER]),
            labels={**wish.labels, **_pod_labels(wish, uid)},
            annotations={"kubernetes.io/config.source": "api"},
            linux=api.LinuxPodSandboxConfig(
                cgroup_parent=parent,
                security_context=api.LinuxSandboxSecurityContext(
                    namespace_options=_namespaces(wish)
                ),
            ),
        )

    def _container(
        self, wish: Wish, sandbox: str, in_sandbox: api.PodSandboxConfig, name: str
    ) -> PodContainer:
        labels = _pod_labels(wish, in_sandbox.metadata.uid)
        env = {MARK: self._lab_id, "PYTHONDONTWRITEBYTECODE": "1"}
        security = api.LinuxContainerSecurityContext(
            namespace_options=_namespaces(wish),
            capabilities=api.Capability(add_capabilities=list(wish.capabilities)),
        )
        config = api.ContainerConfig(
            metadata=api.ContainerMetadata(name=name),
            image=api.ImageSpec(image=image.NAME),
            command=list(wish.command),
            envs=[api.KeyValue(key=key, value=value) for key, value in env.items()],
            mounts=self._mounts(),
            labels={**labels, "io.kubernetes.container.name": name},
            annotations={"io.kubernetes.container.restartCount": "0"},
            log_path=f"{name}.log",
            linux=api.LinuxContainerConfig(security_context=security),
        )
        Path(in_sandbox.log_directory).mkdir(parents=True, exist_ok=True)
        new = self._cri.run_container(sandbox, config, in_sandbox)
        info = self._cri.container_info(new)
        cgroup = info["runtimeSpec"]["linux"]["cgroupsPath"]
        return PodContainer(new, name, info["pid"], cgroup, self._cri)

    def _mounts(self) -> list[api.Mount]:
        """The machine's programs, the lab's scripts and its share, as in Docker's containers."""
        mounts = {"/usr": "/usr", "/lib": "/usr/lib", "/lab": str(HERE), "/share": str(self._share)}
        if Path("/usr/lib64").exists():
            mounts["/lib64"] = "/usr/lib64"
        return [
            api.Mount(container_path=inside, host_path=outside, readonly=True)
            for inside, outside in mounts.items()
        ]

    def _describe(
        self, wish: Wish, uid: str, sandbox: str, containers: Mapping[str, PodContainer], eni: Eni
    ) -> Pod:
        status, info = self._cri.sandbox_status(sandbox)
        host = None if wish.host_network else cni.host_ifname(wish.namespace, wish.name)
        return Pod(
            id=sandbox,
            name=wish.name,
            namespace=wish.namespace,
            uid=uid,
            pid=info["pid"],
            netns_inode=Path(f"/proc/{info['pid']}/ns/net").stat().st_ino,
            ipv4=eni.ipv4 if wish.host_network else status.network.ip,
            host_ifname=host,
            eni=eni,
            containers=containers,
            cgroup=f"{_BURSTABLE}/pod{uid}",
            _remove=self.remove,
        )


def _pod_labels(wish: Wish, uid: str) -> dict[str, str]:
    """What a kubelet puts on a sandbox and on each container in it."""
    return {
        "io.kubernetes.pod.name": wish.name,
        "io.kubernetes.pod.namespace": wish.namespace,
        "io.kubernetes.pod.uid": uid,
    }


def _namespaces(wish: Wish) -> api.NamespaceOption:
    """The pod's own network or the node's; pids are each container's own, as is usual."""
    network_of = api.NamespaceMode.NODE if wish.host_network else api.NamespaceMode.POD
    return api.NamespaceOption(network=network_of, pid=api.NamespaceMode.CONTAINER)
