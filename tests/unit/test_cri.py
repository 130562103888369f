"""The CRI client: Google's encoder on a real HTTP/2 server, and answers nobody should give."""

import json
import random
import secrets
import tracemalloc

import pytest
from cri_api.v1 import api_pb2 as api
from eni53.errors import SourceError
from eni53.inventory.cri import Cri, CriContainer, PodNetwork, PodSandbox
from eni53.inventory.grpc_unix import GrpcError
from eni53.inventory.names import pod_workload
from eni53.inventory.protobuf import encode_bytes
from eni53.model import Workload

from tests.fixtures.grpc_server import GrpcServer, answer, entry, refuse

SERVICE = "/runtime.v1.RuntimeService/"
POD, CONTAINER = "7350da" + "0" * 58, "8982d7" + "0" * 58
SEED = secrets.randbits(32)


@pytest.fixture
def path(tmp_path):
    """Where the runtime's socket goes."""
    return tmp_path / "cri.sock"


def asked(path, method, message, call):
    """What a call makes of one answer, as Google's encoder or we wrote it."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with GrpcServer(path, {SERVICE + method: answer(data)}):
        return call(Cri(str(path)))


def sandbox(**more):
    """A pod as ListPodSandbox has it."""
    name = api.PodSandboxMetadata(name="web-1", uid="2b9b3f6e", namespace="shop", attempt=3)
    labels = {"io.kubernetes.pod.name": "web-1", "app": "web"}
    return api.PodSandbox(
        id=POD, metadata=name, created_at=1795224983095448185, labels=labels, **more
    )


def status(info=None, **more):
    """A pod's verbose status."""
    texts = {} if info is None else {"other": "x", "info": info}
    return api.PodSandboxStatusResponse(status=api.PodSandboxStatus(id=POD, **more), info=texts)


def network_of(path, answered):
    """What `pod_network` makes of a status."""
    return asked(path, "PodSandboxStatus", answered, lambda cri: cri.pod_network(POD))


def pid_of(path, info):
    """What `container_pid` makes of an info text."""
    answered = api.ContainerStatusResponse(info={"info": info})
    return asked(path, "ContainerStatus", answered, lambda cri: cri.container_pid(CONTAINER))


def test_pods_are_read_whole(path):
    """Ready ones and those that have ended."""
    listed = api.ListPodSandboxResponse(
        items=[sandbox(), sandbox(state=api.SANDBOX_NOTREADY, annotations={"a": "b"})]
    )
    ready = PodSandbox(POD, "web-1", "shop", "2b9b3f6e", True)
    ended = PodSandbox(POD, "web-1", "shop", "2b9b3f6e", False)
    assert asked(path, "ListPodSandbox", listed, Cri.pods) == (ready, ended)


def test_containers_that_live_are_read_whole(path):
    """What has exited has no process to find."""
    listed = api.ListContainersResponse(
        containers=[
            api.Container(
                id=f"{state}{CONTAINER}",
                pod_sandbox_id=POD,
                metadata=api.ContainerMetadata(name="app", attempt=1),
                image=api.ImageSpec(image="shop:1"),
                image_ref="sha256:0",
                state=state,
                labels={"io.kubernetes.container.name": "app"},
            )
            for state in range(4)
        ]
    )
    assert asked(path, "ListContainers", listed, Cri.containers) == (
        CriContainer(f"0{CONTAINER}", POD, "app", "created"),
        CriContainer(f"1{CONTAINER}", POD, "app", "running"),
    )


def test_an_empty_node_has_no_pods(path):
    """No pod is an answer, unlike no runtime."""
    assert asked(path, "ListPodSandbox", b"", Cri.pods) == ()
    path.unlink()
    assert asked(path, "ListContainers", b"", Cri.containers) == ()


def test_a_pods_network_is_read_whole(path):
    """Both families, and the process that holds the namespace."""
    more = [api.PodIP(ip="FD00::3"), api.PodIP(ip="")]
    own = api.NamespaceOption(network=api.POD, pid=api.CONTAINER)
    found = network_of(
        path,
        status(
            json.dumps({"pid": 21272, "config": {"pid": 5}, "runtimeSpec": {"x": [{"pid": 6}]}}),
            network=api.PodSandboxNetworkStatus(ip="10.244.7.3", additional_ips=more),
            linux=api.LinuxPodSandboxStatus(namespaces=api.Namespace(options=own)),
            labels={"a": "b"},
        ),
    )
    assert found == PodNetwork(("10.244.7.3", "fd00::3"), False, 21272)


