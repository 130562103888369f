"""One lab for all e2e tests, with a real dockerd; each test has an agent of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab


@pytest.fixture(scope="session", autouse=True)
def _as_root() -> None:
    """Without root nothing here means anything, and a skip would hide that."""
    assert os.geteuid() == 0, "the e2e tests make network namespaces and load BPF: run as root"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A VPC that drops nothing, so that sent and counted can be compared."""
    with Lab(docker=True, docker_ipv6=True, limit_pps=None) as lab:
        yield lab
