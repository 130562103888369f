"""`ResolvConf` values as JSON and back: each different one once, with those that have it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any

from .errors import SourceError
from .inventory.resolv_conf import MAX_NAMESERVERS, MAX_SEARCH
from .model import ResolvConf, Workload
from .strict import Reader
from .text import clean

_MAX_FLAGS = 8
_MAX_ON_NODE = 64
_PARTS = ("kind", "namespace", "workload", "container")


def resolv_confs_to_json(confs: Mapping[Workload, ResolvConf]) -> list[dict[str, Any]]:
    """As `/api/v1/snapshot` tells them, in the order of workloads."""
    same: defaultdict[ResolvConf, list[Workload]] = defaultdict(list)
    for workload in sorted(confs):
        same[confs[workload]].append(workload)
    return [_conf(conf, workloads) for conf, workloads in same.items()]


def _conf(conf: ResolvConf, workloads: list[Workload]) -> dict[str, Any]:
    return {
        "nameservers": list(conf.nameservers),
        "search": [clean(domain) for domain in conf.search],
        "ndots": conf.ndots,
        "timeout": conf.timeout,
        "attempts": conf.attempts,
        "flags": list(conf.flags),
        "listening": None if conf.listening is None else list(conf.listening),
        "workloads": [{part: clean(getattr(w, part)) for part in _PARTS} for w in workloads],
    }


def read_resolv_confs(top: Reader) -> dict[Workload, ResolvConf]:
    """What *top* says of them; empty where an older eni53 says nothing.

    Raises:
        SourceError: A value is missing or not what it must be.
    """
    found: dict[Workload, ResolvConf] = {}
    for at in top.objects("resolv_confs") if top.has("resolv_confs") else ():
        conf = ResolvConf(
            nameservers=read_addresses(at, "nameservers", most=MAX_NAMESERVERS),
            search=at.texts("search", MAX_SEARCH),
            ndots=at.optional("ndots", at.integer),
            timeout=at.optional("timeout", at.integer),
            attempts=at.optional("attempts", at.integer),
            flags=at.texts("flags", _MAX_FLAGS),
            listening=at.optional("listening", partial(read_addresses, at, most=MAX_NAMESERVERS)),
        )
        if not conf.nameservers:
            raise SourceError(f"{at.place}.nameservers: must have one")
        for whose in at.objects("workloads"):
            found[Workload(*map(whose.text, _PARTS))] = conf
    return found


def read_addresses(at: Reader, key: str, *, most: int = _MAX_ON_NODE) -> tuple[str, ...]:
    """A list of IP addresses, of which the first *most* are taken; empty where there is none.

    Raises:
        SourceError: It is no list of IP addresses.
    """
    if not at.has(key):
        return ()
    found = at.texts(key, most)
    for number, address in enumerate(found):
        try:
            ip_address(address)
        except ValueError as error:
            raise SourceError(f"{at.place}.{key}[{number}]: must be an IP address") from error
    return found
