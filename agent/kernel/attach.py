"""Puts the programs on interfaces and takes them off again, without disturbing anybody else.

tcx (Linux 6.6 and later): a link at the head of the chain, gone with our descriptor even after
kill -9. Before that a clsact filter: priority 1, protocol all, a handle of our own, added last and
so run first among its equals. Such a filter outlives us; the next start finds it by its name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import bpf
from .loader import Loaded
from .netlink import IPRoute, NetlinkError

INGRESS = "ingress"
EGRESS = "egress"

FILTER_NAME = "eni53:"  # of every clsact filter of ours; how leftovers are told from others'
_HANDLE = 0xE53
_PRIO = 1
_ETH_P_ALL = 3
_PARENTS = {INGRESS: 0xFFFFFFF2, EGRESS: 0xFFFFFFF3}
_TCX = {INGRESS: bpf.TCX_INGRESS, EGRESS: bpf.TCX_EGRESS}
_FILTERED = {"clsact", "ingress"}  # qdiscs that can hold a filter of ours
_GONE = {errno.ENODEV, errno.ENOENT, errno.EINVAL}

WORKLOAD_HOOKS = (("workload_ingress", INGRESS),)
LOOPBACK_HOOKS = (("asker_lo", EGRESS),)
# Answers first: or those to the first queries would be missed, and the queries be unanswered.
ENI_HOOKS = (("eni_ingress", INGRESS), ("eni_egress", EGRESS))
TASK_HOOKS = (("task_ingress", INGRESS), ("task_egress", EGRESS))
Hooks = tuple[tuple[str, str], ...]


class AttachError(Exception):
    """One interface cannot be attached to; the message says which and why."""


@dataclass(slots=True)
class _Attached:
    name: str
    hooks: Hooks
    links: list[int] = field(default_factory=list)
    qdisc_is_ours: bool = False


def foreign_filters(ipr: IPRoute, ifindex: int, direction: str) -> list[str]:
    """Names of other programs' clsact filters on an interface, in the order the kernel lists."""
    return [name for name, _ in _filters(ipr, ifindex, direction) if not _is_ours(name)]


def _filters(ipr: IPRoute, ifindex: int, direction: str) -> list[tuple[str, Any]]:
    """(name, message) of every real filter; the kernel also lists one header row a priority."""
    found = []
    for message in ipr.get_filters(index=ifindex, parent=_PARENTS[direction]):
        options = message.get_attr("TCA_OPTIONS")
        if not message["handle"] or options is None:
            continue
        name = options.get_attr("TCA_BPF_NAME") if hasattr(options, "get_attr") else None
        found.append((name or str(message.get_attr("TCA_KIND")), message))
    return found


def _is_ours(name: str) -> bool:
    return name.startswith(FILTER_NAME)


