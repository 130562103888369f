"""Reading in containers' roots: real processes, with traps laid for the reader.

A container is stood for by a process with a root directory of its own; its id is taken from the
cgroup this test is in, as the reader looks for one there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from eni53 import resolv_watch
from eni53.gather import Place
from eni53.inventory import rootfs
from eni53.inventory.rootfs import process, read_in_root
from eni53.model import ResolvConf, Workload
from eni53.resolv_look import Look, Target
from eni53.resolv_watch import ResolvWatch

HERE = Path("/proc/self/cgroup").read_text().splitlines()[-1]
"""A line of it; whoever this process starts is in there."""
GOOD = b"nameserver 10.0.0.2\n"
SERVER = ResolvConf(("10.0.0.2",))
_libc = ctypes.CDLL(None)


@dataclass
class Jail:
    """A process with a root of its own."""

    root: Path
    pid: int

    @property
    def conf(self) -> Path:
        """Its resolv.conf, from outside."""
        return self.root / "etc/resolv.conf"


@contextlib.contextmanager
def jailed(root: Path, prepare: Callable[[Path], object] = lambda _: None) -> Iterator[Jail]:
    """A process whose root is *root*, after it has done what *prepare* does."""
    (root / "etc").mkdir(parents=True)
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            prepare(root)
            os.chroot(root)
            os.chdir("/")
            os.write(told, b"1")
            signal.pause()
        os._exit(0)
    os.close(told)
    try:
        assert os.read(ready, 1) == b"1"
        yield Jail(root, pid)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)


@pytest.fixture
def jail(tmp_path: Path) -> Iterator[Jail]:
    """Its /etc is empty."""
    with jailed(tmp_path / "root") as jail:
        yield jail


def hanging_etc(root: Path) -> None:
    """A file system of its own making on /etc, that never answers; gone with the process."""
    assert _libc.unshare(0x00020000) == 0  # CLONE_NEWNS
    assert _libc.mount(b"none", b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
    fd = os.open("/dev/fuse", os.O_RDWR)
    data = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    assert _libc.mount(b"hang", bytes(root / "etc"), b"fuse", 0, data) == 0


def looked(jail: Jail, netns: int | None = 1, container_id: str = HERE) -> ResolvConf | None:
    """What one look finds, in a bounded time."""
    done = threading.Event()
    target = Target(container_id, jail.pid, netns)
    look = Look([target], (), done.set)
    look.start()
    assert done.wait(10), "it hangs"
    look.join()
    return look.confs[target]


def test_a_plain_file_and_links_within_its_root(jail: Jail) -> None:
    """As Debian and systemd have it; an absolute link means the container's own root."""
    jail.conf.write_bytes(GOOD)
    assert looked(jail) == SERVER
    jail.conf.unlink()
    (jail.root / "run").mkdir()
    (jail.root / "run/real.conf").write_bytes(GOOD)
    for link in ("/run/real.conf", "../run/real.conf", "../../../../run/real.conf"):
        jail.conf.unlink(missing_ok=True)
        jail.conf.symlink_to(link)
        assert looked(jail) == SERVER, link


def out_by_link(jail: Jail) -> None:
    """To a file of the node that is one to look at."""
    secret = jail.root.parent / "secret.conf"
    secret.write_text("nameserver 6.6.6.6\n")
    jail.conf.symlink_to("../" * 30 + str(secret).lstrip("/"))


def out_by_absolute_link(jail: Jail) -> None:
    """The same by its whole name."""
    secret = jail.root.parent / "secret.conf"
    secret.write_text("nameserver 6.6.6.6\n")
    jail.conf.symlink_to(secret)


def directory_link(jail: Jail) -> None:
    """/etc itself leads out."""
    (jail.root.parent / "resolv.conf").write_text("nameserver 6.6.6.6\n")
    (jail.root / "etc").rmdir()
    (jail.root / "etc").symlink_to(jail.root.parent)


def loop(jail: Jail) -> None:
    """A link to itself."""
    jail.conf.symlink_to("resolv.conf")


def pipe(jail: Jail) -> None:
    """Who opens it to read waits for a writer."""
    os.mkfifo(jail.conf)


def device(jail: Jail) -> None:
    """It never ends; of another one the opening alone would do something."""
    os.mknod(jail.conf, 0o666 | stat.S_IFCHR, os.makedev(1, 5))


def sock(jail: Jail) -> None:
    """A socket."""
    where = Path.cwd()
    os.chdir(jail.conf.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("resolv.conf")
    os.chdir(where)


def folder(jail: Jail) -> None:
    """A directory."""
    jail.conf.mkdir()


def sparse(jail: Jail) -> None:
    """A gibibyte of nothing, with a server at its end."""
    with jail.conf.open("wb") as file:
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + GOOD)


def missing(jail: Jail) -> None:
    """Nothing."""


