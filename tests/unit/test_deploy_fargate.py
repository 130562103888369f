"""The sidecar's part of a task definition: what AWS takes, and what Fargate does not."""

from __future__ import annotations

import json
from typing import Any

import botocore.validate

from .test_deploy_ecs import ECS, MODEL, unknown

PART = json.loads((ECS / "fargate-sidecar.json").read_text())
CONTAINER = PART["containerDefinitions"][0]
# Docker's default, which is Fargate's too (aws/containers-roadmap#409).
DEFAULT = set(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)


def joined() -> dict[str, Any]:
    """A task of Fargate with the part put in."""
    app = {"name": "app", "image": "app", "dependsOn": [
        {"containerName": CONTAINER["name"], "condition": "START"}]}  # fmt: skip
    return {
        "family": "app",
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "256",
        "memory": "512",
        "containerDefinitions": [app, *PART["containerDefinitions"]],
        "volumes": PART["volumes"],
    }


def test_aws_takes_it() -> None:
    """Every field is one of the API's, of its type, and one of its values."""
    shape = MODEL.operation_model("RegisterTaskDefinition").input_shape
    report = botocore.validate.ParamValidator().validate(joined(), shape)
    assert report.generate_report() == ""
    assert list(unknown(joined(), shape)) == []


def test_fargate_takes_it() -> None:
    """Nothing privileged, no tmpfs, no path of a host, no capability added."""
    assert not CONTAINER.get("privileged")
    assert CONTAINER["linuxParameters"].keys() == {"capabilities"}
    assert CONTAINER["linuxParameters"]["capabilities"].keys() == {"drop"}
    assert all("host" not in volume for volume in PART["volumes"])
    assert "pidMode" not in PART


def test_it_keeps_the_one_right_it_needs() -> None:
    """Of Docker's defaults all are dropped but NET_RAW, which only root has."""
    assert DEFAULT - set(CONTAINER["linuxParameters"]["capabilities"]["drop"]) == {"NET_RAW"}
    assert set(CONTAINER["linuxParameters"]["capabilities"]["drop"]) <= DEFAULT
    assert CONTAINER["user"] == "0"
    assert CONTAINER["readonlyRootFilesystem"]


def test_its_end_is_not_the_tasks() -> None:
    """An observer that fails takes nobody along, and comes back."""
    assert CONTAINER["essential"] is False
    assert CONTAINER["restartPolicy"]["enabled"]
    assert CONTAINER["logConfiguration"]["options"]["mode"] == "non-blocking"
