"""`eni53 check`: what this node has, what it lacks, and how to mend each lack.

Looks and compiles, attaches nothing, leaves nothing. Each probe returns its items; a probe that
fails is itself an item.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from . import presence
from .check_item import Item
from .check_wirings import SYS_ADMIN, Seen, wirings
from .config import Config
from .errors import NeedError, SourceError
from .inventory.cgroups import find_root
from .inventory.containerd import Containerd, find_socket
from .inventory.docker import DockerClient, DockerContainer
from .inventory.enis import choose_enis, driver, eni_label, workload_veths
from .inventory.imds import Imds, ImdsFacts
from .inventory.links import LinkTable
from .inventory.resolvers import read_resolv_confs, resolver_addresses
from .kernel import bpf
from .kernel.attach import EGRESS, INGRESS, foreign_filters
from .kernel.loader import load
from .kernel.netlink import NetlinkError
from .sidecar.check import inspect as inspect_task
from .sidecar.choice import wants_sidecar
from .text import ascii_only, clean

MIN_KERNEL = (5, 10)
_CAPABILITIES = {
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": SYS_ADMIN,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
_NEEDED = ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_PTRACE")
_MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


def run(config: Config, *, as_json: bool) -> int:
    """Print the report; returns 0 when this node can run eni53.

    Raises:
        NeedError: It cannot; the report says why and this line says which.
    """
    items = list(inspect(config))
    failed = [item for item in items if item.status == "fail"]
    if as_json:
        report = {"version": 1, "ok": not failed, "checks": [asdict(item) for item in items]}
        print(json.dumps(report, indent=2))
    else:
        dot, arrow = ("-", "->") if ascii_only(sys.stdout) else ("·", "→")
        for item in items:
            mark = _MARKS.get(item.status, dot)
            print(f"{mark:<4}  {item.name:<16} {item.detail}")
            if item.mend:
                print(f"      {'':<16} {arrow} {item.mend}")
    if failed:
        names = ", ".join(item.name for item in failed)
        raise NeedError(f"this node cannot run eni53 yet: {names}; the report says what would help")
    return 0


def inspect(config: Config) -> Iterator[Item]:
    """Every item, in the order in which a person would ask."""
    if wants_sidecar(config, os.environ):
        yield from inspect_task(config, os.environ)
        yield from _agent(config)
        return
    facts, imds_item = _imds(config)
    probes: tuple[Callable[[], Iterator[Item]], ...] = (
        _kernel,
        _privilege,
        lambda: _programs(config),
        lambda: _interfaces(config, facts),
        lambda: iter((imds_item,)),
        _cgroups,
        lambda: _runtimes(config),
        lambda: _agent(config),
    )
    for probe in probes:
        yield from probe()


def _kernel() -> Iterator[Item]:
    release = platform.release()
    numbers = tuple(int(n) for n in release.split("-")[0].split(".")[:2] if n.isdigit())
    detail = f"Linux {release} on {platform.machine()}"
    if platform.machine() not in {"x86_64", "aarch64"}:
        yield Item("kernel", "fail", detail, "eni53 runs on x86_64 and aarch64")
    elif numbers < MIN_KERNEL:
        yield Item("kernel", "fail", detail, "needs Linux 5.10 or later")
    else:
        yield Item("kernel", "ok", detail)


def _privilege() -> Iterator[Item]:
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    held = [name for name, bit in _CAPABILITIES.items() if effective >> bit & 1]
    modern = {"CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"} <= set(held)
    detail = f"uid {os.geteuid()}, {', '.join(held) or 'none of the capabilities'}"
    if not modern and not {"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} <= set(held):
        lacking = [name for name in _NEEDED if name not in held]
        mend = (
            f"run as root, or with {', '.join(lacking)} too; a task's own ENI can be counted"
            " without: ENI53_ATTACH=packet"
        )
        yield Item("privilege", "fail", detail, mend)
    elif "CAP_SYS_PTRACE" not in held:
        mend = "without CAP_SYS_PTRACE namespaces cannot be told apart: containers go by cgroup"
        yield Item("privilege", "warn", detail, mend)
    else:
        yield Item("privilege", "ok", detail)


def _programs(config: Config) -> Iterator[Item]:
    try:
        with load() as loaded:
            tcx = bpf.tcx_supported(loaded.programs["eni_egress"])
            seconds = loaded.load_s
    except NeedError as error:
        what, _, mend = str(error).partition(": ")
        yield Item("programs", "fail", what, mend)
        return
    yield Item("programs", "ok", f"compiled and accepted by the kernel in {seconds:.1f} s")
    if config.attach == "clsact" or not tcx:
        why = "ENI53_ATTACH=clsact" if tcx else "this kernel has no tcx (Linux 6.6)"
        yield Item(
            "attach",
            "info",
            f"clsact, priority 1 ({why})",
            "" if tcx else "a later filter of another agent may hide tags; counts stay exact",
        )
    else:
        yield Item("attach", "ok", "tcx, at the head of the chain")


def _interfaces(config: Config, facts: ImdsFacts | None) -> Iterator[Item]:
    try:
        table = LinkTable()
    except OSError as error:
        yield Item("interfaces", "fail", f"netlink: {error.strerror}", "run as root")
        return
    try:
        yield from _links(config, table, facts)
    except NeedError as error:
        what, _, mend = str(error).partition(": ")
        yield Item("eni", "fail", what, mend)
    except (OSError, NetlinkError) as error:
        yield Item("interfaces", "warn", f"netlink: {error}")
    finally:
        table.close()


def _links(config: Config, table: LinkTable, facts: ImdsFacts | None) -> Iterator[Item]:
    links = table.links()
    enis = choose_enis(links.values(), table.default_route_interfaces(), config.eni.interfaces)
    ids = {mac: eni.interface_id for mac, eni in facts.enis.items()} if facts else {}
    for link in enis:
        label = eni_label(link, ids)
        by = (
            "named by the user" if config.eni.interfaces else (driver(link.name) or "default route")
        )
        detail = f"{link.name}  {label}  ({by})"
        mend = "" if label.startswith("eni-") else "its id is unknown: metrics use the MAC instead"
        yield Item("eni", "ok" if not mend else "warn", clean(detail), mend)
        yield from _foreign(table, link.index, link.name, (INGRESS, EGRESS))
    veths = workload_veths(links.values(), {link.index for link in enis})
    yield Item("workload veths", "info", led_away(len(veths)))
    for link in veths:
        yield from _foreign(table, link.index, link.name, (INGRESS,))
    for link in links.values():
        if link.loopback:
            yield from _foreign(table, link.index, link.name, (EGRESS,))
    yield from wirings(
        Seen(
            links.values(),
            {link.index for link in enis},
            table.prefixes(links),
            _docker(config),
            config.runtime.containerd_socket or find_socket(),
            find_root() is not None,
        )
    )
    cidrs = [e.vpc_cidr for e in facts.enis.values() if e.vpc_cidr] if facts else []
    found = resolver_addresses(
        config.resolver.addresses,
        cidrs,
        read_resolv_confs(Path("/")),
        table.prefixes({link.index for link in enis}),
    )
    detail = f"{', '.join(found.addresses)}  (from {found.source})"
    if found.vpc_plus_two_known:
        yield Item("resolver", "ok", detail)
    else:
        mend = "VPC+2 is unknown: set [resolver] addresses, or let IMDS be reached"
        yield Item("resolver", "warn", detail, mend)


def led_away(number: int) -> str:
    """How many veths lead away, as a sentence's end."""
    if number == 1:
        return "1 leads into another network namespace"
    return f"{number} lead into other network namespaces"


