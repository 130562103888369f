"""`eni53 remedy`: what it prints is valid for whoever reads it, and nothing given can add to it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import botocore.validate
import kubernetes_validate
import pytest
import yaml
from eni53 import cli, config, remedy, remedy_values
from eni53.errors import NeedError, UsageError
from eni53.remedy_values import Found, Given

from tests.unit.test_deploy_ecs import MODEL, unknown

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "deploy/remedies"
CONFIG = config.load(None, {"ENI53_RUNTIME_IMDS": ""}, {})
GIVEN = Given(resolver="10.0.0.2", gateway="172.17.0.1", cluster_ip="172.20.0.10")
FULL = Given(
    resolver="fd00:ec2::253",
    gateway="192.168.99.1",
    cluster_ip="10.100.0.10",
    cluster_domain="corp.example",
    image="registry.example:5000/team/cache@sha256:0123",
    ipvs=True,
    fallback=False,
)
GIVENS = pytest.mark.parametrize("given", [GIVEN, FULL], ids=["plain", "full"])
ECS = ("dnsmasq-ecs", "unbound-ecs", "unbound-awsvpc")


def files(name: str, given: Given = GIVEN) -> dict[str, str]:
    """What one remedy consists of."""
    return remedy.rendered(CONFIG, name, given)[1]


def containers(name: str, given: Given = GIVEN) -> dict[str, dict[str, Any]]:
    """The containers of its task definition, by name."""
    task = yaml.safe_load(files(name, given)["task-definition.yaml"])
    return {container["name"]: container for container in task["containerDefinitions"]}


def nodelocal(given: Given) -> list[dict[str, Any]]:
    """The manifests."""
    return list(yaml.safe_load_all(files("nodelocaldns-eks", given)["nodelocaldns.yaml"]))


# --- valid for those who read it --------------------------------------------------------------


@GIVENS
@pytest.mark.parametrize("name", ECS)
def test_aws_takes_the_task_definitions(name: str, given: Given) -> None:
    """Every field is one of the API's, of its type, and one of its values."""
    operations = {"task-definition.yaml": "RegisterTaskDefinition", "service.yaml": "CreateService",
                  "application.yaml": "RegisterTaskDefinition"}  # fmt: skip
    for path, text in files(name, given).items():
        shape = MODEL.operation_model(operations[path]).input_shape
        document = yaml.safe_load(text)
        report = botocore.validate.ParamValidator().validate(document, shape)
        assert (path, report.generate_report()) == (path, "")
        assert list(unknown(document, shape)) == []


@GIVENS
@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_kubernetes_takes_the_manifests(given: Given, version: str) -> None:
    """By the API's own schema, unknown fields refused."""
    manifests = nodelocal(given)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)
    kinds = [manifest["kind"] for manifest in manifests]
    assert kinds == ["ServiceAccount", "Service", "ConfigMap", "DaemonSet"]


@GIVENS
def test_dnsmasq_takes_its_options(given: Given, tmp_path: Path) -> None:
    """The command line of the task, and the file of the host."""
    command = containers("dnsmasq-ecs", given)["dnsmasq"]["command"]
    conf = tmp_path / "dns-cache.conf"
    conf.write_text(files("dnsmasq-host", given)["etc/eni53/dns-cache.conf"])
    for options in (command, [f"--conf-file={conf}"]):
        argv = ["/usr/sbin/dnsmasq", "--test", *options]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "dnsmasq: syntax check OK.\n")


