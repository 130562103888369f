"""Network namespaces held by a descriptor, of real processes."""

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest
from eni53.inventory.netns import Netns, netns_inode

from tests.fixtures.runtimes import process

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter a namespace")
HERE = Path("/proc/self/ns/net")


def descriptors():
    """How many are open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def elsewhere():
    """A process in a namespace of its own."""
    with process(netns=True) as child:
        yield child


def test_ones_own_by_thread_and_by_process():
    """They are the same, and have the number that everybody sees."""
    with contextlib.closing(Netns.own()) as own:
        with contextlib.closing(Netns.of_process(os.getpid())) as same:
            assert own.inode == same.inode == HERE.stat().st_ino == netns_inode(os.getpid())
        assert not os.get_inheritable(own.fd)
        fd = own.fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_anothers_is_another(elsewhere):
    """Known by its inode."""
    with contextlib.closing(Netns.of_process(elsewhere.pid)) as other:
        assert other.inode == netns_inode(elsewhere.pid) != netns_inode(os.getpid())


def test_it_stays_while_it_is_held(elsewhere):
    """Its process has gone, and its number is not given to the next one."""
    with contextlib.closing(Netns.of_process(elsewhere.pid)) as held:
        elsewhere.kill()
        elsewhere.wait()
        assert os.fstat(held.fd).st_ino == held.inode
        with process(netns=True) as following:
            assert netns_inode(following.pid) != held.inode
        assert Netns.of_process(elsewhere.pid) is None
        assert netns_inode(elsewhere.pid) is None


@pytest.mark.parametrize("pid", [0, -1, 1 << 40])
def test_what_is_no_process_has_none(pid):
    """Runtimes say pids; what they say may be nonsense."""
    before = descriptors()
    assert Netns.of_process(pid) is None
    assert netns_inode(pid) is None
    assert descriptors() == before


def test_another_proc_may_be_asked(tmp_path):
    """The host's, mounted somewhere else."""
    (tmp_path / "7" / "ns").mkdir(parents=True)
    (tmp_path / "7" / "ns" / "net").write_text("")
    assert netns_inode(7, str(tmp_path)) == (tmp_path / "7/ns/net").stat().st_ino
    assert netns_inode(8, str(tmp_path)) is None


@ROOT
def test_one_thread_is_in_it_and_no_other(elsewhere):
    """What is made inside stays there; afterwards, and after an error, all is as before."""
    before, seen = descriptors(), []
    with contextlib.closing(Netns.of_process(elsewhere.pid)) as other:

        def enter():
            with contextlib.suppress(ZeroDivisionError), other.entered():
                seen.append((Path("/proc/thread-self/ns/net").stat().st_ino, HERE.stat().st_ino))
                seen.append([name for _, name in socket.if_nameindex()])
                raise ZeroDivisionError
            seen.append(Path("/proc/thread-self/ns/net").stat().st_ino)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        here = netns_inode(os.getpid())
        assert seen[0] == (other.inode, here)
        assert "lo" in seen[1]
        assert seen[2] == here
    assert descriptors() == before


def test_who_may_not_enter_is_told_so(elsewhere):
    """Without CAP_SYS_ADMIN: an OSError, nothing open, and the thread is where it was."""
    with contextlib.closing(Netns.of_process(elsewhere.pid)) as other:
        pid = os.fork()
        if pid == 0:  # nothing but _exit may leave here
            code = 1
            with contextlib.suppress(BaseException):
                if os.geteuid() == 0:
                    os.setuid(65534)
                code = 2
                before, here = descriptors(), HERE.stat().st_ino
                try:
                    with other.entered():
                        code = 3
                except PermissionError as error:
                    same = (descriptors(), HERE.stat().st_ino) == (before, here)
                    code = 0 if same and error.strerror == "Operation not permitted" else 4
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
