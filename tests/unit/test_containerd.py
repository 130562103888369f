"""The containerd client: answers as its public definitions say, on a real HTTP/2 server."""

import random
import secrets
import socket
import threading

import pytest
from eni53.errors import SourceError
from eni53.inventory import containerd
from eni53.inventory.containerd import Containerd, TaskEvent, find_socket
from eni53.inventory.grpc_unix import GrpcError
from eni53.inventory.protobuf import decode, encode_bytes, encode_number, encode_text

from tests.fixtures.grpc_server import Answer, GrpcServer, answer, entry, framed, refuse

ID = "598cba581fe3" + "0" * 52
VERSION = "/containerd.services.version.v1.Version/Version"
LIST = "/containerd.services.tasks.v1.Tasks/List"
GET = "/containerd.services.containers.v1.Containers/Get"
SUBSCRIBE = "/containerd.services.events.v1.Events/Subscribe"
SEED = secrets.randbits(32)


@pytest.fixture
def path(tmp_path):
    """Where the daemon's socket goes."""
    return tmp_path / "containerd.sock"


def process(container_id, pid, status):
    """One entry of the task list, as containerd writes it: field 1 stays empty."""
    return encode_bytes(
        1, encode_text(2, container_id) + encode_number(3, pid) + encode_number(4, status)
    )


def envelope(topic, event, namespace="k8s.io"):
    """An event in its envelope."""
    url = encode_text(1, "containerd.events.TaskCreate") + encode_bytes(2, event)
    time = encode_bytes(1, encode_number(1, 1795224983) + encode_number(2, 95448185))
    return time + encode_text(2, namespace) + encode_text(3, topic) + encode_bytes(4, url)


def create(container_id=ID, pid=42):
    """A task's beginning: bundle and rootfs are in between."""
    event = encode_text(1, container_id) + encode_text(2, "/run/bundle") + encode_bytes(3, b"")
    return envelope("/tasks/create", event + encode_number(6, pid))


def exit_of(process_id, pid=42):
    """The end of one of its processes."""
    event = encode_text(1, ID) + encode_text(2, process_id) + encode_number(3, pid)
    return envelope("/tasks/exit", event + encode_number(4, 137))


def refusal(call):
    """The one line *call* fails with."""
    with pytest.raises(SourceError) as caught:
        call()
    line = str(caught.value)
    assert line.startswith("containerd at ")
    assert line.isprintable()
    assert len(line) < 400
    return line


def test_version_is_the_daemons(path):
    """`check` shows which containerd it speaks to."""
    found = answer(encode_text(1, "1.6.20~ds1\x1b") + encode_text(2, "1.6.20~ds1-1+deb12u3"))
    with GrpcServer(path, {VERSION: found}):
        assert Containerd(str(path)).version() == "1.6.20~ds1\\x1b"


def test_tasks_that_live_have_their_pid(path):
    """Unknown and stopped ones have no process to look at; a paused one still has its network."""
    tasks = b"".join(process(f"{status}", 100 + status, status) for status in range(7))
    with GrpcServer(path, {LIST: answer(tasks + process("no pid", 0, 2))}) as server:
        found = Containerd(str(path)).tasks("moby")
    assert found == {"1": 101, "2": 102, "4": 104, "5": 105}
    assert server.requests[0].headers["containerd-namespace"] == "moby"


def test_a_namespace_without_tasks_is_empty(path):
    """No task is an answer, unlike no containerd."""
    with GrpcServer(path, {LIST: answer(b"")}):
        assert Containerd(str(path)).tasks("k8s.io") == {}


def container(*labels):
    """The answer of Containers/Get, its spec included."""
    spec = encode_bytes(5, encode_text(1, "types.containerd.io/spec") + encode_bytes(2, b"{" * 99))
    entries = b"".join(encode_bytes(2, label) for label in labels)
    return answer(
        encode_bytes(1, encode_text(1, ID) + spec + entries + encode_text(3, "busybox:1"))
    )


