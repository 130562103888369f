"""The Docker client, against real servers on a unix socket that behave, or do not."""

import contextlib
import json
import os
import socket
import threading
from pathlib import Path

import pytest
from eni53.errors import SourceError
from eni53.inventory.docker import DockerClient, DockerContainer, DockerEvent

ID = "598cba581fe3" + "0" * 52
PAUSE = {
    "Id": ID,
    "Name": "/ecs-curltest-26-internalecspause-e292d586b6f9dade4a00",
    "State": {"Pid": 4242, "Running": True, "Status": "running"},
    "HostConfig": {"NetworkMode": "none", "CgroupParent": "ecstasks-158d.slice"},
    "Config": {"Labels": {"com.amazonaws.ecs.container-name": "~internal~ecs~pause"}},
    "NetworkSettings": {"SandboxKey": "/var/run/docker/netns/598cba581fe3", "Networks": {}},
}
EVENTS = b"GET /events?filters=%7B%22type%22%3A%20%5B%22container%22%5D%2C%20%22event%22%3A%20%5B"


class Daemon:
    """A unix socket that answers each request line's path with given bytes, one a connection."""

    def __init__(self, path: Path, answers: dict[str, bytes | list[bytes]], hold=False) -> None:
        self.path, self.answers, self.hold = str(path), answers, hold
        self.requests: list[bytes] = []
        self.ended = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> "Daemon":
        self.spawn(self.accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.listener.close()

    def spawn(self, work, *arguments) -> None:
        """Run *work* in a thread that is joined at the end."""
        thread = threading.Thread(target=work, args=arguments)
        self.threads.append(thread)
        thread.start()

    def accept(self) -> None:
        """Serve each connection in a thread of its own."""
        with contextlib.suppress(OSError):
            while True:
                self.spawn(self.serve, self.listener.accept()[0])

    def serve(self, peer: socket.socket) -> None:
        """Read one request, answer it, then hold on or close."""
        with peer, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                piece = peer.recv(65536)
                if not piece:
                    return
                request += piece
            self.requests.append(request)
            path = request.split()[1].decode().partition("?")[0]
            answer = self.answers.get(path, reply({"message": "no such thing"}, "404 Not Found"))
            for piece in [answer] if isinstance(answer, bytes) else answer:
                if piece == ENDLESS:
                    while True:
                        peer.sendall(b"x" * 65536)
                peer.sendall(piece)
            if self.hold:
                self.ended.wait(10)


ENDLESS = b"<endless>"


def reply(value: object, status: str = "200 OK") -> bytes:
    """One whole answer."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def stream(*chunks: bytes, end: bool = False) -> bytes:
    """A chunked answer that goes on, or ends."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + body + (b"0\r\n\r\n" if end else b"")


def event(action: str, kind: str = "container", container_id: str = ID) -> bytes:
    """One line of the event stream."""
    actor = {"ID": container_id, "Attributes": {"name": "web"}}
    facts = {"Type": kind, "Action": action, "Actor": actor, "time": 1, "timeNano": 1}
    return json.dumps(facts).encode() + b"\n"


def happened(action: str) -> DockerEvent:
    """What such a line tells: also the name, for one that is gone before it can be inspected."""
    about = DockerContainer(
        ID, "web", None, "", {"name": "web"}, "", (), started=action == "start"
    )  # fmt: skip
    return DockerEvent(action, ID, about)


def refusal(call) -> str:
    """The one line *call* fails with."""
    with pytest.raises(SourceError) as caught:
        call()
    line = str(caught.value)
    assert line.startswith("Docker at ")
    assert line.isprintable()
    assert len(line) < 400
    return line


@pytest.fixture
def path(tmp_path):
    """Where the daemon's socket goes."""
    return tmp_path / "docker.sock"


def inspected(path: Path, facts: object) -> DockerContainer:
    """What the client makes of *facts*."""
    with Daemon(path, {f"/containers/{ID}/json": reply(facts)}):
        found = DockerClient(str(path)).inspect(ID)
    assert found is not None
    return found


def test_version_is_the_daemons(path):
    """`check` shows which Docker it speaks to."""
    with Daemon(path, {"/version": reply({"Version": "20.10.24", "ApiVersion": "1.41"})}):
        assert DockerClient(str(path)).version() == "20.10.24"


def test_a_pause_container_is_read_whole(path):
    """Everything attribution needs of an ECS task's pause container comes through."""
    assert inspected(path, PAUSE) == DockerContainer(
        id=ID,
        name="/ecs-curltest-26-internalecspause-e292d586b6f9dade4a00",
        pid=4242,
        network_mode="none",
        labels={"com.amazonaws.ecs.container-name": "~internal~ecs~pause"},
        cgroup_parent="ecstasks-158d.slice",
        addresses=(),
        started=True,
    )


def test_what_docker_leaves_out_is_unknown_and_not_an_error(path):
    """Null labels, no networks and pid 0 are normal for a container that has ended."""
    facts = {
        "Id": ID,
        "Name": "/x",
        "State": {"Pid": 0, "Running": False},
        "Config": {"Labels": None},
        "HostConfig": {"NetworkMode": f"container:{ID}", "CgroupParent": ""},
        "NetworkSettings": {"Networks": None},
    }
    expected = DockerContainer(ID, "/x", None, f"container:{ID}", {}, "", (), False)
    assert inspected(path, facts) == expected


def test_addresses_of_all_networks_are_kept(path):
    """A container on two networks, one of them with IPv6, has three addresses."""
    networks = {
        "bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": ""},
        "mine": {"IPAddress": "172.18.0.2", "GlobalIPv6Address": "FD00::2"},
    }
    facts = PAUSE | {"NetworkSettings": {"Networks": networks}}
    assert inspected(path, facts).addresses == ("172.17.0.2", "172.18.0.2", "fd00::2")


