"""ENIs in tasks' namespaces: told apart by class id where their indexes are the same."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from eni53.inventory.links import LinkTable
from eni53.kernel.attach import EGRESS, ENI_HOOKS, INGRESS, TASK_HOOKS, Attacher, foreign_filters
from eni53.kernel.layout import TASK_DEV

from . import frames as f
from .conftest import MakeAttacher, MakeNamespace
from .kernel import NEXT, Kernel
from .netns import Pair, cgroup_root, inside, make_pair, own_cgroup, until
from .test_attach import add_foreign, send, stream

ONE, TWO = 0x0101, 0x0201  # the same in their lower half
_QUERY = f.ipv4(f.udp(payload=f.dns_query()), f.UDP, "10.0.0.2")


@pytest.fixture
def tasks(make_namespace: MakeNamespace, pair: Pair) -> tuple[Pair, Pair]:
    """Two tasks' namespaces, each with its own VPC; index and address as of the node's own ENI."""
    one, two = (
        make_pair(make_namespace(f"task{number}"), make_namespace(f"vpc{number}"))
        for number in (1, 2)
    )
    assert pair.eni == one.eni == two.eni, "or nothing here shows that indexes are not enough"
    return one, two


def attach(make_attacher: MakeAttacher, kernel: Kernel, task: Pair, class_id: int) -> Attacher:
    """As the agent attaches in a task's namespace; nothing is counted before it is added."""
    attacher = make_attacher("clsact", where=task.node, class_id=class_id)
    kernel.maps.add_eni(TASK_DEV | class_id)
    attacher.attach(task.eni, "eni", TASK_HOOKS)
    return attacher


def counted(kernel: Kernel) -> dict[tuple[int, str], int]:
    """Packets by (dev, protocol)."""
    found = Counter[tuple[int, str]]()
    for key, packets in kernel.maps.read().senders.items():
        found[key.dev, key.protocol] += packets
    return dict(found)


def test_equal_indexes_are_never_mixed(
    wired: Kernel, pair: Pair, tasks: tuple[Pair, Pair], make_attacher: MakeAttacher
) -> None:
    """Node and two tasks send at once from one index: each count equals its own VPC's."""
    make_attacher("auto").attach(pair.eni, "eni", ENI_HOOKS)
    attach(make_attacher, wired, tasks[0], ONE)
    attach(make_attacher, wired, tasks[1], TWO)
    devs = {pair: pair.eni, tasks[0]: TASK_DEV | ONE, tasks[1]: TASK_DEV | TWO}
    for turn in range(3):
        for number, place in enumerate(devs):
            send(place, 50 + 7 * number + turn)
            send(place, 30 + 5 * number, socket.AF_INET6)
            send(place, 3 + number, segment=400)
            stream(place, 100_000 * (1 + number))
    wanted = {}
    for number, (place, dev) in enumerate(devs.items()):
        udp4, udp6 = 3 * (50 + 7 * number) + 3 + 30 * (3 + number), 3 * (30 + 5 * number)
        assert until(lambda: place.counted("udp4") == udp4)  # noqa: B023
        assert until(lambda: place.counted("udp6") == udp6)  # noqa: B023
        wanted[dev, "udp"] = udp4 + udp6
    for place, dev in devs.items():
        assert until(lambda: counted(wired)[dev, "tcp"] == place.counted("tcp4"))  # noqa: B023
        wanted[dev, "tcp"] = place.counted("tcp4")
    sample = wired.maps.read()
    assert wanted == counted(wired)
    assert {(dev, 0) for dev in devs.values()} == set(sample.enis)
    for dev in devs.values():
        total = wanted[dev, "udp"] + wanted[dev, "tcp"]
        assert total == sum(slot.dns for slot in sample.enis[dev, 0].slots)


@pytest.mark.parametrize("class_id", [1, 0x00FF, 0x0100, 0x8000, 0xFFFF])
def test_every_bit_of_a_class_id_arrives(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, class_id: int
) -> None:
    """All 16 bits are part of the key, and no bit besides."""
    attach(make_attacher, wired, pair, class_id)
    send(pair, 3)
    assert {(TASK_DEV | class_id, "udp"): 3} == counted(wired)


def test_an_eni_that_was_not_added_counts_nothing(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher
) -> None:
    """The node's own index has an entry: it is not what a task's packets are looked up by."""
    make_attacher("clsact", class_id=ONE).attach(pair.eni, "eni", TASK_HOOKS)
    send(pair, 3)
    assert until(lambda: pair.counted("udp4") == 3)
    assert {} == counted(wired)


def test_the_sender_is_the_process(
    wired: Kernel, tasks: tuple[Pair, Pair], make_attacher: MakeAttacher
) -> None:
    """Two processes in cgroups of their own, and this one: three rows with the ids of those."""
    attach(make_attacher, wired, tasks[0], ONE)
    places = [cgroup_root() / f"eni53t-{os.getpid()}-task{number}" for number in range(2)]
    wanted = {own_cgroup(): 5}
    try:
        for number, place in enumerate(places):
            place.mkdir()
            wanted[place.stat().st_ino] = 20 + number
            script = f'echo $$ > {place}/cgroup.procs && exec python3 -c "$0" {20 + number}'
            enter = ("nsenter", f"--net=/run/netns/{tasks[0].node.name}", "sh", "-c", script)
            subprocess.run([*enter, _SEND], check=True)
        send(tasks[0], 5)
    finally:
        for place in places:
            if place.exists():
                assert until(lambda: not (place / "cgroup.procs").read_text())  # noqa: B023
                place.rmdir()
    sample = wired.maps.read()
    assert wanted == {key.cgroup_id: packets for key, packets in sample.senders.items()}
    assert {0} == {key.ingress for key in sample.senders}


_SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[1])):
    sender.sendto(b"question", ("10.0.0.2", 53))
"""


def test_an_answer_belongs_to_the_task_that_asked(
    wired: Kernel, tasks: tuple[Pair, Pair], make_attacher: MakeAttacher
) -> None:
    """Same addresses, port and id in both: an answer has no latency where nobody asked."""
    one, two = tasks
    attach(make_attacher, wired, one, ONE)
    attach(make_attacher, wired, two, TWO)

    def answer(task: Pair, rcode: int) -> None:
        with task.vpc.socket() as server:
            server.bind(("10.0.0.2", 53))
            server.sendto(f.dns_answer(identity=11, rcode=rcode), ("10.0.0.1", 41000))

    with one.node.socket() as client:
        client.bind(("10.0.0.1", 41000))
        client.sendto(f.dns_query(identity=11), ("10.0.0.2", 53))
    answer(two, 3)
    assert until(lambda: bool(wired.maps.read().enis[TASK_DEV | TWO, 0].responses))
    answer(one, 2)
    assert until(lambda: bool(wired.maps.read().enis[TASK_DEV | ONE, 0].responses))
    enis = wired.maps.read().enis
    first, second = enis[TASK_DEV | ONE, 0], enis[TASK_DEV | TWO, 0]
    assert ({2: 1}, {3: 1}) == (first.responses, second.responses)
    assert (1, 0) == (sum(first.response_buckets), sum(second.response_buckets))


def test_detaching_leaves_a_task_as_it_was(
    wired: Kernel, tasks: tuple[Pair, Pair], make_attacher: MakeAttacher
) -> None:
    """Nothing of ours on it, nothing more counted, and the other task goes on."""
    one, two = tasks
    before = one.node.traces("eni")
    attacher = attach(make_attacher, wired, one, ONE)
    attach(make_attacher, wired, two, TWO)
    assert "eni53:task_egress" in one.node.traces("eni")
    for place in tasks:
        send(place, 3)
    attacher.detach_all()
    assert before == one.node.traces("eni")
    for place in tasks:
        send(place, 5)
        assert until(lambda: place.counted("udp4") == 8)  # noqa: B023
    assert {(TASK_DEV | ONE, "udp"): 3, (TASK_DEV | TWO, "udp"): 8} == counted(wired)


@pytest.mark.parametrize("direction", [INGRESS, EGRESS])
def test_a_foreign_filter_in_a_task_stays(
    wired: Kernel, tasks: tuple[Pair, Pair], make_attacher: MakeAttacher, direction: str
) -> None:
    """Somebody's filter on the task's ENI runs behind ours and is as it was afterwards."""
    task = tasks[0]
    task.node.tc("qdisc", "add", "dev", "eni", "clsact")
    with inside(task.node.name):
        table = LinkTable()
    try:
        add_foreign(table, wired, task.eni, direction)
        before = task.node.traces("eni")
        attacher = attach(make_attacher, wired, task, ONE)
        assert attacher.is_first(task.eni)
        assert ["policy"] == foreign_filters(table.ipr, task.eni, direction)
        send(task, 3)
        assert {(TASK_DEV | ONE, "udp"): 3} == counted(wired)
        attacher.detach_all()
        assert before == task.node.traces("eni")
    finally:
        table.close()


def attach_and_die(kernel: Kernel, task: Pair, ledger: Path) -> None:
    """A process of its own attaches in the task, and is killed."""
    child = os.fork()
    if not child:
        try:
            with inside(task.node.name):
                attacher = Attacher(LinkTable().ipr, kernel.loaded, "clsact", ledger, ONE)
            attacher.attach(task.eni, "eni", TASK_HOOKS)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


def test_leftovers_in_a_task_are_swept(
    wired: Kernel, tasks: tuple[Pair, Pair], make_attacher: MakeAttacher, tmp_path: Path
) -> None:
    """Filters of a killed one still count; the next sweeps them and its qdisc, in this task."""
    one, two = tasks
    ledgers = [tmp_path / "one.json", tmp_path / "two.json"]
    before = one.node.traces("eni")
    for task, ledger in zip(tasks, ledgers, strict=True):
        attach_and_die(wired, task, ledger)
        assert "eni53:task_ingress" in task.node.traces("eni")
    left = two.node.traces("eni")
    attacher = make_attacher("clsact", ledgers[0], where=one.node, class_id=TWO)
    assert (1, 0) == (attacher.sweep({one.eni: "eni"}), attacher.sweep({one.eni: "eni"}))
    assert (before, left) == (one.node.traces("eni"), two.node.traces("eni"))
    assert (False, True) == tuple(map(Path.exists, ledgers))
    wired.maps.add_eni(TASK_DEV | TWO)
    attacher.attach(one.eni, "eni", TASK_HOOKS)
    send(one, 3)
    assert {(TASK_DEV | TWO, "udp"): 3} == counted(wired), "the old class id is still at work"


def test_a_task_has_its_own_key(in_task: Kernel) -> None:
    """Run on one device: the program for tasks counts under the class id, never the index."""
    in_task.maps.add_eni(in_task.ifindex or 0)
    assert NEXT == in_task.run("task_egress", _QUERY)
    assert {(TASK_DEV, "udp"): 1} == counted(in_task)
    assert NEXT == in_task.run("eni_egress", _QUERY)
    assert {(TASK_DEV, "udp"): 1, (in_task.ifindex, "udp"): 1} == counted(in_task)
