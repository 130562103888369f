"""Tasks with an ENI of their own, and the small services of a node: the lab's, without an agent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import cgroups
from tests.lab.awsvpc import AwsvpcTask
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.processes import marked
from tests.lab.shell import PYTHON, LabError

RESOLVER, RESOLVER6, IMDS = "10.53.0.2", "fd00:ec2::253", "169.254.169.254"
ECS, CNI = 51678, 61679
MACS = "/latest/meta-data/network/interfaces/macs/"
READ_MOST = 4 << 20

# Sends the requests on stdin in turn, each [method, address, port, path, headers, timeout].
_ASK = """
import http.client, json, sys
for method, host, port, path, headers, timeout in json.load(sys.stdin):
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read(%d).decode("latin1")
        # read(n) is content with less than was promised.
        print(json.dumps(["truncated" if response.length else response.status, body]))
    except (OSError, http.client.HTTPException) as error:
        print(json.dumps([type(error).__name__, ""]))
    finally:
        connection.close()
""" % (READ_MOST + 1)  # noqa: UP031 - braces are code here

Answer = tuple[int | str, str]


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab of this module's own: it changes the moods of services that others rely on."""
    with Lab(limit_pps=None) as lab:
        lab.start_introspection()
        yield lab


@pytest.fixture
def moody(own: Lab) -> Iterator[Lab]:
    """The same, healthy again afterwards."""
    yield own
    own.set_imds()
    own.introspection.set_mode("ok")
    own.introspection.set_cni_shape(old=False)


def ask(lab: Lab, *requests: tuple[str, str, int, str, dict[str, str], float]) -> list[Answer]:
    """Status, or the name of the error, and the body of each request, sent from the node."""
    done = lab.node_exec([PYTHON, "-I", "-c", _ASK], stdin=json.dumps(requests))
    return [(status, body) for status, body in map(json.loads, done.stdout.splitlines())]


def get(lab: Lab, port: int, path: str, *, timeout: float = 10) -> Answer:
    """What introspection answers."""
    return ask(lab, ("GET", "127.0.0.1", port, path, {}, timeout))[0]


def token(lab: Lab, *, timeout: float = 10) -> Answer:
    """What the IMDS answers to who wants a token."""
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    return ask(lab, ("PUT", IMDS, 80, "/latest/api/token", ttl, timeout))[0]


def metadata(lab: Lab, path: str, key: str | None = None, *, timeout: float = 10) -> Answer:
    """What the IMDS answers for *path*; with a token of its own if none is given."""
    header = {"X-aws-ec2-metadata-token": token(lab)[1] if key is None else key}
    return ask(lab, ("GET", IMDS, 80, path, header, timeout))[0]


def listed_macs(lab: Lab) -> list[str]:
    """The MACs that the IMDS knows."""
    return [line.rstrip("/") for line in metadata(lab, MACS)[1].split()]


def netns(pid: int) -> int:
    """The inode of a process's network namespace."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def interfaces(task: AwsvpcTask) -> list[str]:
    """The names of the interfaces in a task's namespace."""
    return sorted(link["ifname"] for link in json.loads(task.exec(["ip", "-j", "link"]).stdout))


def links(lab: Lab) -> list[str]:
    """Every interface of the node and of the VPC, but for the bridge that stays."""
    shown = [run(["ip", "-j", "link"]).stdout for run in (lab.node_exec, lab.vpc_exec)]
    names = [link["ifname"] for text in shown for link in json.loads(text)]
    return sorted(name for name in names if name != "ecs-bridge")


def counted(lab: Lab, before: dict[str, int], eni: str) -> dict[str, int]:
    """What rose since *before* on one ENI; but for "all", which has its kernel's own chatter."""
    now = {name: count for name, count in lab.counters().items() if name.startswith(eni + "_")}
    rise = {name.removeprefix(eni + "_"): now[name] - before.get(name, 0) for name in now}
    return {what: packets for what, packets in rise.items() if packets and what != "all"}


def send(container: Container, to: str, count: int) -> None:
    """Send that many queries, all of which must get out."""
    assert container.send("udp", "--to", to, "--count", str(count)).sent == count


