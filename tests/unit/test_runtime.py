"""The followers of Docker and containerd, against servers that start, hang, end and lie."""

import contextlib
import threading
import time

import pytest
from eni53.inventory import runtime
from eni53.inventory.runtime import ContainerdFollower, DockerFollower, Seen
from eni53.model import Workload

from tests.fixtures.grpc_server import RawServer
from tests.fixtures.runtimes import CRI, ContainerdServer, DockerServer, Gate, docker_facts, until

ID, OTHER, POD = "ab" * 32, "cd" * 32, "ef" * 32
TASK = {"task_arn": "arn:aws:ecs:eu-west-1:1:task/prod/t1", "container_name": "web"}
WEB = Workload("ecs_task", "prod", "t1", "web")
AT_ONCE_S = 2.5  # mostly milliseconds; whoever is not woken up takes five seconds
PAUSE = {**TASK, "container_name": "~internal~ecs~pause"}
POD_LABELS = {"io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.name": "web-1"}


class Heard:
    """Keeps what a follower says."""

    def __init__(self):
        self.said, self.changed = [], threading.Condition()
        self.branch_enis = []

    def _say(self, *what):
        with self.changed:
            self.said.append(what)
            self.changed.notify_all()

    def listed(self, source, seen):
        """A list."""
        self._say("listed", source, seen)

    def seen(self, source, seen):
        """One container."""
        self._say("seen", source, seen)

    def ended(self, source, container_id):
        """The end of one."""
        self._say("ended", source, container_id)

    def branches(self, enis):
        """What is written on pods."""
        self.branch_enis.append(enis)

    def answered(self, source, up, reason):
        """Whether the source is there."""
        self._say("answered", source, up, reason)

    def wait(self, *what, times=1):
        """Wait until exactly that was said so many times."""
        with self.changed:
            there = self.changed.wait_for(lambda: self.said.count(what) >= times, 20)
            assert there, f"{what} not among {self.said}"

    def wait_down(self, times=1):
        """Wait until the source was said to be down; the reasons."""

        def reasons():
            return [one[3] for one in self.said if one[0] == "answered" and not one[2]]

        with self.changed:
            assert self.changed.wait_for(lambda: len(reasons()) >= times, 20), self.said
            return reasons()


@pytest.fixture
def heard():
    """Nothing was said yet."""
    return Heard()


@pytest.fixture
def path(tmp_path):
    """Where the runtime's socket goes."""
    return tmp_path / "runtime.sock"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """It begins again at once."""
    monkeypatch.setattr(runtime, "_RETRY_S", 0.02)


@contextlib.contextmanager
def following(follower):
    """Follow for a while."""
    follower.start()
    try:
        yield follower
    finally:
        follower.stop()


def took_s(call):
    """How long a call took."""
    began_s = time.monotonic()
    call()
    return time.monotonic() - began_s


def up(name):
    """What is said of a source that answers."""
    return ("answered", name, True, "")


# --- Docker -----------------------------------------------------------------------------------


def test_docker_lists_the_oldest_first_and_only_what_runs(path, heard):
    """Of those that share a namespace the oldest made it; one without a process has no place."""
    with DockerServer(path) as docker:
        docker.containers = {
            ID: docker_facts(ID, "pause", 41, **PAUSE),
            OTHER: docker_facts(OTHER, "web", 42, "172.17.0.2", **TASK),
            POD: docker_facts(POD, "dead", 0),
        }
        with following(DockerFollower(str(path), heard)) as follower:
            assert follower.wait_listed(20)
            heard.wait(*up("docker"))
    pause = Workload("ecs_task", "prod", "t1", "~internal~ecs~pause")
    listed = (Seen(ID, pause, 41, (), True), Seen(OTHER, WEB, 42, ("172.17.0.2",)))
    assert heard.said[0] == ("listed", "docker", listed)


def test_docker_events_follow_the_list(path, heard):
    """Created: a name alone. Started: what inspect says. Died or destroyed: ended."""
    with DockerServer(path) as docker, following(DockerFollower(str(path), heard)):
        heard.wait("listed", "docker", ())
        docker.emit("create", ID, "x", **TASK)
        heard.wait("seen", "docker", Seen(ID, WEB))
        docker.containers[ID] = docker_facts(ID, "x", 42, "172.17.0.2", **TASK)
        docker.emit("start", ID)
        heard.wait("seen", "docker", Seen(ID, WEB, 42, ("172.17.0.2",)))
        docker.emit("die", ID)
        docker.emit("destroy", ID)
        heard.wait("ended", "docker", ID, times=2)


