"""Runs a pod of the rendered chart on the lab's node, by CRI, as a kubelet does.

Only where things of the node are differs: its sockets and /run/eni53 are in the lab's directory.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Self

from tests.e2e.image_node import places
from tests.lab import remains, vpc
from tests.lab.cri import Cri, api
from tests.lab.lab import Lab
from tests.lab.shell import MARK

_UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}
_NODE = api.NamespaceMode.NODE


class ChartPod:
    """One pod of the chart's DaemonSet, from ``with`` to its end.

    Args:
        manifests: The rendered chart, by kind.
        image: What runs in place of the chart's image.
    """

    def __init__(self, lab: Lab, manifests: Mapping[str, Mapping[str, Any]], image: str) -> None:
        self._lab = lab
        self._spec = manifests["DaemonSet"]["spec"]["template"]["spec"]
        self._config_map = manifests["ConfigMap"]["data"]
        self._container = self._spec["containers"][0]
        self._image = image
        self._uid = str(uuid.uuid4())
        self._cri = Cri(lab.containerd_socket)
        self._logs = lab.directory / f"logs-{self._uid}"
        self.log = self._logs / "eni53.log"
        self.sandbox = self.id = ""

    def __enter__(self) -> Self:
        """Start it."""
        self._logs.mkdir()
        self._cri.wait_for_image(self._image)
        parent = f"/kubepods/burstable/pod{self._uid}"
        remains.note_cgroup(self._lab.id, parent)
        namespaces = api.NamespaceOption(network=_NODE, pid=self._pid_mode())
        metadata = {"name": "eni53-x7k2p", "uid": self._uid, "namespace": "kube-system"}
        config = api.PodSandboxConfig(
            metadata=api.PodSandboxMetadata(**metadata),
            log_directory=str(self._logs),
            dns_config=api.DNSConfig(servers=[vpc.RESOLVER]),
            labels={f"io.kubernetes.pod.{key}": value for key, value in metadata.items()},
            linux=api.LinuxPodSandboxConfig(
                cgroup_parent=parent,
                security_context=api.LinuxSandboxSecurityContext(
                    namespace_options=namespaces, privileged=self._privileged()
                ),
            ),
        )
        self.sandbox = self._cri.run_sandbox(config)
        wanted = self._wanted(namespaces, config.labels)
        self.id = self._cri.run_container(self.sandbox, wanted, config)
        return self

    def __exit__(self, *_: object) -> None:
        """End it, at once if it has not ended by then."""
        self._cri.remove_sandbox(self.sandbox)
        self._cri.close()

    def probe(self, which: str) -> str:
        """The URL that the kubelet asks: the pod's address unless the probe names another."""
        http = self._container[which]["httpGet"]
        port = {port["name"]: port["containerPort"] for port in self._container["ports"]}
        host = http.get("host", self._lab.enis[0].ipv4)
        return f"http://{host}:{port[http['port']]}{http['path']}"

    def run(self, *argv: str) -> tuple[int, str]:
        """``kubectl exec``: exit code and output."""
        request = api.ExecSyncRequest(container_id=self.id, cmd=list(argv), timeout=60)
        done = self._cri.call(self._cri.runtime.ExecSync, request, timeout=70)
        return done.exit_code, (done.stdout + done.stderr).decode()

    def mounted(self, place: str) -> list[tuple[str, str]]:
        """(type, source) of what the runtime was told to mount there."""
        spec = self._cri.container_info(self.id)["runtimeSpec"]
        return [(m["type"], m["source"]) for m in spec["mounts"] if m["destination"] == place]

    def stop(self) -> int:
        """SIGTERM, the grace of the manifest; its exit code."""
        grace = self._spec["terminationGracePeriodSeconds"]
        request = api.StopContainerRequest(container_id=self.id, timeout=grace)
        self._cri.call(self._cri.runtime.StopContainer, request, timeout=grace + 10)
        asked = api.ContainerStatusRequest(container_id=self.id)
        return int(self._cri.call(self._cri.runtime.ContainerStatus, asked).status.exit_code)

    def _privileged(self) -> bool:
        return bool(self._container["securityContext"]["privileged"])

    def _pid_mode(self) -> int:
        return _NODE if self._spec["hostPID"] else api.NamespaceMode.CONTAINER

    def _wanted(
        self, namespaces: api.NamespaceOption, labels: Mapping[str, str]
    ) -> api.ContainerConfig:
        container = self._container
        env = {"HOST_IP": self._lab.enis[0].ipv4, MARK: self._lab.id}
        env |= {row["name"]: row["value"] for row in container["env"] if "value" in row}
        return api.ContainerConfig(
            metadata=api.ContainerMetadata(name=container["name"]),
            image=api.ImageSpec(image=self._image),
            args=[arg.replace("$(HOST_IP)", env["HOST_IP"]) for arg in container["args"]],
            envs=[api.KeyValue(key=key, value=value) for key, value in env.items()],
            mounts=self._mounts(),
            labels={**labels, "io.kubernetes.container.name": container["name"]},
            log_path=self.log.name,
            linux=api.LinuxContainerConfig(
                security_context=self._security(namespaces),
                resources=api.LinuxContainerResources(
                    memory_limit_in_bytes=_bytes(container["resources"]["limits"]["memory"])
                ),
            ),
        )

    def _security(self, namespaces: api.NamespaceOption) -> api.LinuxContainerSecurityContext:
        security = self._container["securityContext"]
        capabilities = security.get("capabilities", {})
        profile = security.get("seccompProfile", {"type": "Unconfined"})["type"]
        return api.LinuxContainerSecurityContext(
            namespace_options=namespaces,
            privileged=security["privileged"],
            readonly_rootfs=security["readOnlyRootFilesystem"],
            run_as_user=api.Int64Value(value=security["runAsUser"]),
            run_as_group=api.Int64Value(value=security["runAsGroup"]),
            no_new_privs=not security.get("allowPrivilegeEscalation", True),
            capabilities=api.Capability(
                add_capabilities=capabilities.get("add", []),
                drop_capabilities=capabilities.get("drop", []),
            ),
            seccomp=api.SecurityProfile(
                profile_type=api.SecurityProfile.ProfileType.Value(profile)
            ),
        )

    def _mounts(self) -> list[api.Mount]:
        volumes = {volume["name"]: volume for volume in self._spec["volumes"]}
        mounts = []
        for mount in self._container["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "hostPath" not in volume:
                source = self._logs / mount["name"]
                source.mkdir()
                for name, text in (self._config_map if "configMap" in volume else {}).items():
                    (source / name).write_text(text)
            else:
                source = places(self._lab)[volume["hostPath"]["path"]]
            propagation = mount.get("mountPropagation") == "HostToContainer"
            mounts.append(
                api.Mount(
                    container_path=mount["mountPath"],
                    host_path=str(source),
                    readonly=mount.get("readOnly", False),
                    propagation=int(propagation),
                )
            )
        return mounts


def _bytes(quantity: str) -> int:
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]
