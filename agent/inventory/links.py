"""Interfaces of one network namespace, from rtnetlink: what there is, and what changes.

Everything here blocks for a moment on a netlink socket and belongs in a thread of its own;
pyroute2's synchronous sockets refuse to work inside a running event loop.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from ..kernel.netlink import IPRoute, MarshalRtnl, NetlinkError
from . import rtlink

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 5, 10, 18
_IFLA_LINK_NETNSID, _IFLA_PROP_LIST, _IFLA_ALT_IFNAME = 37, 52, 53
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_VLAN_ID = 1, 2, 1
_RTMGRP_LINK = 0x1
_RTMGRP_TC = 0x8
_RTMGRP_ROUTES = 0x40 | 0x400  # IPv4 and IPv6
_IFF_LOOPBACK = 0x8
_RECEIVE_BUFFER = 4 << 20  # a node that starts 100 pods at once sends thousands of messages
_RT_TABLE_MAIN = 254
_SO_RCVBUFFORCE = 33


@dataclass(frozen=True, slots=True)
class Link:
    """One interface as the kernel describes it.

    Attributes:
        kind: ``veth``, ``bridge``, ``vlan``, …; empty for a physical device.
        link: Index of the peer (veth) or parent (vlan), in its own namespace; 0 when none.
        link_netnsid: Number by which this namespace knows the peer's; None when it is this one.
        master: Index of the bridge it is a port of, else 0.
        altnames: Alternative names; AL2023 puts the ENI id here.
        vlan: VLAN id of a link of kind ``vlan``, else 0.
    """

    index: int
    name: str
    kind: str
    mac: str
    loopback: bool
    link: int
    link_netnsid: int | None
    master: int
    altnames: tuple[str, ...]
    vlan: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since the last look.

    Attributes:
        appeared: Links that are new or changed.
        gone: Indexes of links that are no more. One that is in `appeared` too came back since, or
            is another link: what was attached to it is lost.
        filtered: Indexes of links whose filters somebody changed, or took away with their qdisc.
        lost: Messages were lost, so only a full look tells the truth.
    """

    appeared: tuple[Link, ...] = ()
    gone: tuple[int, ...] = ()
    filtered: tuple[int, ...] = ()
    lost: bool = False


def _to_link(message: Any) -> Link:  # noqa: ANN401 - pyroute2 ships no types
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    data = info.get_attr("IFLA_INFO_DATA") if kind == "vlan" else None
    properties = message.get_attr("IFLA_PROP_LIST")
    altnames = properties.get_attrs("IFLA_ALT_IFNAME") if properties else []
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME") or "",
        kind=kind or "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        loopback=bool(message["flags"] & _IFF_LOOPBACK),
        link=message.get_attr("IFLA_LINK") or 0,
        link_netnsid=message.get_attr("IFLA_LINK_NETNSID"),
        master=message.get_attr("IFLA_MASTER") or 0,
        altnames=tuple(altnames),
        vlan=(data.get_attr("IFLA_VLAN_ID") or 0) if data else 0,
    )


def _from_wire(index: int, flags: int, found: rtlink.Attributes) -> Link:
    """The same from `rtlink.dump`."""

    def text(number: int, within: rtlink.Attributes = found) -> str:
        return within.get(number, [b""])[0].rstrip(b"\0").decode(errors="replace")

    def number(which: int) -> int | None:
        value = found.get(which)
        return int.from_bytes(value[0], sys.byteorder, signed=True) if value else None

    mac = found.get(_IFLA_ADDRESS, [b""])[0]
    properties = rtlink.attributes(found.get(_IFLA_PROP_LIST, [b""])[0])
    info = rtlink.attributes(found.get(_IFLA_LINKINFO, [b""])[0])
    kind = text(_IFLA_INFO_KIND, info)
    data = rtlink.attributes(info.get(_IFLA_INFO_DATA, [b""])[0]) if kind == "vlan" else {}
    return Link(
        index=index,
        name=text(_IFLA_IFNAME),
        kind=kind,
        mac=":".join(f"{byte:02x}" for byte in mac),
        loopback=bool(flags & _IFF_LOOPBACK),
        link=number(_IFLA_LINK) or 0,
        link_netnsid=number(_IFLA_LINK_NETNSID),
        master=number(_IFLA_MASTER) or 0,
        altnames=tuple(
            name.rstrip(b"\0").decode(errors="replace")
            for name in properties.get(_IFLA_ALT_IFNAME, ())
        ),
        vlan=int.from_bytes(data.get(_IFLA_VLAN_ID, [b""])[0], sys.byteorder),
    )


