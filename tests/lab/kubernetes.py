"""The part of Lab that has to do with pods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from . import coredns, forwarder, load, network, nodelocal, vpc
from .lifecycle import Lifecycle
from .load import Sent
from .shell import LabError, environment, in_netns, run, sender

if TYPE_CHECKING:
    from .pods import Kubelet, Pod

_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


class Kubernetes(Lifecycle):
    """What a lab with ``pods=True`` offers besides."""

    @property
    def has_pods(self) -> bool:
        """Whether CRI answers on ``containerd_socket``."""
        return self._wants["pods"]

    @property
    def pods(self) -> list[Pod]:
        """Those that run, oldest first."""
        return list(self._kubelet_or_refuse().pods.values())

    def run_pod(
        self,
        name: str,
        namespace: str = "default",
        containers: Sequence[str] = ("app",),
        *,
        host_network: bool = False,
        eni: int = 0,
        command: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        capabilities: Sequence[str] = (),
    ) -> Pod:
        """Start a pod as a kubelet would, in the cgroup /kubepods/burstable/pod<uid>.

        Its address belongs to the ENI with device number *eni*, or is the node's with
        *host_network*. Each of *containers* runs *command*, or sleeps without one. *capabilities*
        are added to CRI's own: "NET_ADMIN".
        """
        from .pods import Wish  # noqa: PLC0415 - as in Lifecycle: only labs with pods pay for gRPC

        for text in (name, namespace, *containers):
            if not _DNS_NAME.fullmatch(text):
                raise LabError(f"not a Kubernetes name: {text!r}")
        wish = Wish(name, namespace, containers, host_network, command, labels or {}, capabilities)
        return self._kubelet_or_refuse().run(wish, self.enis[eni], self.enis[0])

    def start_nodelocal(self, name: str = "node-local-dns-x7k2p", *, cache: bool = True) -> Pod:
        """Start NodeLocal DNSCache on 169.254.20.10 and the cluster's DNS address.

        The pod is on the host network; its container, node-cache, asks 10.53.0.2 by TCP.
        """
        config = self.directory / f"share/{name}.conf"
        listen = (nodelocal.ADDRESS, vpc.CLUSTER_DNS)
        forwarder.write_config(config, listen=listen, tcp=True, cache=cache, rcvbuf="4m")
        nodelocal.set_up(self.node_ns)
        pod = self.run_pod(
            name,
            nodelocal.NAMESPACE,
            (nodelocal.CONTAINER,),
            host_network=True,
            command=forwarder.command(config),
            labels={"k8s-app": "node-local-dns"},
            # As the real one has, for its device and rules; here for the receive buffer.
            capabilities=("NET_ADMIN",),
        )
        self._wait_ready(pod, nodelocal.CONTAINER, nodelocal.ADDRESS)
        return pod

    def run_coredns_like(
        self, name: str = "coredns-57ff979f67-qqbdh", *, eni: int = 0, cache: bool = True
    ) -> Pod:
        """Start a DNS cache on port 53 of a pod of its own, which asks 10.53.0.2 by UDP.

        The cluster's DNS address, 172.20.0.10, leads to it and to those started before.
        """
        config = self.directory / f"share/{name}.conf"
        forwarder.write_config(config, listen=("0.0.0.0",), tcp=False, cache=cache)
        pod = self.run_pod(
            name,
            coredns.NAMESPACE,
            (coredns.CONTAINER,),
            eni=eni,
            command=forwarder.command(config),
            labels={"k8s-app": "kube-dns"},
        )
        self._wait_ready(pod, coredns.CONTAINER, pod.ipv4)
        serving = [other.ipv4 for other in self.pods if coredns.CONTAINER in other.containers]
        coredns.lead_to(self.node_ns, serving)
        return pod

    def remote_send(
        self,
        to: str,
        *args: str,
        mode: str = "udp",
        source: str = vpc.REMOTE_POD,
        timeout: float = 60,
    ) -> Sent:
        """Run the sender as a pod on another node: ``remote_send(pod.ipv4, "--count", "10")``.

        *source* is any address in 10.53.5.0/24. Each query has a name of its own unless ``--name``
        says otherwise.
        """
        network.batch(self.vpc_ns, [f"address replace {source}/32 dev vpc0"])
        argv = [*in_netns(self.vpc_ns), *sender(mode, "--to", to, "--source", source, *args)]
        return load.parse_sent(run(argv, env=environment(self.id), timeout=timeout).stdout)

    def _wait_ready(self, pod: Pod, container: str, address: str) -> None:
        log = self._kubelet_or_refuse().log(pod, container)
        forwarder.wait_ready(pod, pod.containers[container], address, log)

    def _kubelet_or_refuse(self) -> Kubelet:
        if self._kubelet is None:
            raise LabError("this lab has no pods: Lab(pods=True), inside its with block")
        return self._kubelet