def test_labels_are_read_and_the_kind_is_among_them(path):
    """A pod's sandbox and its containers are told apart by containerd's own label."""
    found = container(entry("io.cri-containerd.kind", "sandbox"), entry("a", "\x1b"))
    with GrpcServer(path, {GET: found}) as server:
        labels = Containerd(str(path)).container_labels("k8s.io", ID)
    assert labels == {"io.cri-containerd.kind": "sandbox", "a": "\x1b"}
    assert containerd.kind(labels) == "sandbox"
    assert containerd.kind({"io.cri-containerd.kind": "container"}) == "container"
    assert containerd.kind({"io.cri-containerd.kind": "x"}) == containerd.kind({}) == ""
    assert server.requests[0].headers["containerd-namespace"] == "k8s.io"
    assert decode(bytes(server.requests[0].data[5:])) == {1: [ID.encode()]}


def test_labels_are_bounded_and_ours_are_kept(path):
    """A container cannot shed its pod's name by having a thousand labels of its own."""
    many = [entry(f"a{n}", "x" * 5000) for n in range(1000)]
    ours = [entry("io.kubernetes.pod.name", "web"), entry("io.cri-containerd.kind", "container")]
    with GrpcServer(path, {GET: container(*many, *ours)}):
        labels = Containerd(str(path)).container_labels("k8s.io", ID)
    assert (labels["io.kubernetes.pod.name"], containerd.kind(labels)) == ("web", "container")
    assert (len(labels), max(map(len, labels.values()))) == (64, 1024)


def test_a_container_that_is_gone_is_absent(path):
    """It ended while its event was on the way."""
    with GrpcServer(path, {GET: refuse(5, "container not found")}):
        assert Containerd(str(path)).container_labels("k8s.io", ID) is None
    path.unlink()
    with GrpcServer(path, {GET: refuse(7)}), pytest.raises(GrpcError, match="gRPC status 7"):
        Containerd(str(path)).container_labels("k8s.io", ID)


def test_events_are_asked_for_by_namespace_and_topic(path):
    """Other clients' namespaces, images and snapshots are none of our business."""
    with GrpcServer(path, {SUBSCRIBE: Answer(hold=True)}) as server:
        Containerd(str(path)).events().close()
        Containerd(str(path)).events(["moby"]).close()
    asked = [decode(bytes(request.data[5:])) for request in server.requests]
    assert asked[0] == {
        1: [b'namespace=="k8s.io",topic~="^/tasks/"', b'namespace=="moby",topic~="^/tasks/"']
    }
    assert asked[1] == {1: [b'namespace=="moby",topic~="^/tasks/"']}


def test_events_arrive_in_order_and_others_are_skipped(path):
    """What happens to a container's first process; each event has its pid elsewhere."""
    pair = encode_text(1, ID) + encode_number(2, 42)
    sent = [
        create(),
        envelope("/tasks/start", pair, "moby"),
        envelope("/tasks/exec-added", encode_text(1, ID) + encode_text(2, "probe")),
        envelope("/tasks/exec-started", encode_text(1, ID) + encode_text(2, "probe")),
        exit_of("probe", 43),
        envelope("/tasks/delete", pair + encode_text(5, "probe")),
        envelope("/tasks/oom", encode_text(1, ID)),
        envelope("/containers/create", encode_text(1, ID)),
        exit_of(ID),
        exit_of(""),
        envelope("/tasks/delete", pair + encode_number(3, 137)),
        envelope("/tasks/delete", pair + encode_text(5, ID)),
    ]
    with GrpcServer(path, {SUBSCRIBE: Answer(b"".join(map(framed, sent)), hold=True)}):
        events = Containerd(str(path)).events()
        found = [next(events) for _ in range(6)]
        events.close()
    assert found == [
        TaskEvent("k8s.io", "create", ID, 42),
        TaskEvent("moby", "start", ID, 42),
        TaskEvent("k8s.io", "exit", ID, 42),
        TaskEvent("k8s.io", "exit", ID, 42),
        TaskEvent("k8s.io", "delete", ID, 42),
        TaskEvent("k8s.io", "delete", ID, 42),
    ]