def test_docker_events_during_the_list_are_not_lost(path, heard):
    """One that starts while the list is on its way is heard of after it."""
    with DockerServer(path) as docker:
        gate = docker.gates["/containers/json"] = Gate()
        with following(DockerFollower(str(path), heard)):
            assert gate.reached.wait(20)
            docker.containers[ID] = docker_facts(ID, "web", 42, **TASK)
            docker.happened = [docker.line("create", ID, **TASK), docker.line("start", ID)]
            gate.opened.set()
            heard.wait("seen", "docker", Seen(ID, WEB, 42))
    assert heard.said[0] == ("listed", "docker", ())


def test_docker_that_is_gone_before_it_is_looked_at(path, heard):
    """Started, and over before inspect: nothing to say, and the stream goes on."""
    with DockerServer(path) as docker, following(DockerFollower(str(path), heard)):
        heard.wait("listed", "docker", ())
        docker.emit("start", ID)
        docker.emit("die", ID)
        heard.wait("ended", "docker", ID)
    assert [one for one in heard.said if one[0] == "seen"] == []


def test_docker_that_restarts_is_listed_again(path, heard):
    """Its stream ends: said once, then listed anew, with what runs now."""
    with DockerServer(path) as docker, following(DockerFollower(str(path), heard)):
        heard.wait("listed", "docker", ())
        docker.containers[ID] = docker_facts(ID, "web", 42, **TASK)
        docker.feeds.put(None)
        heard.wait("listed", "docker", (Seen(ID, WEB, 42),))
        heard.wait(*up("docker"), times=2)
    assert heard.wait_down() == [f"Docker at {path}: the event stream ended"]


def test_docker_that_comes_late_is_found(path, heard):
    """Its socket is not there at the start; the first wait does not last for that."""
    with following(DockerFollower(str(path), heard)) as follower:
        assert follower.wait_listed(20)
        assert heard.wait_down()[0] == f"Docker at {path}: No such file or directory"
        with DockerServer(path):
            heard.wait(*up("docker"))


