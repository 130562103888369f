"""The ECS agent's introspection, against a real server on 127.0.0.1 that behaves, or does not."""

import copy
import json
import socket

import pytest
from eni53.errors import SourceError
from eni53.inventory.ecs import EcsIntrospection
from eni53.model import Workload

from tests.fixtures.json_server import NOT_HERE, serving

MYSQL, NGINX, CRON = "9581a69a" * 8, "bf25c5c5" * 8, "0ddba11e" * 8
TASK = "158d1c8083dd49d6b527399fd6414f5c"
UUID = "11111111-2222-3333-4444-555555555555"
METADATA = {
    "Cluster": "cluster_name",
    "ContainerInstanceArn": "arn:aws:ecs:region:123456789012:container-instance/cluster_name/abc",
    "Version": "Amazon ECS Agent - v1.30.0 (02ff320c)",
}


def container(docker_id, name):
    """One container as the agent shows it."""
    return {
        "DockerId": docker_id,
        "DockerName": f"ecs-hello_world-8-{name}-fcae8ac8f9f1d89d8301",
        "Name": name,
        "Image": f"{name}:8",
        "ImageID": "sha256:0f",
        "CreatedAt": "2020-10-02T00:43:06.326590752Z",
        "StartedAt": "2020-10-02T00:43:06.767535449Z",
        "Networks": [{"NetworkMode": "awsvpc", "IPv4Addresses": ["10.0.2.61"]}],
    }


def task(*containers, where=f"default/{TASK}", **changes):
    """One task; None takes a field away."""
    facts = {
        "Arn": f"arn:aws:ecs:us-west-2:012345678910:task/{where}",
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "Family": "hello_world",
        "Version": "8",
        "Containers": list(containers),
    } | changes
    return {key: value for key, value in facts.items() if value is not None}


MYSQL_OF_TASK = Workload("ecs_task", "default", f"hello_world:8/{TASK}", "mysql")


@pytest.fixture
def agent():
    """An ECS agent with one task of two containers."""
    usual = {"Tasks": [task(container(MYSQL, "mysql"), container(NGINX, "nginx"))]}
    with serving({"/v1/tasks": usual, "/v1/metadata": METADATA}) as server:
        yield server


def listing(agent, *tasks):
    """What is made of these tasks."""
    agent.answers["/v1/tasks"] = {"Tasks": list(tasks)}
    return EcsIntrospection(agent.url).tasks()


def refusal(url, timeout_s=2.0):
    """The one line a call fails with."""
    with pytest.raises(SourceError) as caught:
        EcsIntrospection(url, timeout_s).tasks()
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith("ECS agent")
    return str(caught.value)


def test_containers_become_workloads(agent):
    """By Docker id, named as the labels of the same container would name it."""
    assert EcsIntrospection(agent.url).tasks() == {
        MYSQL: MYSQL_OF_TASK,
        NGINX: Workload("ecs_task", "default", f"hello_world:8/{TASK}", "nginx"),
    }
    assert agent.asked == ["/v1/tasks"]


def test_a_prefix_in_the_url_is_kept(agent):
    """A proxy may keep the agent under a path."""
    agent.answers["/proxy/v1/tasks"] = {"Tasks": []}
    assert EcsIntrospection(f"{agent.url}/proxy/").tasks() == {}
    assert agent.asked == ["/proxy/v1/tasks"]


def test_old_arns_get_the_cluster_of_the_agent_which_is_asked_once(agent):
    """Before 2018 an ARN was task/<uuid>."""
    old = Workload("ecs_task", "cluster_name", f"hello_world:8/{UUID}", "mysql")
    agent.answers["/v1/tasks"] = {
        "Tasks": [task(container(MYSQL, "mysql"), where=UUID), task(where=UUID)]
    }
    ecs = EcsIntrospection(agent.url)
    assert ecs.tasks() == {MYSQL: old}
    assert ecs.tasks() == {MYSQL: old}
    assert agent.asked == ["/v1/tasks", "/v1/metadata", "/v1/tasks"]


def test_a_cluster_may_be_an_arn(agent):
    """The agent is configured with either."""
    agent.answers["/v1/metadata"] = {"Cluster": "arn:aws:ecs:eu-west-1:1:cluster/blue"}
    found = listing(agent, task(container(MYSQL, "mysql"), where=UUID))
    assert found[MYSQL].namespace == "blue"


def test_a_task_waits_for_its_cluster(agent):
    """An agent that has not registered yet knows none; the name must not change afterwards."""
    agent.answers["/v1/metadata"] = {"Cluster": ""}
    tasks = [task(container(MYSQL, "mysql")), task(container(CRON, "cron"), where=UUID)]
    agent.answers["/v1/tasks"] = {"Tasks": tasks}
    ecs = EcsIntrospection(agent.url)
    assert ecs.tasks() == {MYSQL: MYSQL_OF_TASK}
    agent.answers["/v1/metadata"] = METADATA
    assert ecs.tasks()[CRON].namespace == "cluster_name"