def test_containers_of_a_task_share_a_namespace_and_its_eni(own: Lab) -> None:
    """What each sends is counted on the task's ENI, to the packet, and nothing on the node's."""
    task = own.run_awsvpc_task(containers=("app", "log"))
    app, log = task.containers["app"], task.containers["log"]
    before = own.counters()
    send(app, RESOLVER, 1013)
    send(log, RESOLVER, 307)
    send(log, RESOLVER6, 101)

    assert netns(app.pid) == netns(log.pid) == netns(task.pid)
    assert netns(task.pid) != Path(f"/run/netns/{own.node_ns}").stat().st_ino
    assert counted(own, before, task.eni.counters) == {
        "ip_udp_resolver": 1320,
        "ip6_udp_resolver": 101,
        "ip_linklocal": 1320,
        "ip6_linklocal": 101,
    }
    assert counted(own, before, "ens5") == {}
    task.remove()
    assert task.counted("ip_udp_resolver") == 1320


def test_a_task_comes_up_step_by_step(own: Lab) -> None:
    """A pause container with lo alone, its ENI, then the app: a test may look in between."""
    task = own.awsvpc_task()
    task.start_pause()
    assert interfaces(task) == ["lo"]
    assert task.eni.mac not in listed_macs(own)

    task.plug_eni()
    assert interfaces(task) == ["ecs-eth0", "eth0", "lo"]
    path = f"{MACS}{task.eni.mac}/interface-id"
    assert metadata(own, path) == (200, task.eni.eni_id)
    [route] = json.loads(task.exec(["ip", "-j", "route", "show", "default"]).stdout)
    assert (route["dev"], route["gateway"]) == ("eth0", "10.53.1.1")

    send(task.start_container("app"), RESOLVER, 53)
    assert task.counted("ip_udp_resolver") == 53
    task.remove()
    assert metadata(own, path)[0] == 404


def test_an_eni_can_be_on_the_node_first(own: Lab) -> None:
    """As on AWS: it is the node's, moves into the task, and comes back before it is gone."""
    before = links(own)
    task = own.awsvpc_task(in_imds=False)
    task.attach_eni()
    assert task.eni.node_interface in links(own)
    task.start_pause()
    task.plug_eni()
    assert task.eni.node_interface not in links(own)
    assert interfaces(task) == ["ecs-eth0", "eth0", "lo"]
    assert task.eni.mac not in listed_macs(own)
    task.tell_imds()
    assert task.eni.mac in listed_macs(own)
    app = task.start_container("app")
    send(app, RESOLVER, 59)
    send(app, RESOLVER6, 47)
    assert (task.counted("ip_udp_resolver"), task.counted("ip6_udp_resolver")) == (59, 47)
    task.remove()
    assert links(own) == before


def test_a_task_that_vanishes_leaves_no_mess(own: Lab) -> None:
    """Its ENI goes with its namespace, its counters stay, and it is in no other task's way."""
    before = links(own)
    task = own.run_awsvpc_task(containers=("app", "log"))
    send(task.containers["app"], RESOLVER, 61)
    task.vanish()

    assert links(own) == before
    assert own.docker("ps", "-aq", "--filter", f"name=ecs-{task.family}-") == ""
    assert task.eni.counters not in own.vpc_exec(["nft", "list", "chains"]).stdout
    assert task.eni.ipv4 not in own.vpc_exec(["ip", "neigh"]).stdout
    assert task.eni.mac not in listed_macs(own)
    assert task.counted("ip_udp_resolver") == 61
    after = own.run_awsvpc_task()
    send(after.containers["app"], RESOLVER, 67)
    assert (after.counted("ip_udp_resolver"), task.counted("ip_udp_resolver")) == (67, 61)
    after.remove()


def test_three_tasks_and_an_ordinary_one(own: Lab) -> None:
    """Four senders at the same time, each on the ENI where it belongs."""
    tasks = [own.run_awsvpc_task(family=f"shop{n}", eni_first=n == 1) for n in range(3)]
    ordinary = own.run_task()
    senders = [*(task.containers["app"] for task in tasks), ordinary]
    before = own.counters()
    running = [
        (sender.start_send("udp", "--to", RESOLVER, "--count", str(count)), count)
        for sender, count in zip(senders, (401, 503, 607, 211), strict=True)
    ]
    assert all(json.loads(process.communicate()[0])["sent"] == n for process, n in running)

    assert [task.counted("ip_udp_resolver") for task in tasks] == [401, 503, 607]
    assert counted(own, before, "ens5")["ip_udp_resolver"] == 211
    assert len({netns(task.pid) for task in tasks}) == 3
    for task in tasks:
        task.remove()
    ordinary.remove()