def test_labels_are_bounded_and_ours_are_kept(path):
    """A container cannot shed its task's name by having ten thousand labels of its own."""
    labels = {f"a{n}": "x" * 100_000 for n in range(100)} | {"com.amazonaws.ecs.task-arn": "arn"}
    found = inspected(path, PAUSE | {"Config": {"Labels": labels}, "Name": "\x1b" * 5000})
    assert found.labels["com.amazonaws.ecs.task-arn"] == "arn"
    assert len(found.labels) == 64
    assert max(len(value) for value in found.labels.values()) == 1024
    assert found.name == "\x1b" * 1024


def test_containers_are_listed_and_one_that_ended_is_left_out(path):
    """Between list and inspect a container may go: that is no failure."""
    gone = "1" * 64
    answers = {
        "/containers/json": reply([{"Id": ID}, {"Id": gone}]),
        f"/containers/{ID}/json": reply(PAUSE),
    }
    with Daemon(path, answers) as daemon:
        client = DockerClient(str(path))
        assert [container.id for container in client.containers()] == [ID]
        assert client.inspect(gone) is None
    assert daemon.requests[0].startswith(b"GET /containers/json HTTP/1.1\r\nHost: localhost\r\n")


def test_an_empty_host_has_no_containers(path):
    """No container is an answer, unlike no Docker."""
    with Daemon(path, {"/containers/json": reply([])}):
        assert DockerClient(str(path)).containers() == ()


@pytest.mark.parametrize("container_id", ["", "../x", "a b", "a/b", "x" * 200, "a\r\nX: y", "é"])
def test_an_id_cannot_become_another_request(path, container_id):
    """Ids arrive from event streams, and end up in a path."""
    assert "not a container id" in refusal(lambda: DockerClient(str(path)).inspect(container_id))


@pytest.mark.parametrize(
    "listing",
    [{}, None, 5, "x", [1], [{"Id": 5}], [{}], [{"Id": "../../x"}]],
    ids=str,
)
def test_a_list_of_another_shape_is_refused(path, listing):
    """What is not Docker's list is not taken for an empty host."""
    with Daemon(path, {"/containers/json": reply(listing)}):
        refusal(DockerClient(str(path)).containers)


@pytest.mark.parametrize(
    "facts",
    [
        [], None, {}, {"Id": 5}, PAUSE | {"State": []}, PAUSE | {"State": {"Pid": "1"}},
        PAUSE | {"Config": {"Labels": ["a"]}}, PAUSE | {"Config": {"Labels": {"a": 1}}},
        PAUSE | {"NetworkSettings": {"Networks": {"a": None}}}, PAUSE | {"Name": ["x\x1b"]},
        PAUSE | {"NetworkSettings": {"Networks": {"a": {"IPAddress": "x\x1b[2J"}}}},
        PAUSE | {"State": {"Running": 1}}, PAUSE | {"HostConfig": {"NetworkMode": {}}},
    ],
    ids=range(13),
)  # fmt: skip
def test_a_container_of_another_shape_is_refused(path, facts):
    """Half a container is worse than none: it would charge the wrong one."""
    with Daemon(path, {f"/containers/{ID}/json": reply(facts)}):
        assert "not Docker" in refusal(lambda: DockerClient(str(path)).inspect(ID))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "closed the connection without an answer"),
        (b"\x00\x00\x12\x04\x00\x00", "what answers is not HTTP"),
        (reply(b"<html>"), "what answers is not Docker"),
        (reply(b"\xff\xfe\xfd"), "what answers is not Docker"),
        (reply(b"[" * 100_000), "what answers is not Docker"),
        (reply(b"9" * 5000), "what answers is not Docker"),
        (reply([], "500 Oh"), "status 500 for /containers/json"),
        (reply([], "404 Not Found"), "status 404 for /containers/json"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[]", "the answer was cut short"),
        (stream(b"[")[:-2], "the answer was cut short"),
    ],
    ids=range(10),
)
def test_garbage_is_one_line(path, answer, says):
    """Whatever answers on that socket, the agent gets a SourceError and nothing else."""
    with Daemon(path, {"/containers/json": answer}):
        assert says in refusal(DockerClient(str(path)).containers)