def test_close_wakes_the_events(path):
    """An agent that stops; and after that there are none."""
    with GrpcServer(path, {SUBSCRIBE: Answer(framed(create()), hold=True)}):
        client, seen = Containerd(str(path)), []
        events = client.events()
        first = threading.Event()

        def follow():
            for event in events:
                seen.append(event)
                first.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert first.wait(5)
        client.close()
        thread.join(5)
        assert thread.is_alive() is False
        assert list(client.events()) == []
    assert [event.topic for event in seen] == ["create"]


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "the stream ended"),
        (b"\xff", "not containerd"),
        (envelope("/tasks/create", encode_number(6, 1)), "an event without an id"),
        (envelope("/tasks/exit", encode_text(1, ID) + encode_number(2, 1)), "field 2 is a number"),
        (envelope("/tasks/start", encode_text(1, ID) + encode_text(2, "1")), "field 2 is no num"),
    ],
    ids=range(5),
)
def test_a_stream_that_ends_or_breaks_is_an_error_after_its_events(path, sent, says):
    """When containerd restarts, the caller must know: silence would look like a quiet node."""
    found = Answer(framed(create()) + (framed(sent) if sent else b""), hold=bool(sent))
    with GrpcServer(path, {SUBSCRIBE: found}) as server:
        events = Containerd(str(path)).events()
        assert next(events).id == ID
        assert says in refusal(lambda: next(events))
        assert server.gone.wait(5)


def test_a_stream_that_is_refused_is_an_error(path):
    """Something else than containerd has that socket."""
    with GrpcServer(path, {}):
        assert "gRPC status 12" in refusal(lambda: next(Containerd(str(path)).events()))


@pytest.mark.parametrize(
    ("method", "data", "call"),
    [
        (VERSION, b"\x08\x01", Containerd.version),
        (LIST, b"<html>", lambda client: client.tasks("moby")),
        (LIST, process("", 5, 2), lambda client: client.tasks("moby")),
        (LIST, b"\x08\x01", lambda client: client.tasks("moby")),
        (GET, b"\x0a\x02\x12\x09", lambda client: client.container_labels("moby", ID)),
        (GET, b"\x0a\x02\x10\x01", lambda client: client.container_labels("moby", ID)),
    ],
    ids=range(6),
)
def test_an_answer_of_another_shape_is_one_line(path, method, data, call):
    """What is not containerd's list is not taken for an empty node."""
    with GrpcServer(path, {method: answer(data)}):
        assert "what answers is not containerd: " in refusal(lambda: call(Containerd(str(path))))


def test_random_events_are_events_or_one_line(path):
    """Good events with bytes changed."""
    print("seed", SEED)
    rng = random.Random(SEED)

    def some(_request):
        sent = []
        for _ in range(20):
            data = bytearray(rng.choice([create(), exit_of(ID), exit_of("probe")]))
            if rng.randrange(4) == 0:
                data[rng.randrange(len(data))] = rng.randrange(256)
            sent.append(framed(bytes(data)))
        return Answer(b"".join(sent))

    seen = 0
    with GrpcServer(path, {SUBSCRIBE: some}):
        for _ in range(100):
            try:
                for event in Containerd(str(path)).events():
                    assert event.topic in {"create", "start", "exit", "delete"}
                    seen += 1
            except SourceError as error:
                assert str(error).isprintable()
    assert seen > 100


def test_the_first_socket_is_found(tmp_path):
    """A file, a link to nowhere and a bad path are none; the rest of the list is tried."""
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    bad = [str(tmp_path / name) for name in ("absent", "file", "loop", "file/x")] + ["/a\0b", ""]
    assert find_socket(bad) is None
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.bind(str(tmp_path / "one"))
        two.bind(str(tmp_path / "two"))
        (tmp_path / "link").symlink_to("one")
        assert find_socket([*bad, str(tmp_path / "link"), str(tmp_path / "two")]) == str(
            tmp_path / "link"
        )