@GIVENS
@pytest.mark.parametrize(
    ("name", "cache"), [("unbound-ecs", "unbound"), ("unbound-awsvpc", "dns-cache")]
)
def test_unbound_takes_its_configuration(
    name: str, cache: str, given: Given, tmp_path: Path
) -> None:
    """As unbound itself checks it; and what decides about private zones stands in it."""
    [variable] = containers(name, given)[cache]["environment"]
    conf = tmp_path / "unbound.conf"
    conf.write_text(variable["value"])
    done = subprocess.run(
        ["/usr/sbin/unbound-checkconf", conf], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

    def option(which: str) -> str:
        argv = ["/usr/sbin/unbound-checkconf", "-o", which, conf]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    assert option("module-config") == "iterator"
    assert option("unblock-lan-zones") == "yes"
    assert option("private-address") == ""
    assert option("serve-expired") == "no"
    zones = re.findall(r"-zone:\n +name: (\S+)\n +forward-addr: (\S+)", variable["value"])
    assert zones == [('"."', given.resolver)]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """An unknown setting is only a warning to systemd, and then does nothing."""
    unit = tmp_path / "etc/systemd/system/eni53-dns-cache.service"
    server = tmp_path / "usr/sbin/dnsmasq"
    text = files("dnsmasq-host")[str(unit.relative_to(tmp_path))]
    for path, content in ((unit, text), (server, "#!/bin/sh\n")):
        path.parent.mkdir(parents=True)
        path.write_text(content)
    server.chmod(0o755)
    shutil.copytree("/lib/systemd/system", tmp_path / "lib/systemd/system", symlinks=True)
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={tmp_path}"]
    done = subprocess.run([*argv, unit.name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@GIVENS
def test_nothing_is_left_to_fill_in(given: Given) -> None:
    """But what is the reader's, in capitals."""
    for name in remedy.REMEDIES:
        header, texts = remedy.rendered(CONFIG, name, given)
        assert all(line.startswith("#") for line in header.splitlines())
        for text in (header, *texts.values()):
            assert "@{" not in text
        # Every template is used by somebody.
        templates = {path.name for path in (TEMPLATES / name).iterdir()} - {"about.txt"}
        assert templates == set(remedy.REMEDIES[name].files)


# --- what each is made of ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dnsmasq-ecs", "unbound-ecs"])
def test_the_tasks_ask_the_cache_and_then_the_resolver(name: str) -> None:
    """In that order; without a fall-back for those who would ask both at once."""
    for given, servers in (
        (GIVEN, ["172.17.0.1", "10.0.0.2"]),
        (FULL, ["192.168.99.1"]),
    ):
        text = files(name, given)["application.yaml"]
        assert yaml.safe_load(text)["containerDefinitions"][0]["dnsServers"] == servers
        service = yaml.safe_load(files(name, given)["service.yaml"])
        task = yaml.safe_load(files(name, given)["task-definition.yaml"])
        assert service["schedulingStrategy"] == "DAEMON"
        assert service["taskDefinition"] == task["family"]
        assert service["deploymentConfiguration"]["maximumPercent"] == 100


def test_the_sidecar_asks_for_nothing_fargate_refuses() -> None:
    """No `dnsServers`, no capability added, no host path; the cache may die alone."""
    text = files("unbound-awsvpc")["task-definition.yaml"]
    task = yaml.safe_load(text)
    for container in task["containerDefinitions"]:
        assert "dnsServers" not in container
        assert "add" not in container.get("linuxParameters", {}).get("capabilities", {})
        assert "NET_BIND_SERVICE" not in json.dumps(container.get("linuxParameters", {}))
    assert all("host" not in volume for volume in task["volumes"])
    cache = containers("unbound-awsvpc")["dns-cache"]
    assert cache["essential"] is False and cache["restartPolicy"]["enabled"]


@pytest.mark.parametrize("given", [GIVEN, FULL], ids=["iptables", "ipvs"])
def test_nodelocal_listens_where_kube_proxy_lets_it(given: Given) -> None:
    """At the cluster's address too, but not with IPVS, which has it on a device of its own."""
    _, service, configuration, daemonset = nodelocal(given)
    assert service["spec"]["selector"] == {"k8s-app": "kube-dns"}
    spec = daemonset["spec"]["template"]["spec"]
    assert spec["hostNetwork"] and spec["dnsPolicy"] == "Default"
    args = spec["containers"][0]["args"]
    addresses = ["169.254.20.10"] + ([] if given.ipvs else [str(given.cluster_ip)])
    assert args[args.index("-localip") + 1] == ",".join(addresses)
    corefile = configuration["data"]["Corefile"]
    assert corefile.count("{") == corefile.count("}")
    assert re.findall(r"bind (.+)", corefile) == [" ".join(addresses)] * 4
    zones = [given.cluster_domain or "cluster.local", "in-addr.arpa", "ip6.arpa", "."]
    assert re.findall(r"^(\S+):53 {$", corefile, re.MULTILINE) == zones
    upstream = given.cluster_ip if given.ipvs else "__PILLAR__CLUSTER__DNS__"
    assert re.findall(r"forward \. (\S+)", corefile) == [upstream] * 3 + [given.resolver]
    header = remedy.rendered(CONFIG, "nodelocaldns-eks", given)[0]
    assert "POD_SECURITY_GROUP_ENFORCING_MODE=strict" in header
    assert ("clusterDNS" in header) == given.ipvs


def test_the_host_asks_no_loop() -> None:
    """Neither resolv.conf, which names the cache itself, nor a strict order of servers."""
    texts = files("dnsmasq-host")
    conf = texts["etc/eni53/dns-cache.conf"]
    set_ = {line for line in conf.splitlines() if line and not line.startswith("#")}
    assert {"no-resolv", "server=10.0.0.2", "listen-address=127.0.0.1"} <= set_
    assert "strict-order" not in set_ and sum(line.startswith("server=") for line in set_) == 1
    dropin = texts["etc/systemd/resolved.conf.d/eni53-dns-cache.conf"]
    assert "DNS=127.0.0.1 10.0.0.2\n" in dropin and "Domains=~.\n" in dropin


@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]], ids=["dash", "busybox"])
@pytest.mark.parametrize(
    ("before", "rest"),
    [
        (
            "search a.example\nnameserver 10.0.0.2\noptions ndots:2\n",
            "search a.example\noptions ndots:2\n",
        ),
        ("nameserver 10.0.0.2\nsearch a.example", "search a.example\n"),
        ("nameserver 10.0.0.2\n", "\n"),
        ("", "\n"),
        ('# it\'s a "$(touch x)" `comment`\n', '# it\'s a "$(touch x)" `comment`\n'),
    ],
)
def test_the_entrypoint_keeps_the_rest_of_resolv_conf(
    shell: list[str], before: str, rest: str, tmp_path: Path
) -> None:
    """The name servers are replaced, once however often it runs; then the application starts."""
    app = containers("unbound-awsvpc")["APPLICATION"]
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(before)
    _, flag, script, name = app["entryPoint"]
    script = script.replace("/etc/resolv.conf", str(resolv))
    for _ in range(2):
        argv = [*shell, flag, script, name, "echo", "two words", "$HOME"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert (done.stdout, done.stderr) == ("two words $HOME\n", "")
        assert resolv.read_text() == f"nameserver 127.0.0.1\nnameserver 10.0.0.2\n{rest}"
    assert [path.name for path in tmp_path.iterdir()] == ["resolv.conf"]


# --- what is given and what is found ----------------------------------------------------------

HOSTILE = [
    ("--resolver", "not-an-address"),
    ("--resolver", "10.0.0.2\nserver=6.6.6.6"),
    ("--resolver", "fe80::1%x\n  - --conf-script=id"),
    ("--resolver", "fe80::1%eth0"),
    ("--resolver", "127.0.0.53"),
    ("--resolver", "::1"),
    ("--resolver", "0.0.0.0"),
    ("--resolver", "224.0.0.1"),
    ("--resolver", "169.254.20.10"),
    ("--resolver", "172.17.0.1"),
    ("--resolver", "10.0.0.2/16"),
    ("--resolver", ""),
    ("--gateway", "docker0"),
    ("--gateway", "fd00::1"),
    ("--gateway", "127.0.0.1"),
    ("--image", 'x"\n    privileged: true'),
    ("--image", "-x"),
    ("--image", "a" * 300),
    ("--image", "\x1b[31m"),
]
HOSTILE_CLUSTER = [
    ("--cluster-ip", "kube-dns"),
    ("--cluster-ip", "169.254.20.10"),
    ("--cluster-ip", "127.0.0.1"),
    ("--cluster-domain", "a b"),
    ("--cluster-domain", "x:53 {\n}"),
    ("--cluster-domain", "a" * 64),
    ("--cluster-domain", "a." * 101 + "a"),
]


@pytest.mark.parametrize(
    ("name", "flag", "value"),
    [("dnsmasq-ecs", *each) for each in HOSTILE]
    + [("nodelocaldns-eks", *each) for each in HOSTILE_CLUSTER],
)
def test_nothing_given_reaches_a_file_unread(
    name: str,
    flag: str,
    value: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One clear line that names the flag, exit code 2, and nothing on stdout."""
    monkeypatch.setenv("ENI53_RUNTIME_IMDS", "")
    usual = {"--resolver": "10.0.0.2", "--gateway": "172.17.0.1", "--cluster-ip": "172.20.0.10"}
    usual = {key: text for key, text in usual.items() if key in remedy.REMEDIES[name].flags}
    argv = [f"{key}={text}" for key, text in (usual | {flag: value}).items()]
    assert cli.main(["remedy", name, *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"eni53: {flag} ") and err.count("\n") == 1
    assert err.rstrip("\n").isprintable() and len(err) < 250


FLAGS = {
    "--resolver": "10.9.0.2",
    "--gateway": "192.168.99.1",
    "--cluster-ip": "10.100.0.10",
    "--cluster-domain": "corp.example",
    "--image": "registry.example/cache:1",
    "--ipvs": "",
    "--no-fallback": "",
}


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("name", remedy.REMEDIES)
def test_a_flag_changes_what_is_printed_or_is_refused(
    name: str, flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is taken and ignored, none refused that would have done something."""
    monkeypatch.setenv("ENI53_RUNTIME_IMDS", "")
    usual = {"--resolver": "10.0.0.2", "--gateway": "172.17.0.1", "--cluster-ip": "172.20.0.10"}
    usual = {key: text for key, text in usual.items() if key in remedy.REMEDIES[name].flags}

    def printed(said: dict[str, str]) -> tuple[int, str, str]:
        argv = [f"{key}={text}" if text else key for key, text in said.items()]
        return (cli.main(["remedy", name, *argv]), *capsys.readouterr())

    code, plain, err = printed(usual)
    assert (code, err) == (0, "")
    code, out, err = printed(usual | {flag: FLAGS[flag]})
    if flag in remedy.REMEDIES[name].flags:
        assert (code, err) == (0, "")
        assert out != plain
    else:
        assert (code, out, err) == (2, "", f"eni53: {flag}: {name} has no use for it\n")


def test_without_a_name_it_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    """All that there are, each in a line; another name is answered with the list."""
    assert cli.main(["remedy"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["dnsmasq-ecs", "unbound-ecs", "unbound-awsvpc", "nodelocaldns-eks",
                     "dnsmasq-host"]  # fmt: skip
    assert cli.main(["remedy", "bind\x1b"]) == 2
    err = capsys.readouterr().err
    assert all(name in err for name in names) and "\x1b" not in err


def test_what_cannot_be_found_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag to give, in one line."""
    monkeypatch.setenv("ENI53_RUNTIME_IMDS", "")
    monkeypatch.setattr(remedy_values, "read_resolv_confs", lambda _: ("nameserver 127.0.0.53\n",))
    assert cli.main(["remedy", "dnsmasq-ecs"]) == 2
    assert "--resolver ADDR" in capsys.readouterr().err
    monkeypatch.setattr(remedy_values, "KUBELET", ())
    assert cli.main(["remedy", "nodelocaldns-eks", "--resolver", "10.0.0.2"]) == 2
    assert "--cluster-ip ADDR" in capsys.readouterr().err


def test_the_configured_resolver_is_the_one() -> None:
    """Also one of those that are the same everywhere; but never one that would loop."""
    for address in ("10.9.0.2", "169.254.169.253"):
        set_ = config.load(None, {"ENI53_RESOLVER_ADDRESSES": address}, {})
        assert remedy_values.resolver(set_, Given()) == Found(address, "[resolver] addresses")
    loop = config.load(None, {"ENI53_RESOLVER_ADDRESSES": "127.0.0.53"}, {})
    with pytest.raises(UsageError, match="would loop"):
        remedy_values.resolver(loop, Given())


@pytest.mark.parametrize("file", remedy_values.KUBELET)
def test_the_kubelet_knows_the_clusters_dns(file: str, tmp_path: Path) -> None:
    """Its first address that is not a cache on the node; no word of a broken file is believed."""
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    said = {"clusterDNS": ["169.254.20.10", "fd00::a", "172.20.0.10"], "clusterDomain": "k8s.test"}
    path.write_text(json.dumps(said))
    origin = "the kubelet's configuration"
    assert remedy_values.cluster_ip(Given(), tmp_path) == Found("172.20.0.10", origin)
    assert remedy_values.cluster_domain(Given(), tmp_path) == Found("k8s.test", origin)
    for text in ("{", "[]", '{"clusterDNS": "172.20.0.10", "clusterDomain": 5}', "[" * 100_000,
                 '{"clusterDNS": [{}, null, "x\\n"], "clusterDomain": "a b"}'):  # fmt: skip
        path.write_text(text)
        with pytest.raises(NeedError, match="--cluster-ip"):
            remedy_values.cluster_ip(Given(), tmp_path)
        assert remedy_values.cluster_domain(Given(), tmp_path).text == "cluster.local"


def test_the_bridge_is_found_or_dockers_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first IPv4 address of docker0; what stands in for it is said to."""
    monkeypatch.setattr(remedy_values, "BRIDGE", "lo")
    assert remedy_values.gateway(Given()) == Found("127.0.0.1", "lo")
    monkeypatch.setattr(remedy_values, "BRIDGE", "no-such-bridge")
    found = remedy_values.gateway(Given())
    assert (found.text, "default" in found.origin) == ("172.17.0.1", True)


def test_files_are_written_and_never_over_others(tmp_path: Path) -> None:
    """Each with the header, under its own path; a second time is refused before anything."""
    target = tmp_path / "new"
    given = replace(GIVEN, cluster_ip=None)
    assert remedy.run(CONFIG, "dnsmasq-host", given, str(target)) == 0
    written = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert written == sorted(files("dnsmasq-host"))
    conf = target / "etc/eni53/dns-cache.conf"
    assert conf.read_text().startswith("# eni53 remedy dnsmasq-host")
    (target / written[0]).unlink()
    with pytest.raises(UsageError, match="is there already"):
        remedy.run(CONFIG, "dnsmasq-host", given, str(target))
    assert not (target / written[0]).exists()
    with pytest.raises(UsageError, match="cannot write"):
        remedy.run(CONFIG, "dnsmasq-host", given, "/proc/nowhere")


def test_the_page_has_all_of_them() -> None:
    """docs/remedies.md: a part for each, and no flag that does not exist."""
    page = (ROOT / "docs/remedies.md").read_text()
    assert re.findall(r"^## `([\w-]+)`", page, re.MULTILINE) == list(remedy.REMEDIES)
    flags = set(re.findall(r"(--[a-z-]+)", " ".join(re.findall(r"eni53 remedy [^\n]+", page))))
    parser_help = subprocess.run(
        [str(ROOT / ".venv/bin/eni53"), "remedy", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert flags and all(flag in parser_help for flag in flags)
