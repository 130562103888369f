"""The Helm chart: rendered by Helm's own code, and held against the rest of the project."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import helm_python as helm
import jsonschema
import kubernetes_validate
import pytest
import yaml
from eni53 import __version__, config
from eni53.errors import NeedError
from eni53.sinks import kube_event
from eni53.sinks.kube_event import to_event

from tests.fixtures.alerts import alert
from tests.fixtures.chart import CHART, ROOT, pod_spec, render

SCRAPED: dict[str, Any] = {
    "listen": {"address": "$(HOST_IP)"},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
}
EVERYTHING: dict[str, Any] = SCRAPED | {
    "image": {"repository": "registry.example/eni53", "tag": "1"},
    "imagePullSecrets": [{"name": "pull"}],
    "config": '[limit]\nbasis = "dns"\n',
    "env": [{"name": "ENI53_LIMIT_PPS", "value": "512"}],
    "extraCapabilities": ["SYS_RESOURCE"],
    "seLinuxOptions": {"type": "super_t"},
    "affinity": {"nodeAffinity": {}},
    "podLabels": {"team": "net"},
    "podAnnotations": {"a": "b"},
    "serviceAccount": {"create": True, "name": "watcher", "annotations": {"a": "b"}},
    "updateStrategy": {"maxUnavailable": 3},
    "kubernetesEvents": {"enabled": True},
}
EVENTS: dict[str, Any] = {"kubernetesEvents": {"enabled": True}}
OLDEST, NEWEST = "1.25", "1.37"
EVERY_VALUE = [
    {}, SCRAPED, EVERYTHING, {"privileged": True}, {"serviceAccount": {"create": False}}, EVENTS,
]  # fmt: skip
NAMES = ["default", "scraped", "all", "priv", "no-sa", "events"]


@pytest.mark.parametrize("values", EVERY_VALUE, ids=NAMES)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_what_is_rendered(values: dict[str, Any], version: str) -> None:
    """By the API's own schema, unknown fields refused, in the oldest version the chart allows."""
    for kind, manifest in render(values).items():
        if kind not in {"PodMonitor", "PrometheusRule"}:  # not Kubernetes' own
            kubernetes_validate.validate(manifest, version, strict=True)
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"


@pytest.mark.parametrize("values", EVERY_VALUE, ids=NAMES)
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    """But for the icon, which a node agent has none of."""
    report = helm.lint(CHART, values, strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"oops": 1}, "oops"),
        ({"listen": {"address": "10.0.0.1"}}, "/listen/address"),
        ({"listen": {"port": "9153"}}, "/listen/port"),
        ({"listen": {"port": 0}}, "/listen/port"),
        ({"extraCapabilities": ["CAP_BPF"]}, "/extraCapabilities/0"),
        ({"hostPaths": {"run": "run/eni53"}}, "/hostPaths/run"),
        ({"updateStrategy": {"maxUnavailable": "0%"}}, "/updateStrategy/maxUnavailable"),
        ({"podMonitor": {"interval": "15"}}, "/podMonitor/interval"),
        ({"dnsPolicy": "ClusterFirst"}, "/dnsPolicy"),
        ({"kubernetesEvents": {"enabled": "true"}}, "/kubernetesEvents/enabled"),
        ({"kubernetesEvents": {"on": True}}, "/kubernetesEvents"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    """Before anything is installed; the other common validator says the same."""
    with pytest.raises(helm.HelmValuesError, match=re.escape(named)):
        render(values)
    schema = json.loads((CHART / "values.schema.json").read_text())
    with helm.Chart.load(CHART) as chart:
        merged = chart.merge_values(values)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged, schema)


def test_every_default_is_in_the_schema() -> None:
    """A key that the schema does not know could not be set by anybody."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(values, schema)
    assert set(values) == set(schema["properties"]) - {"global"}


def test_the_privileges_are_those_documented() -> None:
    """Four capabilities, all others dropped, as docs/wirings.md has them; or all, if asked for."""
    security = pod_spec()["containers"][0]["securityContext"]
    documented = re.search(r"`((?:CAP_\w+ ?)+)`", (ROOT / "docs/wirings.md").read_text())
    assert documented is not None
    assert security["capabilities"]["drop"] == ["ALL"]
    assert [f"CAP_{name}" for name in security["capabilities"]["add"]] == documented[1].split()
    assert not security["privileged"]
    assert not security["allowPrivilegeEscalation"]
    assert security["readOnlyRootFilesystem"]

    all_of_them = pod_spec({"privileged": True})["containers"][0]["securityContext"]
    assert all_of_them["privileged"]
    assert "capabilities" not in all_of_them  # the API refuses the two together
    more = pod_spec({"extraCapabilities": ["SYS_RESOURCE"]})["containers"][0]["securityContext"]
    assert more["capabilities"]["add"][-1] == "SYS_RESOURCE"


def test_it_sees_the_node_and_asks_no_api_server() -> None:
    """The host's network and pids; no token; every node, tainted ones too."""
    spec = pod_spec()
    assert spec["hostNetwork"] and spec["hostPID"]
    assert spec["automountServiceAccountToken"] is False
    assert render()["ServiceAccount"]["automountServiceAccountToken"] is False
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert not any("projected" in volume for volume in spec["volumes"])
    assert {"Role", "RoleBinding"}.isdisjoint(render())
    assert {variable["name"] for variable in spec["containers"][0]["env"]} == {"HOST_IP"}


