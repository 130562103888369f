"""`eni53 remedy`: a cache between the containers of this node and the VPC's resolver.

The files are in deploy/remedies, with `@{name}` where this node's values go; what goes in is an
address or matched a pattern, so nothing that is given or found can add a line to a file.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from . import __version__, remedy_values
from .config import Config
from .errors import UsageError
from .remedy_values import NODELOCAL, Found, Given
from .text import clean

_BLOCK = re.compile(r"^( *)@\{(\w+)\}$", re.MULTILINE)
_INLINE = re.compile(r"@\{(\w+)\}")
_PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")
# Docker translates what the instance itself asks at the bridge's address to the instance's own, and
# networks besides the default one have blocks of their own: so all that may be private is let in.
_ON_THE_BRIDGE = "\n".join(
    ["ip-freebind: yes", *(f"access-control: {block} allow" for block in _PRIVATE)]
)
_Values = dict[str, str]
_Facts = dict[str, Found]


@dataclass(frozen=True, slots=True)
class Remedy:
    """One of them.

    Attributes:
        summary: A line for the list.
        files: Its templates, each with the name it has where it is used.
        flags: Those that it has a use for.
        values: Finds what the templates ask for, and what the header tells of it.
    """

    summary: str
    files: Mapping[str, str]
    flags: frozenset[str]
    values: Callable[[Config, Given], tuple[_Values, _Facts]]


def _bridge(config: Config, given: Given, image: str) -> tuple[_Values, _Facts]:
    """What a cache on the bridge's address needs, and the tasks that ask it."""
    resolver = remedy_values.resolver(config, given)
    gateway = remedy_values.gateway(given)
    remedy_values.same_host(resolver, gateway.text)
    servers = [gateway.text, resolver.text] if given.fallback else [gateway.text]
    found = {"resolver": resolver, "bridge": gateway, "image": remedy_values.image(given, image)}
    values = {
        "resolver": resolver.text,
        "gateway": gateway.text,
        "nameservers": json.dumps(servers),
        "image": found["image"].text,
    }
    return values, found


def _dnsmasq(config: Config, given: Given) -> tuple[_Values, _Facts]:
    return _bridge(config, given, "REGISTRY/dnsmasq:VERSION")


def _host(config: Config, given: Given) -> tuple[_Values, _Facts]:
    values, found = _bridge(config, given, "")
    del found["image"]
    return values, found


def _unbound(config: Config, given: Given) -> tuple[_Values, _Facts]:
    values, found = _bridge(config, given, "REGISTRY/unbound:VERSION")
    values["listen"] = values["gateway"]
    values["server_lines"] = _ON_THE_BRIDGE
    values["unbound_conf"] = _filled("unbound.conf", values)
    return values, found


def _sidecar(config: Config, given: Given) -> tuple[_Values, _Facts]:
    resolver = remedy_values.resolver(config, given)
    image = remedy_values.image(given, "REGISTRY/unbound:VERSION")
    servers = ["127.0.0.1", resolver.text] if given.fallback else ["127.0.0.1"]
    values = {
        "resolver": resolver.text,
        "image": image.text,
        "listen": "127.0.0.1",
        "server_lines": "access-control: ::1 allow",
        "resolv_lines": " ".join(f"'nameserver {server}'" for server in servers),
    }
    values["unbound_conf"] = _filled("unbound.conf", values)
    values["resolv_sh"] = _filled("resolv.sh", values)
    return values, {"resolver": resolver, "image": image}


def _nodelocal(config: Config, given: Given) -> tuple[_Values, _Facts]:
    cluster_ip = remedy_values.cluster_ip(given)
    resolver = remedy_values.resolver(config, given)
    domain = remedy_values.cluster_domain(given)
    image = remedy_values.image(given, "REGISTRY/k8s-dns-node-cache:VERSION")
    remedy_values.same_host(resolver, cluster_ip.text)
    local = str(NODELOCAL)
    # With IPVS the cluster's address is on kube-ipvs0: it cannot be the cache's as well.
    listen = [local] if given.ipvs else [local, cluster_ip.text]
    kube_proxy = (
        f"kube-proxy in IPVS mode: set the kubelet's clusterDNS to {local}; pods get it when they"
        " are started anew."
        if given.ipvs
        else f"Nothing more: it answers at {cluster_ip.text} too, which pods ask already. (With"
        " kube-proxy in IPVS mode it cannot: --ipvs.)"
    )
    values = {
        "resolver": resolver.text,
        "image": image.text,
        "cluster_domain": domain.text,
        "cluster_upstream": cluster_ip.text if given.ipvs else "__PILLAR__CLUSTER__DNS__",
        "bind": " ".join(listen),
        "localip": ",".join(listen),
        "kube_proxy": kube_proxy,
    }
    found = {"resolver": resolver, "cluster DNS": cluster_ip, "domain": domain, "image": image}
    return values, found


