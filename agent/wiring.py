"""Keeps the programs on the right interfaces while interfaces come and go.

Belongs to the one thread that talks netlink; nothing here may be called from elsewhere.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import NeedError
from .inventory.cgroups import find_root
from .inventory.enis import choose_enis, workload_veths
from .inventory.ethtool import Ethtool
from .inventory.links import Changes, Link, LinkTable
from .kernel.attach import ENI_HOOKS, LOOPBACK_HOOKS, WORKLOAD_HOOKS, Attacher, AttachError, Hooks
from .kernel.loader import Loaded
from .kernel.maps import Maps
from .kernel.netlink import NetlinkError
from .model import Branch

_CILIUM = frozenset({"cilium_host", "cilium_net"})
_VETHS_FIRST_S = 0.5
REASSERTIONS = 3
REASSERT_WINDOW_S = 60.0
LEDGER_FILE = "qdiscs.json"


@dataclass(frozen=True, slots=True)
class Wired:
    """What is attached where, after a change.

    Attributes:
        enis: The ENIs' links, by index.
        veths: Host-side veths: index to the number of the namespace behind them.
        failed: Interfaces that could not be attached to, with the reason.
        attach_s: Seconds between a veth's message and its program, the slowest of this change.
        branches: Branch ENIs whose VLAN device is in this namespace.
        cilium: Cilium's devices are here: ``tc_index`` is its own, so no tags.
    """

    enis: Mapping[int, Link]
    veths: Mapping[int, int]
    failed: Mapping[str, str]
    attach_s: float = 0.0
    branches: tuple[Branch, ...] = ()
    cilium: bool = False


def find_enis(
    table: LinkTable, wanted: Collection[str], links: Mapping[int, Link] | None = None
) -> tuple[Link, ...]:
    """The ENIs of this namespace.

    Args:
        table: Netlink requests.
        wanted: Names given by the user; empty: found by themselves.
        links: What there is, when that is known already.

    Raises:
        NeedError: There is none, or a wanted one does not exist.
    """
    links = table.links() if links is None else links
    return choose_enis(links.values(), table.default_route_interfaces(), wanted)


def has_cilium(links: Iterable[Link]) -> bool:
    """Whether Cilium's devices are among *links*."""
    return any(link.name in _CILIUM for link in links)