def test_events_get_a_token_and_the_least_right_for_them() -> None:
    """Create, and no more, where the sink writes; by the account that the pod runs as."""
    for values in (EVENTS, EVERYTHING):
        manifests = render(values, namespace="watching")
        role, binding = manifests["Role"], manifests["RoleBinding"]
        assert role["rules"] == [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]
        written = to_event(alert(), "node")["metadata"]["namespace"]
        assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == written
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        spec = manifests["DaemonSet"]["spec"]["template"]["spec"]
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": spec["serviceAccountName"], "namespace": "watching"}
        ]
        assert spec["automountServiceAccountToken"] is False
    names = {
        render(EVENTS, namespace=namespace)["Role"]["metadata"]["name"] for namespace in ("a", "b")
    }
    assert len(names) == 2  # both are in `default`


def test_the_sink_finds_what_is_mounted_for_events(tmp_path: Path) -> None:
    """Laid out as the kubelet does, in links that it exchanges, the sink takes it; and it is on."""
    spec = pod_spec(EVENTS)
    container = spec["containers"][0]
    (volume,) = (v["projected"] for v in spec["volumes"] if "projected" in v)
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "account")
    assert (mount["mountPath"], mount["readOnly"]) == (str(kube_event.ACCOUNT), True)
    assert "subPath" not in mount  # such a file is never replaced
    token, authority = (source for source in volume["sources"])
    assert 600 <= token["serviceAccountToken"]["expirationSeconds"] <= 3600
    (tmp_path / "..data").mkdir()
    for path in (
        token["serviceAccountToken"]["path"],
        *(item["path"] for item in authority["configMap"]["items"]),
    ):
        (tmp_path / "..data" / path).touch()
        (tmp_path / path).symlink_to(f"..data/{path}")

    variables = {v["name"]: v.get("value") or v["valueFrom"] for v in container["env"]}
    assert variables.pop("NODE_NAME") == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    del variables["HOST_IP"]
    assert config.load(None, variables, {}).alerts.kubernetes_events
    given = {"KUBERNETES_SERVICE_HOST": "172.20.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    kube_event.KubernetesEvents(given, tmp_path)
    (tmp_path / "token").unlink()
    with pytest.raises(NeedError):
        kube_event.KubernetesEvents(given, tmp_path)


def test_events_do_not_give_the_right_to_every_pod_of_the_namespace() -> None:
    """Whose account is `default` unless they say otherwise."""
    with pytest.raises(helm.HelmRenderError, match=r"serviceAccount\.create"):
        render(EVENTS | {"serviceAccount": {"create": False}})
    own = render(EVENTS | {"serviceAccount": {"create": False, "name": "watcher"}})
    assert own["RoleBinding"]["subjects"][0]["name"] == "watcher"
    assert "ServiceAccount" not in own


def test_nothing_of_the_node_is_written_but_its_own_directory() -> None:
    """Every other mount of the host is read-only; and the list is the one in the docs."""
    spec = pod_spec()
    hosts = {v["name"]: v["hostPath"]["path"] for v in spec["volumes"] if "hostPath" in v}
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
    writable = [hosts[name] for name in hosts if not mounts[name].get("readOnly")]
    assert writable == ["/run/eni53"]
    page = (ROOT / "docs/deploy-eks.md").read_text()
    assert [path for path in hosts.values() if f"`{path}`" not in page] == []


@pytest.mark.parametrize(
    ("address", "host"),
    [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("$(HOST_IP)", None), ("0.0.0.0", None)],
)
def test_probes_ask_where_the_agent_listens(address: str, host: str | None) -> None:
    """On loopback the kubelet must be told so; else it asks the pod's address: the node's."""
    container = pod_spec({"listen": {"address": address, "port": 9999}})["containers"][0]
    assert container["args"] == ["agent", "--listen", f"{address}:9999"]
    paths = []
    for which in ("livenessProbe", "readinessProbe"):
        http = container[which]["httpGet"]
        assert http.get("host") == host
        assert http["port"] == "metrics"
        paths.append(http["path"])
    assert paths == ["/healthz", "/readyz"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9999, "protocol": "TCP"}]
    env = {variable["name"] for variable in container["env"]}
    assert set(re.findall(r"\$\((\w+)\)", address)) <= env


