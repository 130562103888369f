"""From packets on a trunk to what doctor says of a branch ENI whose pods ask a cache in vain."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from eni53.config import Config
from eni53.diagnosis import findings
from eni53.inventory.cgroups import CgroupTree
from eni53.inventory.workloads import Workloads
from eni53.kernel import maps
from eni53.model import Eni, Snapshot
from eni53.pipeline import Pipeline

from .kernel import Kernel
from .queries import FINAL_S, RESOLVER4, ask, clear, fresh, reply

NODELOCAL, TRUNK, BRANCH = "169.254.20.10", 0, 12


def diagnosed(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """ENI by code of the finding, when every query has had its time."""
    clock = SimpleNamespace(monotonic_ns=lambda: time.monotonic_ns() + int(FINAL_S * 1e9))
    started_ns = time.monotonic_ns() - 10**10
    with monkeypatch.context() as patch:
        patch.setattr(maps, "time", clock)
        sample = kernel.maps.read()
    pipeline = Pipeline(Config(), Workloads(), CgroupTree(None), started_ns)
    pipeline.add_eni(Eni("trunk", "02:00:00:00:00:01", "eni", "host", kernel.dev))
    seconds, enis = pipeline.update(sample, (), since_start=True, last=True)
    last = Snapshot("node", 1000.0, seconds, enis)
    return {finding.code: finding.eni for finding in findings(None, last)}


def lookups(kernel: Kernel, vlan: int, server: str, *, answered: bool, number: int = 30) -> None:
    """Each with an id of its own."""
    for identity in [fresh() for _ in range(number)]:
        ask(kernel, identity, resolver=server, vlan=vlan)
        if answered:
            reply(kernel, identity, resolver=server, vlan=vlan)


@pytest.fixture(autouse=True)
def _fresh(bench: Kernel) -> None:
    """A trunk with one branch, nothing counted."""
    clear(bench)
    bench.forget([BRANCH])


@pytest.mark.parametrize("second", [True, False])
def test_a_branch_eni_whose_cache_is_out_of_reach(
    bench: Kernel, monkeypatch: pytest.MonkeyPatch, second: bool
) -> None:
    """With a second server that answers, or none; the trunk beside it is well."""
    lookups(bench, TRUNK, RESOLVER4, answered=True)
    lookups(bench, BRANCH, NODELOCAL, answered=False)
    if second:
        lookups(bench, BRANCH, RESOLVER4, answered=True, number=20)
    found = diagnosed(bench, monkeypatch)
    assert found["cache-unreachable"] == f"trunk/vlan{BRANCH}"


def test_a_branch_eni_that_is_answered(bench: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster's DNS on another node, beside an ENI of the host's that asks in vain."""
    lookups(bench, BRANCH, "10.0.9.9", answered=True)
    lookups(bench, BRANCH, RESOLVER4, answered=True)
    lookups(bench, TRUNK, NODELOCAL, answered=False)
    assert "cache-unreachable" not in diagnosed(bench, monkeypatch)
