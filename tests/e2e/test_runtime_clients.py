"""The clients for containerd and CRI, against a real containerd: beside a kubelet's own client."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import grpc
import pytest
from cri_api.v1 import api_pb2 as api
from cri_api.v1 import api_pb2_grpc
from eni53.inventory.containerd import Containerd, TaskEvent, find_socket, kind
from eni53.inventory.cri import Cri, CriContainer, PodNetwork, PodSandbox
from eni53.inventory.grpc_unix import GrpcError
from eni53.inventory.names import pod_workload

from tests.lab.lab import Lab
from tests.lab.pods import Pod
from tests.lab.shell import run
from tests.lab.tally import until

NOWHERE = "0" * 64


@pytest.fixture(scope="module")
def pods() -> Iterator[Lab]:
    """A node whose containerd serves a kubelet."""
    with Lab(docker=False, resolver=False, imds=False, pods=True) as lab:
        yield lab


@pytest.fixture(scope="module")
def web(pods: Lab) -> Pod:
    """A pod with an address of its own and two containers."""
    return pods.run_pod("web-7d4b9c6f5-x2x7k", "shop", ("app", "sidecar"))


@pytest.fixture(scope="module")
def proxy(pods: Lab) -> Pod:
    """A pod on the node's network."""
    return pods.run_pod("kube-proxy-x1", "kube-system", ("proxy",), host_network=True)


@pytest.fixture
def cri(pods: Lab) -> Cri:
    """Ours."""
    return Cri(str(pods.containerd_socket))


@pytest.fixture
def containerd(pods: Lab) -> Containerd:
    """Ours."""
    return Containerd(str(pods.containerd_socket))


@pytest.fixture
def oracle(pods: Lab) -> Iterator[api_pb2_grpc.RuntimeServiceStub]:
    """Google's gRPC and Google's decoder."""
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"unix://{pods.containerd_socket}", options=options) as channel:
        yield api_pb2_grpc.RuntimeServiceStub(channel)


@contextlib.contextmanager
def followed(client: Containerd, *namespaces: str) -> Iterator[Queue[TaskEvent]]:
    """The events as they come in, from now on."""
    found: Queue[TaskEvent] = Queue()
    events = client.events(namespaces or ("k8s.io", "moby"))
    thread = threading.Thread(target=lambda: [found.put(event) for event in events])
    thread.start()
    try:
        yield found
    finally:
        client.close()
        thread.join(10)
        assert not thread.is_alive()


def test_pods_are_what_a_kubelet_sees(
    web: Pod, proxy: Pod, cri: Cri, oracle: api_pb2_grpc.RuntimeServiceStub
) -> None:
    """Every member of every pod, also of one that has ended and is still listed."""
    oracle.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=proxy.id))
    theirs = oracle.ListPodSandbox(api.ListPodSandboxRequest()).items
    expected = {
        PodSandbox(
            one.id,
            one.metadata.name,
            one.metadata.namespace,
            one.metadata.uid,
            one.state == api.SANDBOX_READY,
        )
        for one in theirs
    }
    found = cri.pods()

    assert set(found) == expected
    assert len(found) == len(theirs) == 2
    assert PodSandbox(web.id, web.name, "shop", web.uid, True) in found
    assert PodSandbox(proxy.id, proxy.name, "kube-system", proxy.uid, False) in found


def test_networks_are_what_a_kubelet_sees(
    pods: Lab, web: Pod, cri: Cri, oracle: api_pb2_grpc.RuntimeServiceStub
) -> None:
    """Address, namespace and process of a pod with its own network, and of one on the node's."""
    node = pods.run_pod("node-agent-1", "kube-system", host_network=True)
    for pod in (web, node):
        request = api.PodSandboxStatusRequest(pod_sandbox_id=pod.id, verbose=True)
        theirs = oracle.PodSandboxStatus(request)
        network = theirs.status.network
        options = theirs.status.linux.namespaces.options

        assert cri.pod_network(pod.id) == PodNetwork(
            tuple(ip for ip in (network.ip, *(one.ip for one in network.additional_ips)) if ip),
            options.network == api.NODE,
            json.loads(theirs.info["info"])["pid"],
        )
    assert cri.pod_network(web.id) == PodNetwork((web.ipv4,), False, web.pid)
    assert cri.pod_network(node.id) == PodNetwork((), True, node.pid)
    node.remove()

    assert cri.pod_network(node.id) is None


def test_containers_and_tasks_are_what_a_kubelet_sees(
    pods: Lab,
    web: Pod,
    cri: Cri,
    containerd: Containerd,
    oracle: api_pb2_grpc.RuntimeServiceStub,
) -> None:
    """CRI, containerd's own API and the kernel agree on every pid."""
    short = pods.run_pod("job-1", "shop", ("ended",), command=("/bin/true",))
    ended = short.containers["ended"].id
    status = api.ContainerStatusRequest(container_id=ended)
    assert until(lambda: oracle.ContainerStatus(status).status.state == api.CONTAINER_EXITED)
    theirs = oracle.ListContainers(api.ListContainersRequest()).containers
    states = {api.CONTAINER_CREATED: "created", api.CONTAINER_RUNNING: "running"}
    found = cri.containers()

    assert set(found) == {
        CriContainer(one.id, one.pod_sandbox_id, one.metadata.name, states[one.state])
        for one in theirs
        if one.state in states
    }
    assert len(theirs) > len(found)
    tasks = containerd.tasks("k8s.io")
    for name, container in web.containers.items():
        assert CriContainer(container.id, web.id, name, "running") in found
        assert cri.container_pid(container.id) == container.pid == tasks[container.id]
        request = api.ContainerStatusRequest(container_id=container.id, verbose=True)
        info = json.loads(oracle.ContainerStatus(request).info["info"])
        assert info["pid"] == container.pid
        assert container.cgroup in Path(f"/proc/{container.pid}/cgroup").read_text()
    assert tasks[web.id] == web.pid
    assert ended not in tasks
    assert cri.container_pid(ended) is None
    short.remove()

    assert cri.container_pid(ended) is None
    assert cri.container_pid(NOWHERE) is None


