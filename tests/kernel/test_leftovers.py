"""After kill -9: what stays behind, and the sweep that takes it away and nothing else."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from eni53.inventory.links import LinkTable
from eni53.kernel.attach import ENI_HOOKS, Attacher

from .conftest import MakeAttacher
from .kernel import Kernel
from .netns import Pair, until


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Where qdiscs of ours are written down."""
    return tmp_path / "qdiscs.json"


def attach_and_die(kernel: Kernel, pair: Pair, mode: str, ledger: Path) -> None:
    """A process of its own attaches to the ENI, and is killed."""
    child = os.fork()
    if not child:
        try:
            attacher = Attacher(LinkTable().ipr, kernel.loaded, mode, ledger)
            attacher.attach(pair.eni, "eni", ENI_HOOKS)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_tcx_leaves_nothing_even_when_killed(wired: Kernel, pair: Pair, ledger: Path) -> None:
    """The link dies with its process: no sweep is needed."""
    attach_and_die(wired, pair, "tcx", ledger)
    with pair.node.socket() as sender:
        sender.sendto(b"question", ("10.0.0.2", 53))
    assert until(lambda: pair.counted("udp4") == 1)
    assert {} == wired.maps.read().senders
    assert not ledger.exists()


def test_clsact_leftovers_are_swept(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, ledger: Path
) -> None:
    """Filters by their name, the qdisc by the ledger; once is enough."""
    before = pair.node.traces("eni")
    attach_and_die(wired, pair, "clsact", ledger)
    assert {str(pair.eni): "eni"} == json.loads(ledger.read_text())
    assert "eni53:eni_egress" in pair.node.traces("eni")

    attacher = make_attacher("clsact", ledger)
    there = {pair.eni: "eni", 1: "lo", 4242: "gone"}
    assert (1, 0) == (attacher.sweep(there), attacher.sweep(there))
    assert before == pair.node.traces("eni")
    assert not ledger.exists()


def test_a_sweep_under_tcx_removes_clsact_leftovers_too(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, ledger: Path
) -> None:
    """The next start may be with another mode."""
    before = pair.node.traces("eni")
    attach_and_die(wired, pair, "clsact", ledger)
    assert 1 == make_attacher("tcx", ledger).sweep({pair.eni: "eni"})
    assert before == pair.node.traces("eni")


def test_a_sweep_leaves_a_qdisc_that_is_not_ours(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, ledger: Path
) -> None:
    """It was there before us: our filters go, it stays, and a foreign filter with it."""
    pair.node.tc("qdisc", "add", "dev", "eni", "clsact")
    filter_ = ("prio", "7", "protocol", "ip", "u32", "match", "u32", "0", "0")
    pair.node.tc("filter", "add", "dev", "eni", "egress", *filter_)
    before = pair.node.traces("eni")
    attach_and_die(wired, pair, "clsact", ledger)
    assert not ledger.exists()
    assert 1 == make_attacher("clsact", ledger).sweep({pair.eni: "eni"})
    assert before == pair.node.traces("eni")


def test_a_sweep_keeps_our_qdisc_while_another_needs_it(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, ledger: Path
) -> None:
    """Somebody put a filter on the qdisc we made: taking it away would take theirs."""
    attach_and_die(wired, pair, "clsact", ledger)
    filter_ = ("prio", "7", "protocol", "ip", "u32", "match", "u32", "0", "0")
    pair.node.tc("filter", "add", "dev", "eni", "egress", *filter_)
    assert 1 == make_attacher("clsact", ledger).sweep({pair.eni: "eni"})
    assert "u32" in pair.node.traces("eni")
    assert "eni53" not in pair.node.traces("eni")


@pytest.mark.parametrize("written", ['{"%d": "eth7"}', "[1]", "nonsense", "{}"])
def test_a_ledger_about_another_interface_takes_nothing(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, ledger: Path, written: str
) -> None:
    """Indexes are used again: only index and name together are the interface of then."""
    pair.node.tc("qdisc", "add", "dev", "eni", "clsact")
    before = pair.node.traces("eni")
    ledger.write_text(written.replace("%d", str(pair.eni)))
    assert 0 == make_attacher("clsact", ledger).sweep({pair.eni: "eni"})
    assert before == pair.node.traces("eni")


def test_a_swept_qdisc_is_forgotten(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, ledger: Path
) -> None:
    """Others may make one in its place: the sweep after next must not take that for ours."""
    attach_and_die(wired, pair, "clsact", ledger)
    make_attacher("clsact", ledger).sweep({pair.eni: "eni"})
    pair.node.tc("qdisc", "add", "dev", "eni", "clsact")
    before = pair.node.traces("eni")
    attach_and_die(wired, pair, "clsact", ledger)
    make_attacher("clsact", ledger).sweep({pair.eni: "eni"})
    assert before == pair.node.traces("eni")


def test_the_ledger_ends_with_the_last_qdisc(
    wired: Kernel, pair: Pair, make_attacher: MakeAttacher, ledger: Path
) -> None:
    """Written when a qdisc is made, gone when it is."""
    attacher = make_attacher("clsact", ledger)
    attacher.attach(pair.eni, "eni", ENI_HOOKS)
    assert {str(pair.eni): "eni"} == json.loads(ledger.read_text())
    attacher.detach_all()
    assert not ledger.exists()
