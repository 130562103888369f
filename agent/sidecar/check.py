"""What `eni53 check` says where a sidecar would count: how, on what, and whose it is."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping

from ..check_item import Item
from ..config import Config
from ..errors import NeedError, SourceError
from ..inventory.resolvers import Resolvers
from ..text import clean
from . import metadata
from .choice import capabilities
from .heard import UDP_COUNTERS
from .interface import Interface, find_interface
from .metadata import VARIABLE, TaskFacts
from .node import find_resolvers, open_counter


def inspect(config: Config, environ: Mapping[str, str]) -> Iterator[Item]:
    """Every item, in the order in which a person would ask."""
    release = clean(f"Linux {platform.release()} on {platform.machine()}")
    yield Item("kernel", "ok", f"{release} (any will do: no BPF is loaded)")
    facts, item = _metadata(environ.get(VARIABLE, ""))
    try:
        interface = find_interface(config.eni.interfaces)
    except NeedError as error:
        what, _, mend = str(error).partition(": ")
        yield Item("eni", "fail", clean(what), clean(mend))
    else:
        yield Item("eni", "ok", clean(f"{interface.name}  mac:{interface.mac}"))
        resolvers = find_resolvers(config, interface, facts)
        yield _attach(config, interface, resolvers)
        yield _resolver(resolvers)
    yield item
    other = facts.modes - {"", "awsvpc"} if facts else frozenset[str]()
    if other:
        mend = 'run the task "privileged" to count the node with BPF, or in network mode awsvpc'
        status = "fail" if config.attach == "auto" else "warn"
        yield Item("network mode", status, f"{min(other)}: the ENI is not this task's own", mend)


def _attach(config: Config, interface: Interface, resolvers: Resolvers) -> Item:
    try:
        counter = open_counter(config.attach, interface, resolvers)
    except NeedError as error:
        what, _, mend = str(error).partition(": ")
        return Item("attach", "fail", clean(what), clean(mend))
    counter.close()
    held = f"uid {os.geteuid()}, capabilities {capabilities():x}"
    if counter.mode == UDP_COUNTERS:
        mend = "run as root and with CAP_NET_RAW (Docker's default) for exact counts"
        detail = f"{counter.mode}: an upper bound, all UDP of the task ({held})"
        return Item("attach", "warn", detail, mend)
    return Item("attach", "ok", f"{counter.mode}: packet socket with a classic filter ({held})")


def _resolver(found: Resolvers) -> Item:
    detail = f"{', '.join(found.addresses)}  (from {found.source})"
    if found.vpc_plus_two_known:
        return Item("resolver", "ok", detail)
    return Item("resolver", "warn", detail, "VPC+2 is unknown: set [resolver] addresses")


def _metadata(url: str) -> tuple[TaskFacts | None, Item]:
    if not url:
        mend = f"packets go by the host name: {VARIABLE} is not set"
        return None, Item("task metadata", "info", "none", mend)
    try:
        facts = metadata.lookup(url)
    except SourceError as error:
        return None, Item("task metadata", "warn", str(error), "packets go by the host name")
    task = facts.workload
    return facts, Item("task metadata", "ok", f"{task.namespace} {task.workload}")