def test_a_pod_on_the_hosts_network_has_no_address(path):
    """Its packets are the node's own."""
    node = api.Namespace(options=api.NamespaceOption(network=api.NODE, pid=api.POD))
    found = network_of(path, status('{"pid": 7}', linux=api.LinuxPodSandboxStatus(namespaces=node)))
    assert found == PodNetwork((), True, 7)


def test_verbose_is_asked_for_with_the_id(path):
    """Without it there is no pid."""
    methods = {f"{SERVICE}{name}": answer(b"") for name in ("PodSandboxStatus", "ContainerStatus")}
    with GrpcServer(path, methods) as server:
        Cri(str(path)).pod_network(POD)
        Cri(str(path)).container_pid(CONTAINER)
    pod = api.PodSandboxStatusRequest.FromString(bytes(server.requests[0].data[5:]))
    container = api.ContainerStatusRequest.FromString(bytes(server.requests[1].data[5:]))
    assert (pod.pod_sandbox_id, pod.verbose) == (POD, True)
    assert (container.container_id, container.verbose) == (CONTAINER, True)


def test_what_ended_meanwhile_is_absent(path):
    """Between the list and the status a pod may go: that is no failure."""
    with GrpcServer(path, {}) as server:
        server.answers = {
            f"{SERVICE}PodSandboxStatus": refuse(5, "not found"),
            f"{SERVICE}ContainerStatus": refuse(5, "not found"),
        }
        assert Cri(str(path)).pod_network(POD) is None
        assert Cri(str(path)).container_pid(CONTAINER) is None


def test_a_containerd_without_cri_is_status_12(path):
    """dockerd's own: the caller stops asking."""
    with GrpcServer(path, {}), pytest.raises(GrpcError) as caught:
        Cri(str(path)).pods()
    assert caught.value.status == 12
    assert str(caught.value) == f"CRI at {path}: unknown method (gRPC status 12)"
    path.unlink()
    with GrpcServer(path, {f"{SERVICE}ContainerStatus": refuse(2)}), pytest.raises(GrpcError):
        Cri(str(path)).container_pid(CONTAINER)


@pytest.mark.parametrize(
    ("info", "pid"),
    [
        ('{"sandboxID":"x","pid":21310,"config":{"envs":[{"key":"pid","value":"1"}]}}', 21310),
        ('{"pid": 0}', None), ('{"pid": -5}', None), ('{"pid": true}', None),
        ('{"pid": "7"}', None), ('{"pid": 7.0}', None), ('{"pid": {"pid": 7}}', None),
        ('{"config": {"pid": 7}}', None), ("[7]", None), ('[{"pid": 7}]', None), ("7", None),
        ("true", None), ("", None), ("{", None), ("[" * 100_000, None), ("9" * 5000, None),
    ],
    ids=range(16),
)  # fmt: skip
def test_the_pid_is_the_runtimes_or_unknown(path, info, pid):
    """Only where the runtime puts it; a pod's author writes other parts of that text."""
    assert pid_of(path, info) == pid


def test_an_info_text_that_is_huge_is_unknown(path):
    """One pod with megabytes of variables costs its own name and not the agent's memory."""
    assert pid_of(path, '{"pid": 7, "x": "' + "y" * 3_000_000 + '"}') == 7
    path.unlink()
    assert pid_of(path, '{"pid": 7, "x": "' + "y" * 5_000_000 + '"}') is None


def test_the_info_text_is_found_among_others(path):
    """CRI does not say in which order they come, nor how many there are."""
    others = [encode_bytes(2, entry(f"a{number}", '{"pid": 9}')) for number in range(100)]
    data = b"".join([*others, encode_bytes(2, entry("info", '{"pid": 7}')), *others])
    assert asked(path, "ContainerStatus", data, lambda cri: cri.container_pid(CONTAINER)) == 7


def test_what_a_pods_author_puts_into_info_costs_no_memory(path):
    """Eighty thousand variables are 3 MiB of text, and would be ten times that as objects."""
    variables = [{"key": f"K{number}", "value": str(number)} for number in range(80_000)]
    info = json.dumps({"pid": 7, "config": {"envs": variables}})
    answered = api.ContainerStatusResponse(info={"info": info}).SerializeToString()
    assert 2_500_000 < len(answered) < 4_000_000
    with GrpcServer(path, {f"{SERVICE}ContainerStatus": answer(answered)}):
        del variables, info
        tracemalloc.start()
        assert Cri(str(path)).container_pid(CONTAINER) == 7
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 9 * len(answered)