def test_loopback_is_the_default_and_cannot_be_scraped() -> None:
    """Asking for a PodMonitor on it is a contradiction that would show as "down" much later."""
    assert pod_spec()["containers"][0]["args"][-1] == "127.0.0.1:9153"
    with pytest.raises(helm.HelmRenderError, match="nothing outside the node reaches"):
        render({"podMonitor": {"enabled": True}})


def test_what_prometheus_gets_is_what_the_rules_ask_for() -> None:
    """The job's name, the node as `instance`, the agent's own labels: as in prometheus.yml."""
    spec = render(SCRAPED)["PodMonitor"]["spec"]
    assert spec["selector"]["matchLabels"].items() <= (
        render(SCRAPED)["DaemonSet"]["spec"]["template"]["metadata"]["labels"].items()
    )
    endpoint = spec["podMetricsEndpoints"][0]
    plain = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    job = plain["scrape_configs"][0]
    assert endpoint["honorLabels"] is job["honor_labels"] is True
    assert spec["sampleLimit"] == job["sample_limit"]
    relabelings = endpoint["relabelings"]
    relabelled = {row["targetLabel"]: row for row in relabelings if "targetLabel" in row}
    assert relabelled["job"]["replacement"] == job["job_name"]
    assert relabelled["instance"]["sourceLabels"] == ["__meta_kubernetes_pod_node_name"]


def test_the_rules_are_those_of_deploy_prometheus() -> None:
    """One file: the chart has a link to it, and only the runbook's place is changed."""
    assert (CHART / "rules.yml").is_symlink()
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text()
    assert render(SCRAPED)["PrometheusRule"]["spec"] == yaml.safe_load(rules)
    there = "https://wiki.example/eni53-alerts"
    values = {"prometheusRule": {"enabled": True, "runbook": there}}
    moved = rules.replace("docs/alerts.md", there)
    assert render(values)["PrometheusRule"]["spec"] == yaml.safe_load(moved)


def test_a_packed_chart_has_the_rules_in_it(tmp_path: Path) -> None:
    """A link out of the chart would be no use to whoever has the archive alone."""
    with helm.Chart.load(CHART) as chart:
        archive = chart.save(tmp_path)
    with helm.Chart.load(archive) as chart:
        texts = chart.render(SCRAPED, name="x", namespace="y")
    assert "Eni53NearLimit" in texts["eni53/templates/prometheusrule.yaml"]


def test_its_version_is_the_agents() -> None:
    """The image's tag comes from it."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == __version__
    assert pod_spec()["containers"][0]["image"] == f"REGISTRY/eni53:{__version__}"


def test_the_configuration_arrives_and_restarts_the_pods(tmp_path: Path) -> None:
    """What `config` says is a file that the agent reads at its usual place, and it takes it."""
    before, after = render(), render({"config": "[limit]\npps = 512\n"})
    file = tmp_path / "eni53.toml"
    file.write_text(after["ConfigMap"]["data"]["eni53.toml"])
    assert config.load(file, {}, {}).limit.pps == 512
    sums = [
        manifests["DaemonSet"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for manifests in (before, after)
    ]
    assert sums[0] != sums[1]
    mount = pod_spec()["containers"][0]["volumeMounts"][0]
    assert (mount["name"], mount["mountPath"]) == ("config", "/etc/eni53")


def test_two_releases_do_not_share_names() -> None:
    """Long names are cut to what Kubernetes takes."""
    names = [
        render(name=name)["DaemonSet"]["metadata"]["name"] for name in ("eni53", "a", "b" * 53)
    ]
    assert names == ["eni53", "a-eni53", "b" * 53 + "-eni53"]


def test_the_page_sets_values_that_exist() -> None:
    """Each `--set` of docs/deploy-eks.md, and each value in its table; rendered, they are taken."""
    page = (ROOT / "docs/deploy-eks.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = page.split("## Values")[1].split("## ")[0]
    keys = re.findall(r"--set '?([\w.]+)=", page)
    keys += [key for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for key in
             re.findall(r"`([\w.]+)`", row)]  # fmt: skip
    assert len(keys) > 12
    for key in keys:
        found: Any = values
        for part in key.split("."):
            assert part in found or found == {}, key
            found = found.get(part, {})