def test_each_task_eni_has_a_limit_of_its_own(own: Lab) -> None:
    """One task over its limit, another plugged after that was set: no drops for the other."""
    loud = own.run_awsvpc_task(family="loud")
    try:
        own.set_limit(1024)
        calm = own.run_awsvpc_task(family="calm")
        send(loud.containers["app"], RESOLVER, 20_000)
        send(calm.containers["app"], RESOLVER, 90)
        assert loud.counted("ip_udp_resolver") == 20_000
        assert loud.counted("drops") > 0
        assert (calm.counted("ip_udp_resolver"), calm.counted("drops")) == (90, 0)
        assert f"limit {calm.eni.counters}_limit" in own.vpc_exec(["nft", "list", "limits"]).stdout
    finally:
        own.set_limit(None)
    calm.remove()
    loud.remove()


def test_the_ecs_agent_tells_of_tasks(own: Lab) -> None:
    """Both kinds of task, without their pause containers, addresses for awsvpc alone."""
    bridged = own.run_task(family="plain", container="web")
    task = own.run_awsvpc_task(containers=("app", "log"))
    app = task.containers["app"]
    arn = f"arn:aws:ecs:eu-west-1:123456789012:task/prod/{task.task_id}"
    listed = {entry["Arn"]: entry for entry in json.loads(get(own, ECS, "/v1/tasks")[1])["Tasks"]}

    assert [entry["Name"] for entry in listed[arn]["Containers"]] == ["app", "log"]
    assert listed[arn]["Containers"][0]["Networks"][0]["IPv4Addresses"] == [task.eni.ipv4]
    assert listed[arn]["DesiredStatus"] == "RUNNING"
    [web] = [entry for entry in listed.values() if entry["Family"] == "plain"]
    assert web["Containers"][0]["DockerId"] == bridged.id
    assert "Networks" not in web["Containers"][0]
    for query in (f"dockerid={app.id}", f"dockerid={app.id[:12]}", f"taskarn={arn}"):
        status, body = get(own, ECS, f"/v1/tasks?{query}")
        assert (status, json.loads(body)["Arn"]) == (200, arn)
    assert get(own, ECS, f"/v1/tasks?dockerid={task.pause.id}")[0] == 404
    assert get(own, ECS, f"/v1/tasks?dockerid={app.id}&taskarn={arn}")[0] == 400
    assert json.loads(get(own, ECS, "/v1/metadata")[1])["Cluster"] == "prod"

    task.vanish()
    [ended] = [entry for entry in own.ecs_tasks if entry["Arn"] == arn]
    assert (ended["KnownStatus"], "DesiredStatus" in ended) == ("STOPPED", False)
    own.introspection.forget(task.task_id)
    assert arn not in get(own, ECS, "/v1/tasks")[1]
    bridged.remove()


def test_the_cni_tells_of_pods_in_both_shapes(moody: Lab) -> None:
    """A pod's address and its ENI, by network card and as older ones had it."""
    eni = moody.enis[0]
    moody.introspection.add_pod_ip(eni, "10.53.2.1", "shop", "web-0")
    moody.introspection.add_pod_ip(eni, "10.53.2.17", "shop", "web-1", prefix="10.53.2.16/28")
    new = json.loads(get(moody, CNI, "/v1/enis")[1])
    moody.introspection.set_cni_shape(old=True)
    old = json.loads(get(moody, CNI, "/v1/enis")[1])

    assert new == {"0": old}
    cidrs = old["ENIs"][eni.eni_id]["AvailableIPv4Cidrs"]
    assert [cidrs[cidr]["IsPrefix"] for cidr in ("10.53.2.1/32", "10.53.2.16/28")] == [False, True]
    address = cidrs["10.53.2.16/28"]["IPAddresses"]["10.53.2.17"]
    assert address["IPAMMetadata"] == {"k8sPodNamespace": "shop", "k8sPodName": "web-1"}