def no_text(jail: Jail) -> None:
    """What is no text."""
    jail.conf.write_bytes(bytes(range(256)) * 99)


@pytest.mark.parametrize(
    "trap",
    [out_by_link, out_by_absolute_link, directory_link, loop, pipe, device, sock, folder, sparse,
     missing, no_text],
)  # fmt: skip
def test_a_trap_tells_nothing_and_holds_up_nobody(jail: Jail, trap: Callable[[Jail], None]) -> None:
    """Unknown, at once, and nothing of the node's own."""
    trap(jail)
    began_s = time.monotonic()
    assert looked(jail) is None
    assert time.monotonic() - began_s < 5


def test_what_is_in_a_pipe_is_left_there(jail: Jail) -> None:
    """It is for another reader."""
    os.mkfifo(jail.conf)
    held = os.open(jail.conf, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(held, GOOD)
        assert looked(jail) is None
        assert os.read(held, 99) == GOOD
    finally:
        os.close(held)


def test_a_magic_link_is_not_followed(jail: Jail) -> None:
    """/proc/self/root of whoever reads is not the container's root."""
    (jail.root / "proc").mkdir()
    assert _libc.mount(b"proc", bytes(jail.root / "proc"), b"proc", 0, None) == 0
    try:
        secret = jail.root.parent / "secret.conf"
        secret.write_text("nameserver 6.6.6.6\n")
        jail.conf.symlink_to(f"/proc/{os.getpid()}/root{secret}")
        assert looked(jail) is None
    finally:
        assert _libc.umount(bytes(jail.root / "proc")) == 0


def test_another_process_with_its_number_is_not_read(jail: Jail) -> None:
    """Its cgroup is not the container's; and a number that nobody has."""
    jail.conf.write_bytes(GOOD)
    assert looked(jail, container_id="ab" * 32) is None
    with process(jail.pid, HERE) as fd:
        os.kill(jail.pid, signal.SIGSTOP)
        assert read_in_root(fd, "etc/resolv.conf", 99) == GOOD
    gone = os.fork()
    if not gone:
        os._exit(0)
    os.waitpid(gone, 0)
    assert looked(Jail(jail.root, gone)) is None


def test_a_file_without_end_is_read_to_the_limit(jail: Jail) -> None:
    """A server first, then a gibibyte."""
    with jail.conf.open("wb") as file:
        file.write(GOOD)
        file.truncate(1 << 30)
    assert looked(jail) == SERVER


def test_who_listens_is_told_of_loopback_only(jail: Jail) -> None:
    """Of a namespace in which nobody listens on 127.0.0.54; of other servers nothing is asked."""
    jail.conf.write_text("nameserver 127.0.0.54\nnameserver 10.0.0.2\n")
    assert looked(jail) == ResolvConf(("127.0.0.54", "10.0.0.2"), listening=())
    jail.conf.write_text("nameserver 127.0.0.11\n")
    assert looked(jail) == ResolvConf(("127.0.0.11",))


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_without_the_call_is_told_from_a_file_that_says_so(
    jail: Jail, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A container's file system may answer with any error; only for itself."""
    real = rootfs._openat2
    monkeypatch.setattr(rootfs, "_openat2", lambda fd, p: real(fd, p) if p == "/" else (-1, code))
    assert looked(jail) is None
    monkeypatch.setattr(rootfs, "_openat2", lambda fd, p: (-1, code))
    done = threading.Event()
    look = Look([Target(HERE, jail.pid, 1)], (), done.set)
    look.start()
    assert done.wait(10)
    look.join()
    assert look.unsupported


def test_a_file_system_that_hangs_costs_its_own_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: that thread waits in the kernel, and the other container is read."""
    monkeypatch.setattr(resolv_watch, "HANGS_AFTER_S", 0.5)
    failed: list[tuple[str, str]] = []
    whose = [Workload("container", "", name) for name in ("bad", "good")]
    with jailed(tmp_path / "bad", hanging_etc) as bad, jailed(tmp_path / "good") as good:
        good.conf.write_bytes(GOOD)
        places = [Place(jail.pid, 1, 1, None, host_network=False) for jail in (bad, good)]
        running = [(HERE, workload, place) for workload, place in zip(whose, places, strict=True)]
        watch = ResolvWatch(lambda: running, lambda *told: failed.append(told))

        async def looks() -> None:
            began_s = time.monotonic()
            await watch.look()
            assert time.monotonic() - began_s < 10
            await watch.look()

        asyncio.run(looks())
        threads = [thread for thread in threading.enumerate() if thread.name == "resolv.conf"]
        for thread in threads:
            thread.join(1)  # the other one may be about to end
        hung = [thread for thread in threads if thread.is_alive()]
        assert len(hung) == 1
    hung[0].join(10)
    assert not hung[0].is_alive()
    assert watch.confs == {whose[1]: SERVER}
    assert failed == [("resolv.conf", "a container's file system hangs")]
