"""ENIs that come into a task's namespace some time after its pause container, and go again."""

from __future__ import annotations

from collections.abc import Callable

from eni53.inventory.links import LinkEvents
from eni53.kernel.layout import TASK_DEV
from eni53.tasknets import TaskNets

from .kernel import Kernel
from .netns import Namespace
from .pause import Pause, attached, calm, counted, follow, move_in, route, set_up, stirs, the_eni


def test_an_eni_that_comes_late(
    kernel: Kernel, host: Namespace, nets: TaskNets, pause: Pause
) -> None:
    """Nothing at first; the link, the address: still nothing; the default route: it is attached."""
    nets.watch(pause.pid)
    assert ({}, (), {}, {pause.inode}) == (
        nets.state.enis,
        nets.state.branches,
        nets.state.failed,
        set(nets.state.events),
    )
    move_in(host, pause)
    assert stirs(nets, pause)
    set_up(pause)
    calm(nets, pause)
    assert ({}, {}) == (nets.state.enis, nets.state.failed)
    route(pause)
    follow(nets, pause, lambda: bool(nets.state.enis))
    eni = the_eni(nets)
    assert (pause.inode, "eth1") == (eni.netns, eni.link.name)
    assert {eni.dev} == set(nets.state.enis)
    assert eni.dev & TASK_DEV
    pause.send(5)
    assert {eni.dev: 5} == counted(kernel)
    calm(nets, pause)
    assert eni == the_eni(nets), "our own filters are no reason to begin anew"


def test_an_eni_that_was_there_first(
    kernel: Kernel, host: Namespace, nets: TaskNets, pause: Pause
) -> None:
    """The agent starts after the task: watching finds it at once."""
    move_in(host, pause)
    set_up(pause)
    route(pause)
    nets.watch(pause.pid)
    assert "eth1" == the_eni(nets).link.name
    pause.send(3)
    assert {the_eni(nets).dev: 3} == counted(kernel)


def test_two_tasks_are_told_apart(
    kernel: Kernel, host: Namespace, nets: TaskNets, make_pause: Callable[[], Pause]
) -> None:
    """The same index and name in both: each has a key of its own, and only its own packets."""
    pauses = [make_pause(), make_pause()]
    for number, pause in enumerate(pauses):
        move_in(host, pause, index=77, vpc=f"vpc{number}")
        set_up(pause)
        route(pause)
        nets.watch(pause.pid)
    enis = {eni.netns: eni for eni in nets.state.enis.values()}
    assert {pause.inode for pause in pauses} == set(enis)
    assert {77} == {eni.link.index for eni in enis.values()}
    for number, pause in enumerate(pauses):
        pause.send(3 + number)
    assert {enis[p.inode].dev: 3 + n for n, p in enumerate(pauses)} == counted(kernel)


def test_another_eni_is_another_one(
    kernel: Kernel, host: Namespace, nets: TaskNets, pause: Pause
) -> None:
    """One vanishes: it is lost. The next has a new key, and what the first counted stays apart."""
    first = attached(host, nets, pause)
    pause.send(2)
    host.ip("link", "del", "vpc")
    follow(nets, pause, lambda: not nets.state.enis)
    move_in(host, pause)
    set_up(pause)
    route(pause)
    follow(nets, pause, lambda: bool(nets.state.enis))
    second = the_eni(nets)
    assert first.dev != second.dev
    pause.send(3)
    assert {first.dev: 2, second.dev: 3} == counted(kernel)


def test_another_eni_with_the_same_index(
    kernel: Kernel, host: Namespace, nets: TaskNets, pause: Pause
) -> None:
    """Gone and replaced between two looks: it has no program yet, and is not the one that was."""
    first = attached(host, nets, pause, index=88)
    calm(nets, pause)
    host.ip("link", "del", "vpc")
    move_in(host, pause, index=88)
    set_up(pause)
    route(pause)
    calm(nets, pause)
    second = the_eni(nets)
    assert (88, 88) == (first.link.index, second.link.index)
    pause.send(3)
    assert {second.dev: 3} == counted(kernel)
    assert first.dev != second.dev


def test_a_default_route_that_moves_takes_our_filters_along(
    kernel: Kernel, host: Namespace, nets: TaskNets, pause: Pause
) -> None:
    """The interface that was the ENI is as we found it, and what is sent there is not counted."""
    move_in(host, pause)
    before = pause.traces()
    set_up(pause)
    route(pause)
    nets.watch(pause.pid)
    first = the_eni(nets)
    pause.ip("link", "add", "eth2", "type", "veth", "peer", "name", "out2")
    for name in ("eth2", "out2"):
        pause.ip("link", "set", name, "up")
    pause.ip("route", "replace", "default", "dev", "eth2")
    calm(nets, pause)
    second = the_eni(nets)
    assert ("eth2", True) == (second.link.name, first.dev != second.dev)
    assert "eni53" in pause.traces("eth2")
    assert before == pause.traces()


def test_events_are_what_is_waited_on(nets: TaskNets, pause: Pause) -> None:
    """One listener to a namespace, the same one as long as it is watched."""
    nets.watch(pause.pid)
    first = nets.state.events[pause.inode]
    nets.look(pause.inode)
    assert isinstance(first, LinkEvents)
    assert first is nets.state.events[pause.inode]
