"""How watching a task's namespace ends, and what happens when it cannot begin."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from eni53.tasknets import TaskNets

from .kernel import Kernel
from .netns import Namespace, until
from .pause import Pause, attached, counted, follow, move_in, route, set_up, the_eni
from .test_loader import descriptors

_LONG_S = 20.0  # namespaces are taken down when the kernel finds the time
_CAP_SYS_ADMIN = 21
_SYS_CAPGET, _SYS_CAPSET = {"x86_64": (125, 126), "aarch64": (90, 91)}[os.uname().machine]


def test_letting_go_leaves_a_task_as_it_was(
    kernel: Kernel, host: Namespace, nets: TaskNets, pause: Pause, tmp_path: Path
) -> None:
    """Filters, qdisc and their memory are gone, and so is every descriptor of ours."""
    before_all = descriptors()
    move_in(host, pause)
    before = pause.traces()
    set_up(pause)
    route(pause)
    nets.watch(pause.pid)
    assert "eni53:task_egress" in pause.traces()
    assert [f"qdiscs-{pause.inode}.json"] == [path.name for path in tmp_path.iterdir()]
    nets.unwatch(pause.inode)
    nets.unwatch(pause.inode)
    assert before == pause.traces()
    assert [] == list(tmp_path.iterdir())
    assert ({}, {}) == (nets.state.enis, nets.state.events)
    assert before_all == descriptors()


def test_a_foreign_filter_in_a_task_is_left_alone(
    host: Namespace, nets: TaskNets, pause: Pause
) -> None:
    """Its qdisc was there before us: it stays, with the filter."""
    move_in(host, pause)
    pause.enter("tc", "qdisc", "add", "dev", "eth1", "clsact")
    rule = ("prio", "7", "protocol", "ip", "u32", "match", "u32", "0", "0")
    pause.enter("tc", "filter", "add", "dev", "eth1", "egress", *rule)
    before = pause.traces()
    set_up(pause)
    route(pause)
    nets.watch(pause.pid)
    assert before != pause.traces()
    nets.unwatch(pause.inode)
    assert before == pause.traces()


def test_a_task_that_ends_is_let_go(host: Namespace, nets: TaskNets, pause: Pause) -> None:
    """We keep its namespace alive until we are told; then it goes, and its ENI with it."""
    attached(host, nets, pause)
    assert () == nets.check()
    pause.end()
    assert (pause.inode,) == nets.check() == nets.check()
    assert "vpc" in host.ip("link", "show")
    nets.unwatch(pause.inode)
    assert () == nets.check()
    assert until(lambda: "vpc" not in host.ip("link", "show"), _LONG_S)


def test_stopping_lets_every_task_go(
    kernel: Kernel, host: Namespace, make_pause: Callable[[], Pause], tmp_path: Path
) -> None:
    """One has an ENI, one had, one waits: all of their namespaces can end."""
    nets = TaskNets(kernel.loaded, kernel.maps, tmp_path)
    pauses = [make_pause() for _ in range(3)]
    for number, pause in enumerate(pauses[:2]):
        move_in(host, pause, vpc=f"vpc{number}")
        set_up(pause)
        route(pause)
    for pause in pauses:
        nets.watch(pause.pid)
    assert 2 == len(nets.state.enis)
    host.ip("link", "del", "vpc1")
    follow(nets, pauses[1], lambda: len(nets.state.enis) == 1)
    nets.stop()
    assert "eni53" not in pauses[0].traces()
    assert [] == list(tmp_path.iterdir()), "what is remembered of a namespace that may be gone"
    for number, pause in enumerate(pauses):
        pause.ip("link", "add", "inner", "type", "veth", "peer", "name", f"seen{number}")
        pause.ip("link", "set", f"seen{number}", "netns", f"/run/netns/{host.name}")
        pause.end()
    assert until(lambda: "seen" not in host.ip("link", "show"), _LONG_S)


def test_what_is_left_of_a_killed_agent(
    kernel: Kernel, host: Namespace, nets: TaskNets, pause: Pause, tmp_path: Path
) -> None:
    """The next one finds filters and memory of the last: swept, then attached once."""
    move_in(host, pause)
    before = pause.traces()
    set_up(pause)
    route(pause)
    child = os.fork()
    if not child:
        try:
            TaskNets(kernel.loaded, kernel.maps, tmp_path).watch(pause.pid)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert "eni53:task_egress" in pause.traces()
    nets._last_id = 40  # so that it is seen which filter counts
    nets.watch(pause.pid)
    assert 2 == pause.traces().count("eni53:")
    pause.send(3)
    assert {the_eni(nets).dev: 3} == counted(kernel)
    nets.unwatch(pause.inode)
    assert before == pause.traces()


def test_what_is_no_task(host: Namespace, nets: TaskNets, make_pause: Callable[[], Pause]) -> None:
    """Host mode, a dead process, the same one twice: nothing is held, nothing happens."""
    ended, pause = make_pause(), make_pause()
    ended.end()
    nets.watch(pause.pid)
    state, before = nets.state, descriptors()
    host = subprocess.Popen(["sleep", "infinity"])  # in the node's namespace, as this thread is
    try:
        for pid in (host.pid, ended.pid, pause.pid, pause.pid, 0, 1 << 22):
            nets.watch(pid)
    finally:
        host.kill()
        host.wait()
    assert state == nets.state
    assert before == descriptors()
    nets.look(4242)
    nets.unwatch(4242)


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def _drop_sys_admin() -> None:
    """Take CAP_SYS_ADMIN from this thread alone."""
    libc, sets = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 6)()
    header = ctypes.byref(_Header(0x20080522, 0))
    assert 0 == libc.syscall(_SYS_CAPGET, header, ctypes.byref(sets))
    sets[0] &= ~(1 << _CAP_SYS_ADMIN)  # effective, the lower 32
    assert 0 == libc.syscall(_SYS_CAPSET, header, ctypes.byref(sets))


def test_without_the_capability_it_says_so(nets: TaskNets, make_pause: Callable[[], Pause]) -> None:
    """A namespace that may not be entered is one line; it is tried again while it is there."""
    pauses = [make_pause(), make_pause()]
    before_all = descriptors()

    def attempt() -> None:
        _drop_sys_admin()
        for pause in pauses:
            nets.watch(pause.pid)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    failed = nets.state.failed
    assert {f"net:[{pause.inode}]" for pause in pauses} == set(failed)
    assert all("Operation not permitted" in reason for reason in failed.values())
    assert before_all == descriptors()
    pauses[1].end()
    assert () == nets.check()
    assert ({}, {pauses[0].inode}) == (nets.state.failed, set(nets.state.events))


def test_a_lost_capability_is_one_failed_task(
    host: Namespace, nets: TaskNets, pause: Pause
) -> None:
    """Looking fails: it is said, and the next look makes up for it."""
    nets.watch(pause.pid)
    move_in(host, pause)
    set_up(pause)
    route(pause)

    def attempt() -> None:
        _drop_sys_admin()
        nets.look(pause.inode)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert {f"net:[{pause.inode}]"} == set(nets.state.failed)
    assert () == nets.check()
    assert ({}, 1) == (nets.state.failed, len(nets.state.enis))
