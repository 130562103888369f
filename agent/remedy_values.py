"""What a remedy is filled in with, found on this node or given: addresses, never bare text.

Each value is asked for only where a remedy has a place for it: `--resolver` given, the metadata
service is not asked. What cannot be found ends the command with the flag to give.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from .config import Config
from .errors import NeedError, SourceError, UsageError
from .inventory.enis import choose_enis
from .inventory.imds import Imds
from .inventory.links import LinkTable
from .inventory.resolvers import read_resolv_confs, resolver_addresses
from .kernel.netlink import NetlinkError
from .text import clean

BRIDGE = "docker0"
DOCKER_DEFAULT = "172.17.0.1"
NODELOCAL = IPv4Address("169.254.20.10")
MAX_FILE_BYTES = 256 * 1024
KUBELET = ("etc/kubernetes/kubelet/config.json", "etc/kubernetes/kubelet/kubelet-config.json")
"""Where EKS keeps the kubelet's configuration: Amazon Linux 2023, and before it."""

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_DOMAIN = re.compile(
    r"(?=.{1,200}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says; None: to be found."""

    resolver: str | None = None
    gateway: str | None = None
    cluster_ip: str | None = None
    cluster_domain: str | None = None
    image: str | None = None
    ipvs: bool = False
    fallback: bool = True

    @property
    def flags(self) -> tuple[str, ...]:
        """As they are written, those that say anything."""
        said = {
            "--resolver": self.resolver is not None,
            "--gateway": self.gateway is not None,
            "--cluster-ip": self.cluster_ip is not None,
            "--cluster-domain": self.cluster_domain is not None,
            "--image": self.image is not None,
            "--ipvs": self.ipvs,
            "--no-fallback": not self.fallback,
        }
        return tuple(flag for flag, is_said in said.items() if is_said)


@dataclass(frozen=True, slots=True)
class Found:
    """One value, and where it is from.

    Attributes:
        text: As it stands in the files.
        origin: For the header: "the metadata service", "--resolver".
    """

    text: str
    origin: str


def resolver(config: Config, given: Given) -> Found:
    """The VPC's resolver, which the cache asks.

    Raises:
        UsageError: The one given is none that a cache could ask.
        NeedError: It is nowhere to be found.
    """
    if given.resolver is not None:
        return _elsewhere(Found(_upstream(given.resolver, "--resolver"), "--resolver"))
    cidrs: list[str] = []
    if not config.resolver.addresses and config.runtime.imds:
        try:
            enis = Imds(config.runtime.imds).lookup().enis.values()
            cidrs = [eni.vpc_cidr for eni in enis if eni.vpc_cidr]
        except SourceError:
            pass  # resolv.conf may know it
    found = resolver_addresses(
        config.resolver.addresses, cidrs, read_resolv_confs(Path("/")), _eni_prefixes(config)
    )
    if not found.vpc_plus_two_known and found.source != "configured":
        raise NeedError(
            "the VPC's resolver cannot be found here: give --resolver ADDR (the second address"
            " of the VPC's first block, 10.0.0.2 of 10.0.0.0/16, or 169.254.169.253)"
        )
    origins = {"imds": "the metadata service", "configured": "[resolver] addresses"}
    origin = origins.get(found.source, found.source)
    return _elsewhere(Found(_upstream(found.addresses[0], origin), origin))


def gateway(given: Given) -> Found:
    """The bridge's own address, where containers find the cache."""
    if given.gateway is not None:
        return Found(_gateway(given.gateway), "--gateway")
    for address in _addresses(BRIDGE):
        if isinstance(address, IPv4Address):
            return Found(str(address), BRIDGE)
    return Found(DOCKER_DEFAULT, f"Docker's default: there is no {BRIDGE} here")


def cluster_ip(given: Given, root: Path = Path("/")) -> Found:
    """The address of the service kube-dns.

    Raises:
        UsageError: The one given is no such address.
        NeedError: No kubelet's configuration names it.
    """
    if given.cluster_ip is not None:
        return Found(_cluster_ip(given.cluster_ip), "--cluster-ip")
    listed = _kubelet(root).get("clusterDNS")
    for text in listed if isinstance(listed, list) else ():
        try:
            return Found(_cluster_ip(str(text)), "the kubelet's configuration")
        except UsageError:
            continue  # IPv6, or a cache that is there already
    raise NeedError(
        "the address of the cluster's DNS cannot be found here: give --cluster-ip ADDR"
        " (kubectl -n kube-system get service kube-dns)"
    )


def cluster_domain(given: Given, root: Path = Path("/")) -> Found:
    """The cluster's domain, cluster.local unless somebody says otherwise."""
    if given.cluster_domain is not None:
        if not _DOMAIN.fullmatch(given.cluster_domain):
            raise _wrong("--cluster-domain", given.cluster_domain, "a domain in small letters")
        return Found(given.cluster_domain, "--cluster-domain")
    said = _kubelet(root).get("clusterDomain")
    if isinstance(said, str) and _DOMAIN.fullmatch(said):
        return Found(said, "the kubelet's configuration")
    return Found("cluster.local", "the default")


def image(given: Given, default: str) -> Found:
    """The image to run."""
    if given.image is None:
        return Found(default, "to be filled in: --image")
    if not _IMAGE.fullmatch(given.image):
        raise _wrong("--image", given.image, "an image's name, such as REGISTRY/dnsmasq:1")
    return Found(given.image, "--image")


def _upstream(text: str, flag: str) -> str:
    """An address that can be somebody else's."""
    try:
        # A scope (fe80::1%anything) may hold any character: no part of it may reach a file.
        address = ip_address("" if "%" in text else text)
    except ValueError:
        raise _wrong(flag, text, "an IP address") from None
    unusable = address.is_loopback or address.is_unspecified or address.is_multicast
    if unusable or address == NODELOCAL:
        raise _wrong(flag, text, "the VPC's resolver, not an address of this host: it would loop")
    return str(address)


def _gateway(text: str) -> str:
    try:
        address = IPv4Address(text)
    except ValueError:
        raise _wrong("--gateway", text, "an IPv4 address") from None
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise _wrong("--gateway", text, "the bridge's own address: containers must reach it")
    return str(address)


def _cluster_ip(text: str) -> str:
    try:
        address = IPv4Address(text)
    except ValueError:
        raise _wrong("--cluster-ip", text, "an IPv4 address") from None
    if address.is_link_local or address.is_loopback or address.is_unspecified:
        raise _wrong("--cluster-ip", text, "the address of the service kube-dns")
    return str(address)


def _kubelet(root: Path) -> dict[str, object]:
    for name in KUBELET:
        try:
            with (root / name).open("rb") as file:
                found = json.loads(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _eni_prefixes(config: Config) -> tuple[str, ...]:
    try:
        table = LinkTable()
    except OSError:
        return ()
    try:
        links = table.links()
        wanted = config.eni.interfaces
        enis = choose_enis(links.values(), table.default_route_interfaces(), wanted)
        return table.prefixes({link.index for link in enis})
    except (NeedError, OSError, NetlinkError):
        return ()
    finally:
        table.close()


def _addresses(name: str = "") -> list[IPv4Address | IPv6Address]:
    """Those of one interface, or of all of this host."""
    try:
        table = LinkTable()
    except OSError:
        return []
    try:
        links = table.links().items()
        indexes = {index for index, link in links if name in ("", link.name)}
        return [ip_address(text.partition("/")[0]) for text in table.prefixes(indexes)]
    except (OSError, NetlinkError):
        return []
    finally:
        table.close()


def _elsewhere(found: Found) -> Found:
    """Refuse an address of this host: there the cache would ask itself, or nobody."""
    if ip_address(found.text) in _addresses():
        raise _wrong(found.origin, found.text, "the VPC's resolver, not an address of this host")
    return found


def _wrong(flag: str, text: str, allowed: str) -> UsageError:
    return UsageError(f"{flag} {clean(repr(text), 80)}: must be {allowed}")


def same_host(found: Found, *others: str) -> None:
    """Refuse a resolver that is the cache's own address.

    Raises:
        UsageError: It would ask itself.
    """
    if found.text in others:
        raise _wrong(found.origin, found.text, "the VPC's resolver: this is the cache's address")