def test_texts_are_bounded_and_kept_as_they_are(path):
    """A pod may be called anything; what is shown is cleaned when it becomes a workload."""
    name = api.PodSandboxMetadata(name="\x1b[2J" + "n" * 5000, namespace="n" * 5000)
    listed = api.ListPodSandboxResponse(items=[api.PodSandbox(id=POD, metadata=name)])
    (found,) = asked(path, "ListPodSandbox", listed, Cri.pods)
    assert (found.name, found.namespace) == ("\x1b[2J" + "n" * 1020, "n" * 1024)
    assert pod_workload("shop\x1b", "web", "app\u202e") == Workload(
        "pod", namespace="shop\\x1b", workload="web", container="app\\u202e"
    )
    assert pod_workload("shop", "w" * 300).workload == "w" * 255 + "…"
    assert pod_workload("shop", "web").container == ""


def test_a_pod_with_thousands_of_annotations_does_not_hide_the_others(path):
    """256 KiB of them are allowed, and everybody may."""
    many = {str(number): "" for number in range(30_000)}
    listed = api.ListPodSandboxResponse(
        items=[sandbox(annotations=many), sandbox(state=api.SANDBOX_NOTREADY)]
    )
    assert [pod.ready for pod in asked(path, "ListPodSandbox", listed, Cri.pods)] == [True, False]


@pytest.mark.parametrize(
    ("method", "data", "call"),
    [
        ("ListPodSandbox", b"\x0a\x05x", Cri.pods),
        ("ListPodSandbox", b"\x08\x05", Cri.pods),
        ("ListPodSandbox", b"\x0a\x00", Cri.pods),
        ("ListPodSandbox", api.ListPodSandboxResponse(items=[api.PodSandbox(id="")]), Cri.pods),
        ("ListContainers", b"\x0a\x02\x08\x01", Cri.containers),
        ("ListContainers", b"<html>", Cri.containers),
        ("PodSandboxStatus", b"\x08\x01", lambda cri: cri.pod_network(POD)),
        ("PodSandboxStatus", status(network=api.PodSandboxNetworkStatus(ip="x\x1b[2J")),
         lambda cri: cri.pod_network(POD)),
        ("ContainerStatus", b"\x12\x01x", lambda cri: cri.container_pid(CONTAINER)),
    ],
    ids=range(9),
)  # fmt: skip
def test_an_answer_of_another_shape_is_one_line(path, method, data, call):
    """What is not CRI's list is not taken for an empty node."""
    with pytest.raises(SourceError) as caught:
        asked(path, method, data, call)
    line = str(caught.value)
    assert line.startswith(f"CRI at {path}: what answers is not CRI: ")
    assert line.isprintable()
    assert len(line) < 400


def test_random_answers_are_values_or_one_line(path):
    """Good answers with bytes changed, and bytes that were never an answer."""
    print("seed", SEED)
    rng = random.Random(SEED)
    pods = api.ListPodSandboxResponse(items=[sandbox()] * 3).SerializeToString()
    networks = status('{"pid": 7}', network=api.PodSandboxNetworkStatus(ip="10.0.0.1"))
    good = [pods, networks.SerializeToString(), b""]

    def some(_request):
        data = bytearray(rng.choice(good) or rng.randbytes(30))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return answer(bytes(data))

    names = ("ListPodSandbox", "ListContainers", "PodSandboxStatus", "ContainerStatus")
    with GrpcServer(path, {SERVICE + name: some for name in names}):
        cri = Cri(str(path))
        refused = 0
        for _ in range(150):
            for call in (
                cri.pods,
                cri.containers,
                lambda: cri.pod_network(POD),
                lambda: cri.container_pid(CONTAINER),
            ):
                try:
                    call()
                except SourceError as error:
                    refused += 1
                    assert str(error).isprintable()
    assert 0 < refused < 600


def test_close_ends_all_calls(path):
    """An agent that stops."""
    with GrpcServer(path, {}):
        cri = Cri(str(path))
        cri.close()
        with pytest.raises(SourceError, match="closed"):
            cri.pods()