_TASK, _SERVICE, _APPLICATION = "task-definition.yaml", "service.yaml", "application.yaml"
_DAEMON = {name: name for name in (_TASK, _SERVICE, _APPLICATION)}
_ON_BRIDGE = frozenset({"--resolver", "--gateway", "--image", "--no-fallback"})
REMEDIES = {
    "dnsmasq-ecs": Remedy(
        "ECS on EC2, tasks in bridge mode: dnsmasq as a daemon service",
        _DAEMON,
        _ON_BRIDGE,
        _dnsmasq,
    ),
    "unbound-ecs": Remedy(
        "the same with unbound: keeps every type of record, has statistics",
        _DAEMON,
        _ON_BRIDGE,
        _unbound,
    ),
    "unbound-awsvpc": Remedy(
        "ECS tasks in awsvpc mode, EC2 and Fargate: unbound as a sidecar",
        {_TASK: _TASK},
        _ON_BRIDGE - {"--gateway"},
        _sidecar,
    ),
    "nodelocaldns-eks": Remedy(
        "EKS: NodeLocal DNSCache on 169.254.20.10",
        {"nodelocaldns.yaml": "nodelocaldns.yaml"},
        frozenset({"--resolver", "--cluster-ip", "--cluster-domain", "--ipvs", "--image"}),
        _nodelocal,
    ),
    "dnsmasq-host": Remedy(
        "an instance without an orchestrator: dnsmasq beside systemd-resolved",
        {
            "dns-cache.conf": "etc/eni53/dns-cache.conf",
            "eni53-dns-cache.service": "etc/systemd/system/eni53-dns-cache.service",
            "resolved.conf": "etc/systemd/resolved.conf.d/eni53-dns-cache.conf",
        },
        _ON_BRIDGE - {"--image"},
        _host,
    ),
}


def run(config: Config, name: str | None, given: Given, output: str) -> int:
    """Print one remedy, or write its files under a directory; without a name, list them.

    Args:
        config: Where to look for what is not given.
        name: One of REMEDIES.
        given: The command line's own values.
        output: A directory, or ``-``: everything on stdout.

    Raises:
        UsageError: No such remedy, a flag that it has no use for, a wrong value, or files that are
            there already.
        NeedError: A value that cannot be found on this node.
    """
    if name is None:
        if given != Given() or output != "-":
            raise UsageError(f"which remedy? There are {', '.join(REMEDIES)}")
        for each, remedy in REMEDIES.items():
            print(f"{each:<18}{remedy.summary}")
        return 0
    if name not in REMEDIES:
        raise UsageError(f"no remedy {clean(name, 40)!r}: there are {', '.join(REMEDIES)}")
    # What is given and then not used would look as if it had been.
    useless = [flag for flag in given.flags if flag not in REMEDIES[name].flags]
    if useless:
        raise UsageError(f"{', '.join(useless)}: {name} has no use for it")
    header, files = rendered(config, name, given)
    if output == "-":
        print(header, end="")
        for path, text in files.items():
            print(
                f"\n# ---- {path}\n{'---' + chr(10) if path.endswith('.yaml') else ''}{text}",
                end="",
            )
        return 0
    _write(Path(output), header, files)
    return 0


def rendered(config: Config, name: str, given: Given) -> tuple[str, dict[str, str]]:
    """The header, as comments, and the text of each file by its path."""
    remedy = REMEDIES[name]
    values, found = remedy.values(config, given)
    lines = [f"eni53 remedy {name} (eni53 {__version__})", ""]
    lines += [f"{what}: {fact.text}  ({fact.origin})" for what, fact in found.items()]
    lines += ["", *_filled(f"{name}/about.txt", values).splitlines()]
    header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return header, {path: _filled(f"{name}/{file}", values) for file, path in remedy.files.items()}


def _filled(path: str, values: _Values) -> str:
    """The template at *path* with its values in; a value alone on its line keeps the indent."""
    text = resources.files("eni53.remedies").joinpath(path).read_text()
    blocks = _BLOCK.sub(lambda m: textwrap.indent(values[m[2]].rstrip("\n"), m[1]), text)
    return _INLINE.sub(lambda m: values[m[1]], blocks)


def _write(directory: Path, header: str, files: Mapping[str, str]) -> None:
    targets = {directory / path: text for path, text in files.items()}
    for target in targets:
        if target.exists() or target.is_symlink():
            raise UsageError(f"{target} is there already: name another directory, or remove it")
    try:
        for target, text in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(f"{header}\n{text}")
    except OSError as error:
        raise UsageError(f"cannot write to {directory}: {error.strerror}") from error
    for target in targets:
        print(target, file=sys.stderr)