class Wiring:
    """Attaches to what is there, and to what appears.

    Args:
        table: Netlink requests of this namespace.
        loaded: The programs.
        maps: Their maps.
        mode: ``auto``, ``tcx`` or ``clsact``.
        wanted: ENIs named by the user; empty: found by themselves.
        runtime_dir: Where the memory of our qdiscs is kept; None for none.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        table: LinkTable,
        loaded: Loaded,
        maps: Maps,
        mode: str,
        wanted: Collection[str],
        runtime_dir: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._maps = maps
        self._wanted = wanted
        self._clock = clock
        ledger = runtime_dir / LEDGER_FILE if runtime_dir is not None else None
        try:
            self._attacher = Attacher(table.ipr, loaded, mode, ledger)
        except AttachError as error:
            raise NeedError(f"{error}; unset ENI53_ATTACH to use clsact") from error
        self._links: dict[int, Link] = {}
        self._enis: dict[int, Link] = {}
        self._veths: dict[int, int] = {}
        self._failed: dict[str, str] = {}
        self._reasserted: dict[int, list[float]] = {}
        self._trunks: set[int] = set()
        self._cgroups = find_root() is not None
        self._control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._ethtool = Ethtool(self._control)

    @property
    def mode(self) -> str:
        """``tcx`` or ``clsact``."""
        return self._attacher.mode

    def start(self) -> Wired:
        """Sweep what a dead eni53 left, and attach to everything.

        Raises:
            NeedError: There is no ENI, or none of them can be attached to.
        """
        links = self._table.links()
        self._attacher.sweep({index: link.name for index, link in links.items()})
        wired = self.resync()
        if not set(self._enis) & self._attacher.attached:
            reasons = "; ".join(self._failed.values())
            raise NeedError(f"no ENI could be attached to: {reasons}")
        return wired

    def resync(self) -> Wired:
        """Compare with the kernel's own list and make up for whatever was missed."""
        started_s = self._clock()
        links = self._table.links()
        for index in set(self._links) - set(links):
            self._gone(index)
        self._links = links
        self._choose()
        # Veths first: what passes an ENI before its veth has our program carries no tag. But a
        # tcx link takes some 10 ms, and on a node of 200 veths counting must not wait for all.
        veths = deque(workload_veths(links.values(), self._enis))
        while veths and self._clock() - started_s < _VETHS_FIRST_S:
            self._add_veth(veths.popleft())
        self._attach_enis()
        for link in veths:
            self._add_veth(link)
        self._attach_loopback()
        # Who put a filter before ours once too often is left alone, for this long.
        self._defend_all(self._attacher.attached)
        return self._wired(started_s)

    def apply(self, changes: Changes) -> Wired:
        """Follow what happened since the last look."""
        if changes.lost:
            return self.resync()
        started_s = self._clock()
        for index in changes.gone:
            self._gone(index)
        rechoose = False
        for link in changes.appeared:
            self._links[link.index] = link
            rechoose = rechoose or link.kind != "veth"
        for link in workload_veths(changes.appeared, self._enis):
            self._add_veth(link)
        if rechoose:
            self._choose()
            self._attach_enis()
        self._defend_all(changes.filtered)
        return self._wired(started_s)

    def allowances(self) -> dict[int, Mapping[str, int]]:
        """The ENA driver's own counters, by ENI; those whose driver has none are absent.

        Raises:
            SourceError: One has them and does not tell.
        """
        found = ((i, self._ethtool.allowances(link.name)) for i, link in self._enis.items())
        return {index: counters for index, counters in found if counters is not None}

    def stop(self) -> None:
        """Take everything off again."""
        self._attacher.detach_all()
        self._control.close()

    def _choose(self) -> None:
        try:
            enis = find_enis(self._table, self._wanted, self._links)
        except NeedError:
            if not self._enis:
                raise
            return  # the last ENI went away; another may come
        for link in enis:
            if link.index in self._enis:
                continue
            try:
                self._maps.add_eni(link.index, trunk=link.index in self._trunks)
            except OSError as error:  # no room: it is tried again at the next look
                self._failed[link.name] = f"no room to count it: {error.strerror}"
                continue
            self._enis[link.index] = link
            if self._veths.pop(link.index, None) is not None:
                self._attacher.detach(link.index)
                self._maps.remove_veth(link.index)
        for branch in self._branches():
            self.add_branch(branch)

    def add_trunk(self, index: int) -> None:
        """What is tagged on this ENI belongs to branch ENIs. So it stays: AWS never undoes it."""
        if index not in self._trunks:
            if index in self._enis:
                self._maps.add_eni(index, trunk=True)
            self._trunks.add(index)

    def add_branch(self, branch: Branch) -> None:
        """There is a branch ENI on that trunk. Before its first packet, for it to have a limit."""
        # No room costs this one its entry and no other theirs; `BranchEntries` says so.
        with contextlib.suppress(OSError):
            self.add_trunk(branch.trunk)
            if branch.trunk in self._enis:
                self._maps.add_eni(branch.trunk, branch.vlan)

    def _branches(self) -> tuple[Branch, ...]:
        return tuple(
            Branch(link.link, link.vlan, link.mac.lower())
            for link in self._links.values()
            if link.kind == "vlan" and link.link in self._enis and link.link_netnsid is None
        )

    def _attach_enis(self) -> None:
        for link in self._enis.values():
            self._attach(link, ENI_HOOKS)

    def _attach_loopback(self) -> None:
        """Without cgroups v2 all processes of the host are one, and no client of a cache here."""
        for link in self._links.values() if self._cgroups else ():
            if link.loopback:
                self._attach(link, LOOPBACK_HOOKS)

    def _add_veth(self, link: Link) -> None:
        self._veths[link.index] = link.link_netnsid or 0
        self._attach(link, WORKLOAD_HOOKS)
        # Even where our program could not be put: its packets have an owner.
        self._maps.add_veth(link.index)

    def _attach(self, link: Link, hooks: Hooks) -> None:
        """Attach if that is not done yet; what failed is tried again at each look."""
        if link.index in self._attacher.attached:
            return
        try:
            self._attacher.attach(link.index, link.name, hooks)
            self._failed.pop(link.name, None)
        except AttachError as error:
            self._failed[link.name] = str(error)

    def _gone(self, index: int) -> None:
        link = self._links.pop(index, None)
        self._attacher.forget(index)
        self._reasserted.pop(index, None)
        if link is not None:
            self._failed.pop(link.name, None)
        if self._veths.pop(index, None) is not None:
            self._maps.remove_veth(index)
        self._trunks.discard(index)
        if self._enis.pop(index, None) is not None:
            self._maps.remove_eni(index)

    def _defend_all(self, indexes: Iterable[int]) -> None:
        for index in indexes:
            with contextlib.suppress(NetlinkError, OSError, AttachError):  # gone meanwhile
                self._defend(index)

    def _defend(self, index: int) -> None:
        """Somebody changed filters: be first again, but do not fight about it."""
        if index not in self._attacher.attached or self._attacher.is_first(index):
            return
        now_s = self._clock()
        recent = [t for t in self._reasserted.get(index, []) if now_s - t < REASSERT_WINDOW_S]
        if len(recent) < REASSERTIONS:
            self._reasserted[index] = [*recent, now_s]
            self._attacher.reassert(index)

    def _wired(self, started_s: float) -> Wired:
        return Wired(
            dict(self._enis),
            dict(self._veths),
            dict(self._failed),
            self._clock() - started_s,
            self._branches(),
            has_cilium(self._links.values()),
        )
