"""Every setting, once: its key, type, default, rule and help. `describe` gives them to the docs.

It does not read anything: `config` does. Nor does it act on a value: an interface that is not
there, or a socket nobody listens on, is for whoever uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, cast

from . import config_rules as rules

_T = TypeVar("_T")
_DEFAULT_LISTEN = rules.Listen("127.0.0.1", 9153)
_DEFAULT_DIR = Path("/run/eni53")


def _key(default: _T, rule: rules.Rule, help_text: str, flag: str = "") -> _T:
    facts = {"default": default, "rule": rule, "help": help_text, "flag": flag}
    made: _T = field(default_factory=lambda: default, metadata=facts)
    return made


@dataclass(frozen=True, slots=True)
class EniSection:
    """Which ENIs of the agent's own network namespace are counted."""

    interfaces: tuple[str, ...] = _key((), rules.INTERFACES, "ENIs; empty: finds them", "--eni")


@dataclass(frozen=True, slots=True)
class LimitSection:
    """What AWS lets through, and which packets are held against it."""

    pps: int = _key(1024, rules.whole(1, 1_000_000), "packets a second an ENI may send")
    basis: str = _key(
        "linklocal",
        rules.one_of("linklocal", "dns"),
        "what counts: all link-local services, or all of port 53",
    )
    per_eni: Mapping[str, int] = _key(
        MappingProxyType({}), rules.PER_ENI, "other limits, in packets a second, by eni label"
    )


@dataclass(frozen=True, slots=True)
class AlertsSection:
    """When an alert is raised and cleared, as a part of the limit, and who is told."""

    warning: float = _key(0.7, rules.RATIO, "part of the limit that raises a warning")
    critical: float = _key(0.9, rules.RATIO, "part of the limit that raises a critical alert")
    clear_below: float = _key(
        0.6, rules.RATIO, "part of the limit below which a warning clears; worse ones in proportion"
    )
    clear_after: float = _key(5.0, rules.SECONDS, "seconds it must stay below before they clear")
    webhook: str = _key("", rules.URL, 'URL that gets one POST per transition; "": none')
    alertmanager: str = _key("", rules.URL, 'URL of an Alertmanager; "": none')
    emf: bool = _key(False, rules.SWITCH, "write CloudWatch embedded metric format lines to stdout")
    kubernetes_events: bool = _key(
        False, rules.SWITCH, "write an Event on the Node for each transition"
    )


@dataclass(frozen=True, slots=True)
class ResolverSection:
    """Which addresses are the VPC's resolver."""

    addresses: tuple[str, ...] = _key(
        (), rules.ADDRESSES, "the VPC's resolver; empty: IMDS, then resolv.conf"
    )


@dataclass(frozen=True, slots=True)
class RuntimeSection:
    """Where containers and the instance are asked for; empty sockets mean the usual places."""

    docker_socket: str = _key("", rules.SOCKET, 'Docker; "": the usual place', "--docker-socket")
    containerd_socket: str = _key(
        "", rules.SOCKET, 'containerd; "": the usual places', "--containerd-socket"
    )
    ecs_introspection: str = _key("http://127.0.0.1:51678", rules.NODE_URL, 'ECS agent; "": off')
    cni_introspection: str = _key("http://127.0.0.1:61679", rules.NODE_URL, 'VPC CNI; "": off')
    imds: str = _key("http://169.254.169.254", rules.NODE_URL, 'instance metadata; "": off')


@dataclass(frozen=True, slots=True)
class MetricsSection:
    """How many series are exported."""

    max_workloads: int = _key(200, rules.whole(0, 100_000), 'workloads; further ones are "other"')


@dataclass(frozen=True, slots=True)
class NamesSection:
    """Whether the names asked for are counted, how many, and which become metrics."""

    enabled: bool = _key(True, rules.SWITCH, "count the names asked for")
    max: int = _key(2000, rules.whole(0, 100_000), "names held at a time")
    export: tuple[str, ...] = _key((), rules.DNS_NAMES, "names that become metrics")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a person may set. `listen` and `runtime_dir` come from flags only.

    Attributes:
        attach: How programs are attached; from the variable ENI53_ATTACH only, for tests.
    """

    eni: EniSection = field(default_factory=EniSection)
    limit: LimitSection = field(default_factory=LimitSection)
    alerts: AlertsSection = field(default_factory=AlertsSection)
    resolver: ResolverSection = field(default_factory=ResolverSection)
    runtime: RuntimeSection = field(default_factory=RuntimeSection)
    metrics: MetricsSection = field(default_factory=MetricsSection)
    names: NamesSection = field(default_factory=NamesSection)
    listen: rules.Listen = _key(  # noqa: RUF009
        _DEFAULT_LISTEN,
        rules.LISTEN,
        "where the agent serves HTTP; port 0: any free one",
        "--listen",
    )
    runtime_dir: Path = _key(  # noqa: RUF009
        _DEFAULT_DIR, rules.DIRECTORY, "holds agent.json", "--runtime-dir"
    )
    attach: str = _key(
        "auto",
        rules.one_of("clsact", "tcx", "packet", "udp", "auto"),
        "how programs are attached; packet and udp count without any",
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table, for `load`, for flags and for the documentation.

    Attributes:
        key: ``section.key``, or the bare name of what no file may set.
        variable: Its environment variable; empty when there is none.
        flag: Its flag; empty when there is none.
    """

    key: str
    kind: str
    default: object
    allowed: str
    help: str
    variable: str
    flag: str
    rule: rules.Rule


def _settings(owner: type, prefix: str = "") -> Iterator[Setting]:
    for item in fields(owner):
        if not item.metadata:
            yield from _settings(cast(type, item.default_factory), f"{item.name}.")
            continue
        key, rule, flag = prefix + item.name, item.metadata["rule"], item.metadata["flag"]
        variable = "" if flag and not prefix else f"ENI53_{key.upper().replace('.', '_')}"
        default, help_text = item.metadata["default"], item.metadata["help"]
        yield Setting(key, rule.kind, default, rule.allowed, help_text, variable, flag, rule)


TABLE: Mapping[str, Setting] = {setting.key: setting for setting in _settings(Config)}
SECTIONS = tuple(dict.fromkeys(key.partition(".")[0] for key in TABLE if "." in key))


def describe() -> list[Setting]:
    """Every setting in the order of the documentation."""
    return list(TABLE.values())
