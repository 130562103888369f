"""The kubelet's side of CRI: asks containerd for sandboxes and containers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as api
from cri_api.v1 import api_pb2_grpc

from .shell import LabError

__all__ = ["Cri", "api"]
_TIMEOUT_S = 30.0


class Cri:
    """One connection. Every refusal is a LabError with containerd's words."""

    def __init__(self, socket: Path) -> None:
        # A proxy of the caller's has no say over a socket of this machine.
        options = [("grpc.enable_http_proxy", 0)]
        self._channel = grpc.insecure_channel(f"unix://{socket}", options=options)
        self.runtime = api_pb2_grpc.RuntimeServiceStub(self._channel)
        self._images = api_pb2_grpc.ImageServiceStub(self._channel)

    def call(self, what: Callable[..., Any], request: Any, timeout: float = _TIMEOUT_S) -> Any:
        """Ask one thing of ``runtime``; the answer."""
        try:
            return what(request, timeout=timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            raise LabError(f"CRI {type(request).__name__}: {refusal(error)}") from error

    def wait_for_image(self, name: str) -> None:
        """Return when CRI knows an image that was imported: it learns of them by events."""
        request = api.ImageStatusRequest(image=api.ImageSpec(image=name))
        deadline = time.monotonic() + _TIMEOUT_S
        while not self.call(self._images.ImageStatus, request).image.id:
            if time.monotonic() > deadline:
                raise LabError(f"CRI does not see the image {name}")
            time.sleep(0.01)

    def run_sandbox(self, config: api.PodSandboxConfig) -> str:
        """Start a sandbox; its id."""
        request = api.RunPodSandboxRequest(config=config)
        return str(self.call(self.runtime.RunPodSandbox, request).pod_sandbox_id)

    def run_container(
        self, sandbox: str, config: api.ContainerConfig, in_sandbox: api.PodSandboxConfig
    ) -> str:
        """Create and start a container; its id."""
        create = api.CreateContainerRequest(
            pod_sandbox_id=sandbox, config=config, sandbox_config=in_sandbox
        )
        new = str(self.call(self.runtime.CreateContainer, create).container_id)
        self.call(self.runtime.StartContainer, api.StartContainerRequest(container_id=new))
        return new

    def sandbox_status(self, sandbox: str) -> tuple[api.PodSandboxStatus, dict[str, Any]]:
        """What it is, and what only containerd says of it: "pid", "runtimeSpec", "cniResult"."""
        request = api.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True)
        answer = self.call(self.runtime.PodSandboxStatus, request)
        return answer.status, json.loads(answer.info["info"])

    def container_info(self, container: str) -> dict[str, Any]:
        """What only containerd says of it: "pid", "runtimeSpec", ..."""
        request = api.ContainerStatusRequest(container_id=container, verbose=True)
        answer = self.call(self.runtime.ContainerStatus, request)
        info: dict[str, Any] = json.loads(answer.info["info"])
        return info

    def stop_container(self, container: str) -> None:
        """End and delete a container, at once."""
        stop = api.StopContainerRequest(container_id=container, timeout=0)
        self.call(self.runtime.StopContainer, stop)
        remove = api.RemoveContainerRequest(container_id=container)
        self.call(self.runtime.RemoveContainer, remove)

    def remove_sandbox(self, sandbox: str) -> None:
        """End and delete a sandbox and its containers, at once."""
        stop = api.StopPodSandboxRequest(pod_sandbox_id=sandbox)
        self.call(self.runtime.StopPodSandbox, stop)
        remove = api.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
        self.call(self.runtime.RemovePodSandbox, remove)

    def sandboxes(self) -> list[str]:
        """The ids of all there are."""
        listed = self.call(self.runtime.ListPodSandbox, api.ListPodSandboxRequest())
        return [item.id for item in listed.items]

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


def refusal(error: grpc.RpcError) -> str:
    """The words of an error: its code and what the daemon said."""
    if isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return str(error)