def test_a_huge_body_is_not_read(path):
    """32 MiB are more than any node's containers have."""
    with Daemon(path, {"/containers/json": [b"HTTP/1.1 200 OK\r\n\r\n", ENDLESS]}):
        line = refusal(DockerClient(str(path)).containers)
    assert line.endswith("an answer of more than 33554432 bytes")


def test_silence_ends_in_time(path):
    """A daemon that hangs costs a thread its time-out, and no more."""
    with Daemon(path, {"/containers/json": b"HTTP/1.1 200 OK\r\n"}, hold=True):
        assert refusal(DockerClient(str(path), 0.1).containers).endswith("within 0.1 s")


def test_no_socket_is_one_line(path, tmp_path):
    """Without Docker there is one line with the path, and so for every way of not being there."""
    client = DockerClient(str(path))
    expected = f"Docker at {path}: No such file or directory"
    assert refusal(client.version) == expected
    assert refusal(lambda: next(client.events())) == expected
    path.write_text("")
    assert refusal(client.version) == f"Docker at {path}: Connection refused"
    assert "too long" in refusal(DockerClient("/" + "x" * 200).version)
    refusal(DockerClient("/a\0b").version)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can show that it asks as somebody else")
def test_a_socket_one_may_not_open_is_one_line(path):
    """Without the right to the socket, the line says so."""
    with Daemon(path, {}):
        path.chmod(0)
        pid = os.fork()
        if pid == 0:  # nothing but _exit may leave here
            code = 1
            with contextlib.suppress(BaseException):
                os.setuid(65534)
                code = 0 if "Permission denied" in refusal(DockerClient(str(path)).version) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_events_arrive_in_order_and_others_are_skipped(path):
    """Starts, deaths and removals of containers come through, however the chunks were cut."""
    text = event("start") + event("pause") + event("start", "network") + event("die")
    chunks = [text[:50], text[50:51], text[51:], event("exec_start: sh"), event("destroy")]
    with Daemon(path, {"/events": stream(*chunks)}, hold=True) as daemon:
        client = DockerClient(str(path))
        events = client.events()
        assert [next(events) for _ in range(3)] == [
            happened("start"), happened("die"), happened("destroy")
        ]  # fmt: skip
        events.close()
    assert daemon.requests[0].startswith(EVENTS)


def test_events_may_be_silent_longer_than_the_time_out(path):
    """Hours without an event are normal: only the stream's start is bounded in time."""
    quiet = threading.Event()
    with Daemon(path, {"/events": stream(event("start"))}, hold=True):
        client = DockerClient(str(path), 0.1)
        seen: list[DockerEvent] = []

        def follow() -> None:
            seen.extend(client.events())
            quiet.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert quiet.wait(0.4) is False
        client.close()
        thread.join(5)
        assert thread.is_alive() is False
    assert seen == [happened("start")]


def test_a_closed_client_has_no_events(path):
    """After `close` a stream ends at once, and closing twice is no error."""
    with Daemon(path, {"/events": stream(event("start"))}, hold=True):
        client = DockerClient(str(path))
        client.close()
        client.close()
        assert list(client.events()) == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (stream(event("start"), end=True), "the event stream ended"),
        (stream(event("start")), "the event stream ended"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + event("start"), "the event stream ended"),
        (stream(event("start"), b"{]\n"), "not Docker"),
        (stream(event("start"), b"5\n"), "not Docker"),
        (stream(event("start"), b'{"Type":"container","Action":"die","Actor":5}\n'), "not Docker"),
        (stream(event("start")) + b"zz\r\n", "the event stream ended"),
    ],
    ids=range(7),
)
def test_a_stream_that_ends_is_an_error_after_its_events(path, answer, says):
    """When Docker restarts, the caller must know: silence would look like a quiet node."""
    with Daemon(path, {"/events": answer}):
        events = DockerClient(str(path)).events()
        assert next(events) == happened("start")
        assert says in refusal(lambda: next(events))


def test_a_stream_that_is_refused_is_an_error(path):
    """Not every Docker lets everybody listen."""
    with Daemon(path, {"/events": reply({"message": "x"}, "403 Forbidden")}):
        assert "status 403" in refusal(lambda: next(DockerClient(str(path)).events()))


def test_a_line_too_long_is_skipped(path):
    """A container with a megabyte of labels must not blind the agent to the others."""
    long = event("start")[:-1] + b" " * (3 << 20) + b"\n"
    with Daemon(path, {"/events": stream(long, event("die"))}, hold=True):
        events = DockerClient(str(path)).events()
        assert next(events) == happened("die")
        events.close()


def test_a_line_without_an_end_is_given_up(path):
    """A stream that never ends its line is not followed for ever."""
    with Daemon(path, {"/events": [b"HTTP/1.1 200 OK\r\n\r\n", ENDLESS]}):
        line = refusal(lambda: next(DockerClient(str(path)).events()))
    assert line.endswith("an event without an end")