class LinkTable:
    """Asks the kernel about the links of the namespace this thread is in."""

    def __init__(self) -> None:
        self.ipr = IPRoute()

    def close(self) -> None:
        """Close the socket."""
        self.ipr.close()

    def links(self) -> dict[int, Link]:
        """Every link, by index."""
        return {index: _from_wire(index, flags, found) for index, flags, found in rtlink.dump()}

    def default_route_interfaces(self) -> tuple[int, ...]:
        """Interfaces of the main table's default routes, the preferred one of each family first."""
        found: list[tuple[int, int]] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for route in self.ipr.get_default_routes(family=family, table=_RT_TABLE_MAIN):
                index = route.get_attr("RTA_OIF")
                if index:
                    found.append((route.get_attr("RTA_PRIORITY") or 0, index))
                for hop in route.get_attr("RTA_MULTIPATH") or ():
                    found.append((route.get_attr("RTA_PRIORITY") or 0, hop["oif"]))
        return tuple(dict.fromkeys(index for _, index in sorted(found)))

    def prefixes(self, interfaces: Collection[int]) -> tuple[str, ...]:
        """Addresses of *interfaces* with their prefix length: ``10.0.1.5/24``."""
        return tuple(
            f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
            for message in self.ipr.get_addr()
            if message["index"] in interfaces
        )

    def nsid_of(self, netns_fd: int) -> int | None:
        """Number by which this namespace knows another; None when it has none.

        A namespace has a number for itself only when an interface elsewhere led to ask for it.
        """
        try:
            found = self.ipr.get_netnsid(fd=netns_fd)
        except NetlinkError:
            return None
        nsid = found["nsid"] if found else None
        # The kernel says "none" with -1, which netlink carries as an unsigned number.
        return int(nsid) if nsid is not None and 0 <= nsid < 1 << 31 else None


class LinkEvents:
    """Notifications about links and filters, on a non-blocking socket for an event loop.

    Args:
        routes: Also wake up for routes; nothing is said of them but that it is time to look.
    """

    def __init__(self, *, routes: bool = False) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        self.socket.bind((0, _RTMGRP_LINK | _RTMGRP_TC | (_RTMGRP_ROUTES if routes else 0)))
        self._marshal = MarshalRtnl()

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()

    def read(self) -> Changes:
        """Everything that waits on the socket; never blocks."""
        appeared: dict[int, Link] = {}
        gone: dict[int, None] = {}
        filtered: dict[int, None] = {}
        lost = False
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            for message in self._parse(data):
                event, index = message.get("event"), message.get("index")
                if message.get("family"):
                    continue  # a bridge's view of its port: no kind, and "gone" when it left it
                if event == "RTM_NEWLINK":
                    appeared[index] = _to_link(message)
                elif event == "RTM_DELLINK":
                    gone[index] = None
                    appeared.pop(index, None)
                elif event in {"RTM_NEWTFILTER", "RTM_DELTFILTER", "RTM_DELQDISC"}:
                    filtered[index] = None
        return Changes(tuple(appeared.values()), tuple(gone), tuple(filtered), lost)

    def _parse(self, data: bytes) -> Iterable[Any]:
        return tuple(self._marshal.parse(data))