@pytest.mark.parametrize(
    ("at", "answer"),
    [
        ("/containers/json", b"SSH-2.0-x\r\n\r\n"),
        ("/containers/json", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        (f"/containers/{ID}/json", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
        ("/events", b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
        ("/events", b"HTTP/1.1 200 OK\r\n\r\n{]\n"),
        ("/events", b'HTTP/1.1 200 OK\r\n\r\n{"Type":"container","Action":"start","Actor":'
                    b'{"ID":"../../x"}}\n'),
    ],
    ids=range(6),
)  # fmt: skip
def test_docker_garbage_is_one_line_and_it_is_tried_again(path, heard, at, answer):
    """Whatever answers there: a printable reason each time, and a good answer ends it."""
    with DockerServer(path) as docker:
        docker.containers[ID] = docker_facts(ID, "web", 42, **TASK)
        docker.raw[at] = answer
        with following(DockerFollower(str(path), heard)):
            assert all(reason.isprintable() for reason in heard.wait_down(2))
            del docker.raw[at]
            docker.emit("die", ID)
            heard.wait("ended", "docker", ID)


# --- containerd -------------------------------------------------------------------------------


@pytest.fixture
def quick_list(monkeypatch):
    """New pods make another list soon."""
    monkeypatch.setattr(runtime, "_NEW_PODS_S", 0.05)


def test_containerd_lists_pods_before_their_containers(path, heard):
    """With names from CRI and pids from its tasks; others of both namespaces by pid alone."""
    with ContainerdServer(path) as server:
        server.pod(POD, "web-1", "10.0.0.9")
        server.pod("gone", "web-0", ready=False)
        server.container("of-gone", "gone", "app")
        server.container(ID, POD, "app")
        server.tasks = {"k8s.io": {POD: 41, ID: 42, "ctr": 43}, "moby": {OTHER: 44}}
        with following(ContainerdFollower(str(path), heard)) as follower:
            assert follower.wait_listed(20)
    pod, app = Workload("pod", "shop", "web-1"), Workload("pod", "shop", "web-1", "app")
    expected = (
        Seen(POD, pod, 41, ("10.0.0.9",)),
        Seen(ID, app, 42, ("10.0.0.9",)),
        Seen("ctr", None, 43),
        Seen(OTHER, None, 44),
    )
    assert heard.said[:2] == [("listed", "containerd", expected), up("containerd")]


def test_containerd_without_cri_is_followed_all_the_same(path, heard):
    """As dockerd's own is."""
    with ContainerdServer(path, cri=False) as server:
        server.tasks["moby"] = {ID: 42}
        with following(ContainerdFollower(str(path), heard)):
            heard.wait("listed", "containerd", (Seen(ID, None, 42),))
            heard.wait(*up("containerd"))


def test_containerd_events_follow_the_list(path, heard):
    """A pod's names come from its labels at once; Docker's are for Docker to tell."""
    with ContainerdServer(path) as server, following(ContainerdFollower(str(path), heard)):
        heard.wait(*up("containerd"))
        server.labels = {
            POD: POD_LABELS | {"io.cri-containerd.kind": "sandbox",
                               "io.kubernetes.container.name": "liar"},
            ID: POD_LABELS | {"io.cri-containerd.kind": "container",
                              "io.kubernetes.container.name": "app"},
        }  # fmt: skip
        server.emit("create", POD, 41)
        server.emit("create", ID, 42)
        server.emit("create", OTHER, 43, "moby")
        server.emit("create", "bare", 44)
        server.emit("start", ID, 42)
        server.emit("exit", ID, 42)
        server.emit("delete", ID, 42)
        heard.wait("ended", "containerd", ID, times=2)
    assert [one[2] for one in heard.said if one[0] == "seen"] == [
        Seen(POD, Workload("pod", "shop", "web-1"), 41),
        Seen(ID, Workload("pod", "shop", "web-1", "app"), 42),
        Seen(OTHER, None, 43),
        Seen("bare", None, 44),
    ]


def test_a_container_of_no_pod_is_not_named_as_one(path, heard):
    """`ctr -n k8s.io run` makes one without a pod's labels: it has no name, not an empty one."""
    with ContainerdServer(path) as server, following(ContainerdFollower(str(path), heard)):
        heard.wait(*up("containerd"))
        server.labels[ID] = {"nerdctl/name": "x"}
        server.emit("create", ID, 42)
        server.emit("exit", ID, 42)
        heard.wait("ended", "containerd", ID)
    assert [one[2] for one in heard.said if one[0] == "seen"] == [Seen(ID, None, 42)]


def test_containerd_events_during_the_list_come_after_it(path, heard):
    """One that starts and ends while the first list is on its way."""
    with ContainerdServer(path) as server:
        gate = server.gates["moby"] = Gate()
        with following(ContainerdFollower(str(path), heard)):
            assert gate.reached.wait(20)
            server.emit("create", ID, 42, "moby")
            server.emit("exit", ID, 42, "moby")
            gate.opened.set()
            heard.wait("ended", "containerd", ID)
    assert [one[0] for one in heard.said[:4]] == ["listed", "answered", "seen", "ended"]


@pytest.mark.usefixtures("quick_list")
def test_new_pods_get_their_addresses_by_another_list(path, heard):
    """The event has none: soon after it there is a list, and none without a new pod."""
    with ContainerdServer(path) as server, following(ContainerdFollower(str(path), heard)):
        heard.wait(*up("containerd"))
        lists = server.lists
        time.sleep(0.2)
        assert server.lists == lists
        server.pod(POD, "web-1", "10.0.0.9")
        server.tasks["k8s.io"] = {POD: 41}
        server.labels[POD] = POD_LABELS | {"io.cri-containerd.kind": "sandbox"}
        server.emit("create", POD, 41)
        pod = Workload("pod", "shop", "web-1")
        heard.wait("listed", "containerd", (Seen(POD, pod, 41, ("10.0.0.9",)),))


@pytest.mark.usefixtures("quick_list")
def test_one_bad_list_is_not_the_last(path, heard):
    """CRI was slow or broken for a moment, the events go on: another list comes."""
    with ContainerdServer(path) as server, following(ContainerdFollower(str(path), heard)):
        heard.wait(*up("containerd"))
        method = f"{CRI}ListPodSandbox"
        good, broke = server.answers[method], threading.Event()

        def broken(_):
            broke.set()
            raise ConnectionError

        server.answers[method] = broken
        server.emit("create", OTHER, 43)
        assert broke.wait(20)
        server.answers[method] = good
        server.tasks["k8s.io"] = {ID: 42}
        server.emit("create", ID, 42)
        heard.wait("listed", "containerd", (Seen(ID, None, 42),))


@pytest.mark.usefixtures("quick_list")
@pytest.mark.parametrize("topic", ["create", "exit"])
def test_a_list_older_than_an_event_does_not_undo_it(path, heard, topic):
    """What began during a list is not ended by it; what ended during it does not run again.

    Docker's side or the next list mends it, a minute later: a minute without a pause container is
    a minute without its ENI.
    """
    with ContainerdServer(path) as server:
        there = {ID: 42} if topic == "exit" else {}
        server.tasks["moby"] = dict(there)
        with following(ContainerdFollower(str(path), heard)):
            heard.wait(*up("containerd"))
            gate = server.gates["moby"] = Gate()
            server.emit("create", OTHER, 40)  # a new pod: a list will come
            assert gate.reached.wait(20)
            server.emit(topic, ID, 42, "moby")
            what = Seen(ID, None, 42) if topic == "create" else ID
            heard.wait("seen" if topic == "create" else "ended", "containerd", what)
            before = len(heard.said)
            server.tasks["moby"] = {} if topic == "exit" else {ID: 42}
            del server.gates["moby"]
            gate.opened.set()
            with heard.changed:
                heard.changed.wait_for(lambda: len(heard.said) > before, 20)
                after = heard.said[before]
    assert after[0] == "listed"
    assert (ID in {seen.id for seen in after[2]}) is (topic == "create")


def test_containerd_that_restarts_is_listed_again(path, heard):
    """Its stream ends: said once, then listed anew; pods that are gone are not remembered."""
    with ContainerdServer(path) as server, following(ContainerdFollower(str(path), heard)):
        heard.wait("listed", "containerd", ())
        server.tasks["moby"] = {ID: 42}
        server.feeds.put(None)
        heard.wait("listed", "containerd", (Seen(ID, None, 42),))
    assert len(heard.wait_down()) == 1
    assert heard.wait_down()[0].startswith(f"containerd at {path}: ")


def test_a_pod_that_comes_back_has_its_new_address(path, heard):
    """The same id with another address after it was gone from a list."""
    with ContainerdServer(path) as server, following(ContainerdFollower(str(path), heard)):
        for address in ("10.0.0.8", "10.0.0.9"):
            server.pod(POD, "web-1", address)
            server.feeds.put(None)
            pod = Workload("pod", "shop", "web-1")
            heard.wait("listed", "containerd", (Seen(POD, pod, None, (address,)),))
            empty = heard.said.count(("listed", "containerd", ()))
            server.pods.clear()
            server.feeds.put(None)
            heard.wait("listed", "containerd", (), times=empty + 1)


@pytest.mark.parametrize("garbage", [b"", b"HTTP/1.1 400 no\r\n\r\n", b"\0" * 100])
def test_containerd_garbage_is_one_line_and_it_is_tried_again(path, heard, garbage):
    """What answers is not containerd; then it is."""
    with following(ContainerdFollower(str(path), heard)):
        with RawServer(path, garbage):
            assert all(reason.isprintable() for reason in heard.wait_down(2))
        path.unlink()
        with ContainerdServer(path):
            heard.wait(*up("containerd"))


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DockerFollower, ContainerdFollower])
def test_one_that_never_began_can_be_stopped(path, heard, kind):
    """A start that fails (no ENI) stops what it has made, and says its one line."""
    kind(str(path), heard).stop()
    assert heard.said == []


@pytest.mark.parametrize("blocked_at", ["/containers/json", f"/containers/{ID}/json", "/events"])
def test_docker_that_hangs_does_not_hold_the_end(path, heard, blocked_at):
    """A daemon that accepts and says nothing costs no time when the agent stops."""
    with DockerServer(path) as docker:
        docker.containers[ID] = docker_facts(ID, "web", 42)
        docker.raw[blocked_at] = b""
        with following(DockerFollower(str(path), heard)) as follower:
            until(lambda: blocked_at in docker.asked)
            assert took_s(follower.stop) < AT_ONCE_S
            before = list(heard.said)
            time.sleep(0.2)
            assert heard.said == before
            assert heard.wait_down(0) == []


@pytest.mark.parametrize("state", ["silent", "listing", "events"])
def test_containerd_that_hangs_does_not_hold_the_end(path, heard, state):
    """Before it said a word, in a list, or in a stream that has nothing to say."""
    server = RawServer(path, hold=True) if state == "silent" else ContainerdServer(path)
    with server:
        gate = Gate()
        if state == "listing":
            server.gates["moby"] = gate
        with following(ContainerdFollower(str(path), heard)) as follower:
            if state == "listing":
                assert gate.reached.wait(20)
            elif state == "events":
                heard.wait(*up("containerd"))
            else:
                until(lambda: server.peers)
            assert took_s(follower.stop) < AT_ONCE_S
            before = list(heard.said)
            gate.opened.set()
            time.sleep(0.2)
            assert heard.said == before
            assert heard.wait_down(0) == []


def test_a_stop_that_comes_as_containerd_is_called_is_heeded(path, heard, monkeypatch):
    """Between a look at whether to stop and the call, a client is made that nobody closes."""
    made, follower = runtime.Containerd, ContainerdFollower(str(path), heard)
    entered, closed, close = threading.Event(), threading.Event(), follower._close

    def make_late(*arguments):
        entered.set()
        closed.wait(20)
        return made(*arguments)

    monkeypatch.setattr(runtime, "Containerd", make_late)
    monkeypatch.setattr(follower, "_close", lambda: (close(), closed.set()))
    with ContainerdServer(path):
        follower.start()
        assert entered.wait(20)
        assert took_s(follower.stop) < AT_ONCE_S
    assert heard.said == []