def test_tasks_are_what_ctr_sees(pods: Lab, web: Pod, containerd: Containerd) -> None:
    """containerd's own client is the oracle for containerd's own API."""
    ctr = ["ctr", "-a", str(pods.containerd_socket), "-n", "k8s.io"]
    lines = run([*ctr, "task", "ls"]).stdout.splitlines()[1:]
    listed = {line.split()[0]: int(line.split()[1]) for line in lines if "RUNNING" in line}

    assert containerd.tasks("k8s.io") == listed
    assert set(listed) >= {web.id, *(one.id for one in web.containers.values())}
    assert containerd.tasks("moby") == {}
    assert containerd.tasks("nowhere") == {}
    version = run([*ctr, "version"]).stdout.rpartition("Version:")[2].split()[0]
    assert containerd.version() == version


def test_labels_are_what_ctr_sees_and_name_the_pod(
    pods: Lab, web: Pod, containerd: Containerd
) -> None:
    """A task seen by its event alone becomes the pod it belongs to, whole spec skipped."""
    ctr = ["ctr", "-a", str(pods.containerd_socket), "-n", "k8s.io", "containers", "info"]
    sidecar = web.containers["sidecar"]
    for container_id in (web.id, sidecar.id):
        theirs = json.loads(run([*ctr, container_id]).stdout)["Labels"]
        assert containerd.container_labels("k8s.io", container_id) == theirs
    ours = containerd.container_labels("k8s.io", sidecar.id) or {}

    assert kind(ours) == "container"
    assert kind(containerd.container_labels("k8s.io", web.id) or {}) == "sandbox"
    names = [ours[f"io.kubernetes.{key}"] for key in ("pod.namespace", "pod.name")]
    found = pod_workload(*names, ours["io.kubernetes.container.name"])
    assert (found.namespace, found.workload, found.container) == ("shop", web.name, "sidecar")
    assert containerd.container_labels("k8s.io", NOWHERE) is None
    assert containerd.container_labels("moby", web.id) is None


def test_a_pods_life_comes_as_events(pods: Lab, containerd: Containerd) -> None:
    """Create, start, exit and delete of sandbox and container, and nothing of what is exec'ed."""
    with followed(containerd) as events:
        pod = pods.run_pod("short-1", "shop", ("app",))
        app = pod.containers["app"]
        app.exec(["/bin/true"])
        pod.remove()
        found: list[TaskEvent] = []
        while TaskEvent("k8s.io", "delete", pod.id, pod.pid) not in found:
            found.append(events.get(timeout=20))
    lives = {
        one: [event for event in found if event.id == one and event.pid == pid]
        for one, pid in ((pod.id, pod.pid), (app.id, app.pid))
    }

    assert sum(map(len, lives.values())) == len(found)
    for one, life in lives.items():
        topics = [event.topic for event in life]
        assert topics[:2] == ["create", "start"], one
        assert sorted(topics[2:]) == ["delete", "exit"], one
        assert {event.namespace for event in life} == {"k8s.io"}


def test_a_tasks_create_comes_while_its_network_is_there(pods: Lab, containerd: Containerd) -> None:
    """The process of a create event can be looked at: that is what the event is for."""
    with followed(containerd, "k8s.io") as events:
        pod = pods.run_pod("early-1", "shop", ("app",))
        first = events.get(timeout=20)
        pod.remove()

    assert (first.topic, first.id, first.pid) == ("create", pod.id, pod.pid)


def test_events_of_other_namespaces_stay_away(pods: Lab, containerd: Containerd) -> None:
    """A subscription for Docker's containers hears nothing of pods."""
    with followed(containerd, "moby") as events:
        pods.run_pod("elsewhere-1", "shop", ("app",)).remove()

        assert events.empty()


def test_a_containerd_without_cri_says_so(lab: Lab) -> None:
    """dockerd's containerd in the other lab: UNIMPLEMENTED, and Docker's tasks in ``moby``."""
    socket = find_socket(["/nowhere", str(lab.containerd_socket)])
    assert socket == str(lab.containerd_socket)
    with pytest.raises(GrpcError) as caught:
        Cri(socket).pods()

    assert caught.value.status == 12
    client = Containerd(socket)
    with followed(client) as events:
        one = lab.run_container("seen-by-containerd")
        first = events.get(timeout=20)
        assert first == TaskEvent("moby", "create", one.id, one.pid)
        assert Containerd(socket).tasks("moby")[one.id] == one.pid
        assert Containerd(socket).container_labels("moby", one.id) is not None
        one.remove()