@pytest.mark.parametrize("port", [ECS, CNI])
def test_introspection_fails_as_it_is_told(moody: Lab, port: int) -> None:
    """Every fault is one a client meets, and is over when it is over; the other server is well."""
    path, server, other = {ECS: ("/v1/tasks", "ecs", CNI), CNI: ("/v1/enis", "cni", ECS)}[port]
    healthy = get(moody, port, path)
    assert healthy[0] == 200

    def meets(mode: str, timeout: float = 10) -> Answer:
        moody.introspection.set_mode(mode, server=server)
        assert get(moody, other, "/v1/metadata")[0] == 200
        return get(moody, port, path, timeout=timeout)

    assert meets("hang", 0.5)[0] == "TimeoutError"
    assert meets("503") == (503, "")
    status, body = meets("garbage")
    assert status == 200
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(body)
    assert meets("truncated")[0] == "truncated"
    assert len(meets("huge")[1]) > READ_MOST
    assert meets("ok") == healthy
    with pytest.raises(LabError, match="modes are"):
        moody.introspection.set_mode("unheard-of")


def test_a_token_ends(moody: Lab) -> None:
    """After so many uses, or after so long; a new one is good again."""
    moody.set_imds("expired", uses=2)
    key = token(moody)[1]
    assert [metadata(moody, MACS, key)[0] for _ in range(3)] == [200, 200, 401]
    assert metadata(moody, MACS)[0] == 200
    moody.set_imds("expired", uses=None, seconds=3600)
    assert metadata(moody, MACS, key)[0] == 200
    moody.set_imds("expired", uses=None, seconds=0)
    assert metadata(moody, MACS)[0] == 401


def test_metadata_that_does_not_come(moody: Lab) -> None:
    """Refused, silent, and silent to token requests alone, where an old token still works."""
    key = token(moody)[1]
    moody.set_imds("503")
    assert (token(moody)[0], metadata(moody, MACS, key)[0]) == (503, 503)
    moody.set_imds("silent")
    assert token(moody, timeout=0.5)[0] == "TimeoutError"
    assert metadata(moody, MACS, key, timeout=0.5)[0] == "TimeoutError"
    moody.set_imds("no-token")
    assert token(moody, timeout=0.5)[0] == "TimeoutError"
    assert (metadata(moody, MACS, "none")[0], metadata(moody, MACS, key)[0]) == (401, 200)
    moody.set_imds()
    assert metadata(moody, MACS)[0] == 200


def test_metadata_of_unusual_networks(moody: Lab) -> None:
    """No IPv4, two blocks with the primary one first, one network card; and all of it at once."""
    base = f"{MACS}{moody.enis[0].mac}/"

    def found() -> tuple[Any, ...]:
        leaves = ("local-ipv4s", "ipv6s", "vpc-ipv4-cidr-blocks", "network-card")
        answers = [metadata(moody, base + leaf) for leaf in leaves]
        return tuple(body if status == 200 else status for status, body in answers)

    one, two = "10.53.0.0/16", "10.53.0.0/16\n100.64.0.0/16"
    assert found() == ("10.53.1.10", "fd53::10", one, "0")
    moody.set_imds("ipv6-only")
    assert found() == (404, "fd53::10", one, "0")
    moody.set_imds("two-cidrs")
    assert found() == ("10.53.1.10", "fd53::10", two, "0")
    assert metadata(moody, base + "vpc-ipv4-cidr-block") == (200, one)
    moody.set_imds("ipv6-only", "two-cidrs", "no-network-card")
    assert found() == (404, "fd53::10", two, 404)


def test_a_lab_may_start_moody() -> None:
    """Lab(imds="503"): the first question finds it so, and a mode it does not have is refused."""
    with Lab(docker=False, resolver=False, imds="503") as lab:
        assert token(lab)[0] == 503
    with pytest.raises(LabError, match="no IMDS mode"):
        Lab(imds="unheard-of")


def test_everything_is_gone_after_the_lab() -> None:
    """Tasks still up, both servers hanging on a client: no namespace, process, cgroup or file."""
    with Lab(limit_pps=None) as lab:
        lab.start_introspection()
        tasks = [lab.run_awsvpc_task(eni_first=first) for first in (False, True)]
        lab.introspection.set_mode("hang")
        lab.set_imds("silent")
        url = f"http://127.0.0.1:{ECS}/v1/tasks"
        get_it = [PYTHON, "-c", f"import urllib.request as u; u.urlopen('{url}', timeout=60)"]
        lab.node_popen(get_it)
        assert len(marked(lab.id)) > 5
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)

    assert lab.id not in listed.stdout
    assert marked(lab.id) == []
    assert not lab.directory.exists()
    groups = [path for task in tasks for path in cgroups.everywhere(f"/ecs/{task.task_id}")]
    assert not any(path.exists() for path in groups)
    assert lab.id not in Path("/proc/self/mounts").read_text()
