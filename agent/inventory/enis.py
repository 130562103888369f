"""Which interfaces are ENIs, and which are the host's ends of workloads' veths. Pure but `driver`.

Names say nothing (``eth0``, ``ens5``, ``enX0``): the driver does, or the default route.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

from ..errors import NeedError
from .ethtool import driver
from .links import Link

__all__ = [
    "ENI_DRIVERS",
    "choose_enis",
    "driver",
    "eni_label",
    "workload_veths",
]

ENI_DRIVERS = frozenset({"ena", "vif", "ixgbevf"})
"""Nitro, Xen and the older enhanced networking: what AL2023's own network set-up matches."""

# A VLAN device is a branch ENI: its packets are counted at the trunk they leave by.
NEVER = frozenset({"bridge", "dummy", "ifb", "bond", "team", "tun", "wireguard", "vxlan", "vlan"})
"""Kinds of links that are no ENI, even where the default route names them."""

_ENI_ID = re.compile(r"eni-[0-9a-f]{8,17}")


def choose_enis(
    links: Iterable[Link],
    default_route: Collection[int],
    wanted: Collection[str] = (),
    driver_of: Callable[[str], str | None] = driver,
) -> tuple[Link, ...]:
    """The ENIs among *links*, in order of index.

    Args:
        links: All links of the namespace.
        default_route: Indexes of the interfaces that a default route points at.
        wanted: Names given by the user, which end all guessing.
        driver_of: How to learn a driver.

    Raises:
        NeedError: A wanted interface does not exist, or none was found.
    """
    links = sorted(links, key=lambda link: link.index)
    if wanted:
        found = {link.index: link for link in (_named(links, name) for name in wanted)}
        return tuple(found[index] for index in sorted(found))
    candidates = [link for link in links if not link.loopback and link.kind not in NEVER]
    enis = [
        link for link in candidates if not link.kind and driver_of(link.name) in ENI_DRIVERS
    ] or [link for link in candidates if link.index in default_route]
    if not enis:
        raise NeedError(
            "no ENI found: no interface has the driver ena, vif or ixgbevf, and no default route"
            " names one; name it with --eni IFACE or [eni] interfaces"
        )
    return tuple(enis)


def _named(links: list[Link], name: str) -> Link:
    for link in links:
        if name == link.name or name in link.altnames:
            return link
    there = ", ".join(link.name for link in links if not link.loopback) or "none"
    raise NeedError(f"interface {name!r} does not exist in this network namespace; there: {there}")


def workload_veths(links: Iterable[Link], enis: Collection[int]) -> tuple[Link, ...]:
    """Host-side veths: those whose other end is in another network namespace."""
    return tuple(
        link
        for link in links
        if link.kind == "veth" and link.link_netnsid is not None and link.index not in enis
    )


def eni_label(link: Link, imds_ids: Mapping[str, str]) -> str:
    """``eni-…`` from an altname (AL2023) or from IMDS by MAC, else ``mac:…``."""
    for name in link.altnames:
        if _ENI_ID.fullmatch(name):
            return name
    return imds_ids.get(link.mac.lower()) or f"mac:{link.mac.lower()}"