class Attacher:
    """Attaches in one network namespace; every method blocks on netlink for a moment.

    `attach` must be called by a thread in that namespace: tcx looks interfaces up in the caller's.

    Args:
        ipr: A netlink socket in that namespace.
        loaded: The programs.
        mode: ``auto``, ``tcx`` or ``clsact``.
        ledger: File that remembers qdiscs made by us, so that the start after a kill -9 can
            remove them; None to leave that out.
        class_id: Of our clsact filters: 16 bits that the programs of a task's namespace see, who
            cannot see which namespace they are in.
    """

    def __init__(
        self,
        ipr: IPRoute,
        loaded: Loaded,
        mode: str = "auto",
        ledger: Path | None = None,
        class_id: int = 0,
    ) -> None:
        self._ipr = ipr
        self._programs = loaded.programs
        self._ledger = ledger
        self.class_id = class_id
        self._attached: dict[int, _Attached] = {}
        supported = mode != "clsact" and bpf.tcx_supported(loaded.programs["eni_egress"])
        if mode == "tcx" and not supported:
            raise AttachError("this kernel has no tcx (it came with Linux 6.6)")
        self.mode = "tcx" if supported else "clsact"

    def use(self, ipr: IPRoute) -> None:
        """Work with another netlink socket in the same namespace from now on."""
        self._ipr = ipr

    @property
    def attached(self) -> frozenset[int]:
        """Indexes of the interfaces that have our programs."""
        return frozenset(self._attached)

    def attach(self, ifindex: int, name: str, hooks: Hooks) -> None:
        """Put the programs of *hooks* on an interface; one that has them already is left alone.

        Args:
            ifindex: Index of the interface in this namespace.
            name: Its name, for messages and for the ledger.
            hooks: (program, direction) pairs.

        Raises:
            AttachError: The interface is gone, or its hook is held in a way that shuts us out.
        """
        if ifindex in self._attached:
            return
        attached = _Attached(name, hooks)
        self._attached[ifindex] = attached
        try:
            for program, direction in hooks:
                if self.mode == "tcx":
                    fd = bpf.link_create(self._programs[program], ifindex, _TCX[direction])
                    attached.links.append(fd)
                else:
                    self._add_filter(attached, ifindex, program, direction)
        except (OSError, NetlinkError) as error:
            self.detach(ifindex)
            reason = error.strerror if isinstance(error, OSError) else str(error.args[-1])
            raise AttachError(f"interface {name}: {reason or error}") from error

    def _add_filter(self, attached: _Attached, ifindex: int, program: str, direction: str) -> None:
        try:
            self._ipr.tc("add", "clsact", ifindex)
            attached.qdisc_is_ours = True
            self._remember()
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
            if direction == EGRESS and not self._has_clsact(ifindex):
                # It would take the filter all the same, and run it on what comes in.
                raise OSError(
                    errno.EEXIST, "it has an ingress qdisc, in whose place a clsact qdisc must be"
                ) from error
        self._ipr.tc(
            "add-filter",
            "bpf",
            ifindex,
            handle=_HANDLE,
            fd=self._programs[program],
            name=FILTER_NAME + program,
            parent=_PARENTS[direction],
            prio=_PRIO,
            protocol=_ETH_P_ALL,
            direct_action=True,
            **({"classid": self.class_id} if self.class_id else {}),
        )

    def _has_clsact(self, ifindex: int) -> bool:
        return any(
            qdisc.get_attr("TCA_KIND") == "clsact" for qdisc in self._ipr.get_qdiscs(index=ifindex)
        )

    def is_first(self, ifindex: int) -> bool:
        """Whether no foreign clsact filter runs before ours on any hook of this interface."""
        attached = self._attached.get(ifindex)
        if attached is None:
            return False
        if self.mode == "tcx":
            return True
        for _, direction in attached.hooks:
            names = [name for name, _ in _filters(self._ipr, ifindex, direction)]
            if not names or not _is_ours(names[0]):
                return False
        return True

    def reassert(self, ifindex: int) -> None:
        """Take our clsact filters off and put them back, which makes them the first again.

        In between some packets pass without a tag; those are attributed by their veth alone.
        """
        attached = self._attached.get(ifindex)
        if attached is None or self.mode == "tcx":
            return
        for program, direction in attached.hooks:
            self._delete_filters(ifindex, direction)
            self._add_filter(attached, ifindex, program, direction)

    def detach(self, ifindex: int) -> None:
        """Take off what `attach` put on; an interface that is gone took everything with it."""
        attached = self._attached.pop(ifindex, None)
        if attached is None:
            return
        for fd in attached.links:
            os.close(fd)
        if self.mode == "clsact":
            self._clear(ifindex, attached.qdisc_is_ours)
            self._remember()

    def detach_all(self) -> None:
        """Leave every interface as we found it."""
        for ifindex in list(self._attached):
            self.detach(ifindex)

    def forget(self, ifindex: int) -> None:
        """The interface is gone; only descriptors are left to close."""
        attached = self._attached.pop(ifindex, None)
        for fd in attached.links if attached else ():
            os.close(fd)
        if attached is not None and attached.qdisc_is_ours:
            self._remember()  # or the file stays, and is believed of another of the same number

    def sweep(self, ifindexes: dict[int, str]) -> int:
        """Remove what an eni53 that was killed left on these interfaces (index → name).

        Only to be called while we hold the lock of this namespace: then no filter of our name
        can belong to a living process. Returns how many interfaces were swept.
        """
        ours = self._recall()
        # One question instead of two for each veth: filters hang on these, and few have them.
        hooked = {
            qdisc["index"]
            for qdisc in self._ipr.get_qdiscs()
            if qdisc.get_attr("TCA_KIND") in _FILTERED
        }
        swept = 0
        for ifindex, name in ifindexes.items():
            if (
                any(
                    _is_ours(found)
                    for direction in (_PARENTS if ifindex in hooked else ())
                    for found, _ in self._safe_filters(ifindex, direction)
                )
                or ours.get(str(ifindex)) == name
            ):
                self._clear(ifindex, ours.get(str(ifindex)) == name)
                swept += 1
        if ours:
            self._remember()  # or the next sweep takes a qdisc made by others since for ours
        return swept

    def _safe_filters(self, ifindex: int, direction: str) -> list[tuple[str, Any]]:
        try:
            return _filters(self._ipr, ifindex, direction)
        except NetlinkError as error:
            if error.code in _GONE:
                return []
            raise

    def _clear(self, ifindex: int, qdisc_is_ours: bool) -> None:
        for direction in _PARENTS:
            self._delete_filters(ifindex, direction)
        others = [n for d in _PARENTS for n, _ in self._safe_filters(ifindex, d)]
        if qdisc_is_ours and not others:
            with contextlib.suppress(NetlinkError):
                self._ipr.tc("del", "clsact", ifindex)

    def _delete_filters(self, ifindex: int, direction: str) -> None:
        for name, message in self._safe_filters(ifindex, direction):
            if not _is_ours(name):
                continue
            with contextlib.suppress(NetlinkError):
                self._ipr.tc(
                    "del-filter",
                    "bpf",
                    ifindex,
                    handle=message["handle"],
                    parent=_PARENTS[direction],
                    prio=message["info"] >> 16,
                    protocol=_ETH_P_ALL,
                )

    def _remember(self) -> None:
        """Write down whose qdisc is ours: index and name, for indexes are used again."""
        if self._ledger is None:
            return
        made = {
            str(ifindex): attached.name
            for ifindex, attached in self._attached.items()
            if attached.qdisc_is_ours
        }
        with contextlib.suppress(OSError):
            if made:
                self._ledger.write_text(json.dumps(made))
            else:
                self._ledger.unlink(missing_ok=True)

    def _recall(self) -> dict[str, str]:
        if self._ledger is None:
            return {}
        try:
            made = json.loads(self._ledger.read_text())
        except (OSError, ValueError):
            return {}
        return made if isinstance(made, dict) else {}
