"""The ECS files: shaped as AWS's own description of its API says, and all three saying the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import botocore.session
import botocore.validate
import hcl2
import pytest
import yaml

ROOT = Path(__file__).parents[2]
ECS = ROOT / "deploy/ecs"
TASK = json.loads((ECS / "task-definition.json").read_text())
SERVICE = json.loads((ECS / "service.json").read_text())
MODEL = botocore.session.Session().get_service_model("ecs")
# What CloudFormation and Terraform fill in, and what stands for it in the JSON.
FILLED_IN = {
    "Image": "REGISTRY/eni53:VERSION",
    "AWS::Region": "REGION",
    "Logs": "/ecs/eni53",
    "Cluster": "CLUSTER",
    "TaskDefinition": "eni53",
}


class Template(yaml.SafeLoader):
    """YAML in which ``!Ref NAME`` is what the JSON has in its place."""


def _reference(_: Template, node: yaml.ScalarNode) -> str | None:
    return FILLED_IN.get(node.value)


Template.add_constructor("!Ref", _reference)


@pytest.mark.parametrize(
    ("operation", "document"), [("RegisterTaskDefinition", TASK), ("CreateService", SERVICE)]
)
def test_aws_takes_it(operation: str, document: dict[str, Any]) -> None:
    """Every field is one of the API's, of its type, and one of its values."""
    shape = MODEL.operation_model(operation).input_shape
    report = botocore.validate.ParamValidator().validate(document, shape)
    assert report.generate_report() == ""
    assert list(unknown(document, shape)) == []


def unknown(value: Any, shape: Any, where: str = "") -> Any:
    """Fields that the shape has not, and words that are none of its enumeration."""
    if shape.type_name == "structure":
        for key, inner in value.items():
            if key not in shape.members:
                yield f"{where}.{key}"
            else:
                yield from unknown(inner, shape.members[key], f"{where}.{key}")
    elif shape.type_name == "list":
        for number, inner in enumerate(value):
            yield from unknown(inner, shape.member, f"{where}[{number}]")
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{where}={value}"


def test_that_check_can_fail() -> None:
    """A typo, a wrong type and a wrong word are found."""
    shape = MODEL.operation_model("RegisterTaskDefinition").input_shape
    container = TASK["containerDefinitions"][0]
    wrong = TASK | {"networkmode": "host", "pidMode": "node"}
    wrong["containerDefinitions"] = [container | {"memory": "256"}]
    assert sorted(unknown(wrong, shape)) == [".networkmode", ".pidMode=node"]
    report = botocore.validate.ParamValidator().validate(wrong, shape).generate_report()
    assert "memory" in report


def test_it_sees_the_instance_and_runs_once_on_each() -> None:
    """The host's network and pids, all privileges, the sockets; a DAEMON may not exceed 100 %."""
    container = TASK["containerDefinitions"][0]
    assert (TASK["networkMode"], TASK["pidMode"]) == ("host", "host")
    assert container["privileged"] and container["readonlyRootFilesystem"]
    assert TASK["requiresCompatibilities"] == ["EC2"]
    assert SERVICE["schedulingStrategy"] == "DAEMON"
    assert SERVICE["taskDefinition"] == TASK["family"]
    assert SERVICE["deploymentConfiguration"] == {"maximumPercent": 100, "minimumHealthyPercent": 0}
    sources = {volume["name"]: volume["host"]["sourcePath"] for volume in TASK["volumes"]}
    mounts = {sources[m["sourceVolume"]]: m["readOnly"] for m in container["mountPoints"]}
    assert mounts == {
        "/var/run/docker.sock": True,
        "/run/containerd": True,
        "/sys/fs/cgroup": True,
        "/run/eni53": False,
    }
    assert len(mounts) == len(TASK["volumes"])


def test_a_log_service_that_hangs_holds_nothing_up() -> None:
    """Docker's default blocks the writer when its buffer is full."""
    options = TASK["containerDefinitions"][0]["logConfiguration"]["options"]
    assert options["mode"] == "non-blocking"


def lowered(value: Any, *, free: bool = False) -> Any:
    """CloudFormation's names as the API's: FirstLetter small. Options of a log driver are free."""
    if isinstance(value, dict):
        return {
            key if free else key[0].lower() + key[1:]: lowered(inner, free=key == "Options")
            for key, inner in value.items()
        }
    return [lowered(inner) for inner in value] if isinstance(value, list) else value


def test_cloudformation_says_the_same() -> None:
    """Task definition and service, field by field, and the log group that the first one names."""
    text = (ECS / "cloudformation.yaml").read_text()
    template = yaml.load(text, Loader=Template)  # noqa: S506 - a SafeLoader
    resources = template["Resources"]
    assert lowered(resources["TaskDefinition"]["Properties"]) == TASK
    assert lowered(resources["Service"]["Properties"]) == SERVICE
    assert resources["Logs"]["Properties"]["LogGroupName"] == FILLED_IN["Logs"]
    names = set(template["Parameters"]) | set(resources) | {"AWS::Region"}
    assert set(re.findall(r"!Ref ([\w:]+)", text)) <= names


def test_terraform_reads_the_json() -> None:
    """Every field of both files is used, and each resource is made of nothing else."""
    text = (ECS / "main.tf").read_text()
    hcl2.loads(text)  # it is HCL
    assert 'file("${path.module}/task-definition.json")' in text
    assert 'file("${path.module}/service.json")' in text
    fields = {"task": set(TASK), "service": set(SERVICE) - {"cluster", "taskDefinition"}}
    for document, wanted in fields.items():
        assert set(re.findall(rf"local\.{document}\.(\w+)", text)) == wanted
    deployment = re.findall(r"local\.service\.deploymentConfiguration\.(\w+)", text)
    assert set(deployment) == set(SERVICE["deploymentConfiguration"])
    # What it fills in stands in the JSON as it looks for it.
    said = json.dumps(TASK["containerDefinitions"])
    replaced = ["REGISTRY/eni53:VERSION", '"REGION"']
    assert [said.count(what) for what in replaced] == [1, 1]
    assert [json.dumps(what)[1:-1] in text for what in replaced] == [True, True]