@pytest.mark.parametrize("answer", [None, {"Cluster": 7}, []], ids=["404", "number", "list"])
def test_an_agent_that_cannot_say_its_cluster_is_an_error(agent, answer):
    """One line, and no task under a wrong name."""
    agent.answers["/v1/metadata"] = answer
    agent.answers["/v1/tasks"] = {"Tasks": [task(container(MYSQL, "mysql"), where=UUID)]}
    assert refusal(agent.url)


@pytest.mark.parametrize(
    ("changes", "workload"),
    [
        ({"DesiredStatus": None, "KnownStatus": "STOPPED"}, f"hello_world:8/{TASK}"),
        ({"Version": None}, f"hello_world/{TASK}"),
        ({"Family": None}, TASK),
        ({"Family": "a\x1b[2Jb\u202e"}, f"a\\x1b[2Jb\\u202e:8/{TASK}"),
        ({"Unknown": [{}]}, f"hello_world:8/{TASK}"),
    ],
)
def test_what_is_left_out_or_odd_is_no_reason_to_fail(agent, changes, workload):
    """A stopped task, a missing field, an escape sequence, a field of tomorrow."""
    found = listing(agent, task(container(MYSQL, "mysql"), **changes))
    assert found == {MYSQL: Workload("ecs_task", "default", workload, "mysql")}


@pytest.mark.parametrize(
    "odd",
    [
        None, 7, "task", [], {}, task(container(CRON, "x"), Arn=None),
        task(container(CRON, "x"), Arn=["arn:x:task/a/b"]),
        task(container(CRON, "x"), Arn="default/abc"),
        task(container(CRON, "x"), where="default/a b"),
        task(container(CRON, "x"), where="a/b/c"),
        task(container(CRON, "x"), where="x" * 300),
        task(container(CRON, "x"), Family=7), task(container(CRON, "x"), Version=8),
        task(Containers={"a": 1}), task(Containers=None), task(None, 7, [], "c", {}),
        task(container(None, "x")), task(container("", "x")), task(container(7, "x")),
        task(container("../../etc", "x")), task(container(CRON + "\n", "x")),
        task(container(CRON, ["x"])),
    ],
)  # fmt: skip
def test_an_odd_entry_is_left_out(agent, odd):
    """And nothing but that entry: its neighbour is still named."""
    assert listing(agent, odd, task(container(MYSQL, "mysql"))) == {MYSQL: MYSQL_OF_TASK}


def test_an_odd_container_does_not_cost_its_neighbours(agent):
    """In the same task either."""
    odd = copy.deepcopy(container(CRON, "x")) | {"DockerId": {}}
    assert listing(agent, task(odd, container(MYSQL, "mysql"))) == {MYSQL: MYSQL_OF_TASK}


@pytest.mark.parametrize("answer", [{"Tasks": []}, {"Tasks": None}])
def test_no_tasks_are_no_workloads(agent, answer):
    """An idle instance, in either of the ways in which Go writes it."""
    agent.answers["/v1/tasks"] = answer
    assert EcsIntrospection(agent.url).tasks() == {}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "not its list of tasks: no Tasks in it"),
        ([], "not its list of tasks: list instead of dict"),
        ({"Tasks": {"a": 1}}, "not its list of tasks: dict instead of list"),
        (b"", "not JSON"),
        (b"<html>\x1b[2J", "not JSON"),
        (b'{"Tasks": [\xff]}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"Tasks": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" + b"[]," * 200_000 + b"[]]", "more than 200000 values"),
        (
            json.dumps({"Tasks": [task(*[container(f"{n:064x}", "x") for n in range(4097)])]}),
            "lists more than 4096 containers",
        ),
    ],
)
def test_what_is_no_list_of_tasks_is_one_line(agent, answer, says):
    """Unknown is not "no tasks"; and no answer, however built, costs the agent its memory."""
    agent.answers["/v1/tasks"] = answer.encode() if isinstance(answer, str) else answer
    assert says in refusal(agent.url)


@pytest.mark.parametrize(
    ("mood", "says"),
    [
        ("silent", "no full answer within 0.2 s"),
        ("drip", "no full answer within 0.2 s"),
        ("cut", "the answer was cut short"),
        (503, "status 503 for /v1/tasks"),
        (301, "status 301 for /v1/tasks"),
    ],
)
def test_a_bad_day_of_the_agent_is_one_line(agent, mood, says):
    """Time and size are bounded, and a redirection is not followed."""
    agent.mood = mood
    assert says in refusal(agent.url, 0.2)


def test_a_body_without_an_end_is_not_read(agent):
    """Eight megabytes are more than any instance has."""
    agent.mood = "endless"
    assert "more than 8388608 bytes" in refusal(agent.url, 20.0)


def test_nobody_listening_is_an_error():
    """Where there is no ECS: one line, at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert refusal(url) == f"ECS agent at {url}: Connection refused"


@pytest.mark.parametrize("url", NOT_HERE)
def test_only_an_address_is_asked(url, monkeypatch):
    """A name would cost a query on the very ENI; it is refused before anybody resolves it."""
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert refusal(url)


def test_turned_off_means_no_request():
    """An empty URL is a choice, not a failure."""
    assert EcsIntrospection("").tasks() == {}
