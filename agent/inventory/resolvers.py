"""Which addresses are the VPC's resolver. Pure, but for `read_resolv_confs`.

Too few, and packets that AWS limits look harmless; too many, and harmless ones look limited. So
an address found in resolv.conf counts only where its number alone proves it to be Amazon's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path

ALWAYS = ("169.254.169.253", "fd00:ec2::253")
"""Resolver addresses that are the same in every VPC."""

RESOLV_CONFS = ("run/systemd/resolve/resolv.conf", "etc/resolv.conf")
"""The list systemd-resolved really asks comes first: /etc may only say 127.0.0.53."""

MAX_FILE_BYTES = 64 * 1024
_LONGEST, _SHORTEST = 28, 16  # prefix lengths AWS allows for VPCs and subnets


@dataclass(frozen=True, slots=True)
class Resolvers:
    """The resolver's addresses, and how far they can be trusted.

    Attributes:
        addresses: At least the fixed ones, VPC+2 first where it is known.
        vpc_plus_two_known: False means packets to VPC+2, if any, count as dns_other: say so.
        source: configured, imds, resolv.conf, or unknown (only the fixed ones).
    """

    addresses: tuple[str, ...]
    vpc_plus_two_known: bool
    source: str


def resolver_addresses(
    configured: Sequence[str],
    imds_vpc_cidrs: Sequence[str],
    resolv_conf_texts: Sequence[str],
    connected_prefixes: Sequence[str],
) -> Resolvers:
    """The addresses to count as the resolver, from the first source that knows any.

    Args:
        configured: Addresses a person set; they decide alone when there are any.
        imds_vpc_cidrs: Primary IPv4 block of each ENI's VPC.
        resolv_conf_texts: Contents of resolv.conf files, best first.
        connected_prefixes: IPv4 prefixes on *ENIs*, such as ``10.0.64.0/18``; others are ignored.
            Not those of bridges: base+2 of docker0's block is simply its first container.
    """
    if configured:
        return _resolvers(configured, "configured")
    if imds_vpc_cidrs:
        return _resolvers((str(IPv4Network(cidr)[2]) for cidr in imds_vpc_cidrs), "imds")
    amazon = {address for prefix in connected_prefixes for address in _plus_twos(prefix)}
    nameservers = (server for text in resolv_conf_texts for server in _nameservers(text))
    return _resolvers((server for server in nameservers if server in amazon), "resolv.conf")


def _resolvers(found: Iterable[str], source: str) -> Resolvers:
    addresses = tuple(dict.fromkeys((*found, *ALWAYS)))
    known = len(addresses) > len(ALWAYS)
    return Resolvers(addresses, known, source if known or source == "configured" else "unknown")


def _plus_twos(prefix: str) -> list[str]:
    """Base+2 of every block of /16 to /28 that holds *prefix*, itself included.

    The resolver is base+2 of the VPC's block, not of the subnet's (10.0.0.2 for the subnet
    10.0.64.0/18 of 10.0.0.0/16), and the node sees only its subnet. All enclosing blocks may be
    taken: AWS keeps base+2 of every subnet for itself, and a subnet that held such an address
    without starting at its block would overlap ours; so no other host of the VPC can have one.
    Only a name server outside the VPC could, in the same /16: [resolver] addresses settles that.
    """
    try:
        network = IPv4Network(prefix, strict=False)
    except ValueError:  # IPv6, where the resolver's address is fixed
        return []
    # A longer prefix is an address (a /32 of the CNI), which lies in its subnet all the same.
    lengths = range(_SHORTEST, min(network.prefixlen, _LONGEST) + 1)
    return [str(network.supernet(new_prefix=length).network_address + 2) for length in lengths]


def _nameservers(text: str) -> list[str]:
    servers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":  # "# nameserver" starts with another word
            try:
                servers.append(str(IPv4Address(words[1])))
            except AddressValueError:
                continue
    return servers


def read_resolv_confs(root: Path) -> tuple[str, ...]:
    """Contents of the resolv.conf files under *root* (``/``, or the host's root mounted here).

    A file that is absent or unreadable is left out; one longer than 64 KiB is cut there.
    """
    texts = []
    for name in RESOLV_CONFS:
        path = root / name
        try:
            if path.is_symlink() and path.readlink().is_absolute():
                # It means the host's file, and would lead to this container's own.
                path = root / path.readlink().relative_to("/")
            with path.open("rb") as file:
                texts.append(file.read(MAX_FILE_BYTES).decode("utf-8", "replace"))
        except (OSError, ValueError):
            continue
    return tuple(texts)
