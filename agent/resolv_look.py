"""One look at the resolv.conf of some containers, in a thread that nobody waits for.

What hangs hangs only that thread: see `resolv_watch`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address

from .inventory.bound import MAX_BYTES as MAX_TABLE
from .inventory.bound import bound, covers, is_local, whole
from .inventory.resolv_conf import MAX_BYTES, parse
from .inventory.rootfs import Unsupported, process, read_below, read_in_root
from .model import ResolvConf

_PATH = "etc/resolv.conf"
_DOCKERS = "127.0.0.11"  # answered by dockerd in there, on another port, by NAT
_MAX_SERVERS = 64


@dataclass(frozen=True, slots=True)
class Target:
    """A container to look at.

    Attributes:
        id: The runtime's, which is in the name of its cgroup.
        pid: Of a process in it.
        netns: Inode of its network namespace; None when that is not known.
    """

    id: str
    pid: int
    netns: int | None


class Look(threading.Thread):
    """Looks at *targets*, one after the other.

    Args:
        targets: At whom.
        before: What is known of the others.
        done: Called from the thread when it is through.

    Attributes:
        at: At whom it looks now.
        given_up: Set it, and the thread ends after this one.
        confs: What was found; None where it could not be learned.
        on_node: As in `model.Snapshot`.
        unsupported: The kernel has not what it takes.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        before: Iterable[ResolvConf],
        done: Callable[[], None],
    ) -> None:
        super().__init__(name="resolv.conf", daemon=True)
        self._targets = tuple(targets)
        self._before = tuple(before)
        # Of two hundred containers most have the same file: one value for all of them.
        self._same = {conf: conf for conf in self._before}
        self._done = done
        self._listening: dict[int | None, frozenset[str] | None] = {}
        self.at: Target | None = None
        self.given_up = False
        self.unsupported = False
        self.confs: dict[Target, ResolvConf | None] = {}
        self.on_node: tuple[str, ...] = ()

    def run(self) -> None:
        """Begin; see `threading.Thread`."""
        try:
            for target in self._targets:
                if self.given_up:
                    return
                self.at = target
                self.confs[target] = self._look(target)
            self.at = None
            found = (conf for conf in self.confs.values() if conf is not None)
            self.on_node = on_node((*self._before, *found))
        except Unsupported:
            self.unsupported = True
        finally:
            self._done()

    def _look(self, target: Target) -> ResolvConf | None:
        try:
            with process(target.pid, target.id) as fd:
                conf = parse(read_in_root(fd, _PATH, MAX_BYTES + 1))
                if conf is None:
                    return None
                listening = self._heard(conf, fd, target.netns)
        except Unsupported:
            raise
        except OSError:
            return None
        conf = replace(conf, listening=listening)
        return self._same.setdefault(conf, conf)

    def _heard(self, conf: ResolvConf, fd: int, netns: int | None) -> tuple[str, ...] | None:
        own = [server for server in conf.nameservers if is_own(server)]
        if not own:
            return None
        if netns is None or netns not in self._listening:
            self._listening[netns] = _listening(lambda name: read_below(fd, name, MAX_TABLE))
        heard = self._listening[netns]
        return None if heard is None else tuple(one for one in own if covers(heard, one))


def is_own(server: str) -> bool:
    """Whether *server* is an address of whoever asks, where somebody in there must listen."""
    return ip_address(server).is_loopback and server != _DOCKERS


def on_node(confs: Iterable[ResolvConf]) -> tuple[str, ...]:
    """Nameservers of *confs* that are listened on in the network namespace of this thread."""
    servers = {s for conf in confs for s in conf.nameservers if not ip_address(s).is_loopback}
    if not servers:
        return ()

    def read(name: str) -> bytes:
        with open(f"/proc/thread-self/{name}", "rb") as file:  # noqa: PTH123
            return file.read(MAX_TABLE)

    heard = _listening(read)
    if not heard:
        return ()
    some = sorted(servers)[:_MAX_SERVERS]
    return tuple(s for s in some if covers(heard, s) and is_local(s))


def _listening(read: Callable[[str], bytes]) -> frozenset[str] | None:
    """Addresses that port 53 is bound to; None when that cannot be learned."""
    found: frozenset[str] = frozenset()
    for name in ("net/udp", "net/udp6"):
        try:
            table = read(name)
        except FileNotFoundError:  # no IPv6 here
            continue
        except OSError:
            return None
        if not whole(table):
            return None
        found |= bound(table)
    return found