def _foreign(
    table: LinkTable, index: int, name: str, directions: tuple[str, ...]
) -> Iterator[Item]:
    for direction in directions:
        names = foreign_filters(table.ipr, index, direction)
        if names:
            detail = f"{name} {direction}: {clean(', '.join(names))} (left alone)"
            yield Item("other filters", "info", detail)


def _imds(config: Config) -> tuple[ImdsFacts | None, Item]:
    if not config.runtime.imds:
        return None, Item("metadata", "info", "turned off")
    try:
        facts = Imds(config.runtime.imds).lookup()
    except SourceError as error:
        mend = "ENIs go by their MAC; in a container without host network raise the hop limit to 2"
        return None, Item("metadata", "warn", str(error), mend)
    return facts, Item("metadata", "ok", f"answers, ENIs it knows: {len(facts.enis)}")


def _cgroups() -> Iterator[Item]:
    root = find_root()
    if root is None:
        mend = "cgroup v1 only: attribution stops at the pod or task, without the container"
        yield Item("cgroup v2", "warn", "not mounted", mend)
    else:
        yield Item("cgroup v2", "ok", f"at {root}")


def _docker(config: Config) -> tuple[DockerContainer, ...]:
    try:
        return DockerClient(config.runtime.docker_socket).containers()
    except SourceError:
        return ()  # said by `_runtimes`


def _runtimes(config: Config) -> Iterator[Item]:
    try:
        version = clean(DockerClient(config.runtime.docker_socket).version())
        yield Item("docker", "ok", f"version {version}")
    except SourceError as error:
        mend = "without it ECS tasks have no names; give --docker-socket, or mount it"
        yield Item("docker", "info", clean(str(error)), mend)
    path = config.runtime.containerd_socket or find_socket()
    mend = "without it pods have no names; give --containerd-socket, or mount it"
    if path is None:
        yield Item("containerd", "info", "no socket", mend)
        return
    client = Containerd(path)
    try:
        version = client.version()
        yield Item("containerd", "ok", f"version {version} at {clean(path)}")
    except SourceError as error:
        yield Item("containerd", "info", clean(str(error)), mend)
    finally:
        client.close()


def _agent(config: Config) -> Iterator[Item]:
    agent = presence.find(config.runtime_dir)
    if agent is None and presence.is_counting():
        yield Item(
            "agent",
            "warn",
            f"none announced in {config.runtime_dir}, but another eni53 counts here",
            "an agent cannot start beside it: find its --runtime-dir, or end the `top`, `doctor`"
            " or `record` that counts by itself",
        )
    elif agent is None:
        yield Item("agent", "info", f"none announced in {config.runtime_dir}")
    else:
        detail = (
            f"running as process {agent.pid} at {clean(agent.url)} (version {clean(agent.version)})"
        )
        yield Item("agent", "ok", detail)
