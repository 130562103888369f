"""The table of connections of a lab's own node: its real numbers, and one that is nearly full.

The limit belongs to the whole machine and is not touched; which connections are followed is a
namespace's own, and so is the number that is held against the limit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agent import Agent
from tests.lab.lab import Lab

LIMIT = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
MOST = 1 << 19  # more connections than this would take too much of the machine
_FILL = """
import itertools, socket, sys
sink, out = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
sink.bind(("0.0.0.0", 9999))
sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
for number in range(int(sys.argv[1])):
    out.sendto(b"", ("127.%d.%d.%d" % (number >> 16 & 255, number >> 8 & 255, number & 255), 9999))
"""


@pytest.fixture
def node() -> Iterator[Lab]:
    """One of its own, for the table is its namespace's; connections are followed, and kept long."""
    with Lab(docker=False, limit_pps=None) as lab:
        follow = "add table ip t; add chain ip t c { type filter hook output priority 0; };"
        lab.node_exec(["nft", follow + " add rule ip t c ct state new counter"])
        keep = "echo 300 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout"
        lab.node_exec(["sh", "-c", keep])
        yield lab


def entries(lab: Lab) -> int:
    """As the kernel says."""
    return int(lab.node_exec(["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]).stdout)


def fill(lab: Lab, count: int) -> None:
    """That many connections over loopback."""
    lab.node_exec([sys.executable, "-c", _FILL, str(count)])


def look(agent: Agent) -> dict[str, dict[str, Any]]:
    """What doctor finds, by code."""
    done = agent.run("doctor", "--json", "--seconds", "3")
    return {finding["code"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_the_table_of_the_node_is_told_and_found_full(node: Lab) -> None:
    """Calm at first; then over nine tenths of the limit."""
    assert LIMIT <= MOST, "this machine's limit is too high to fill a table up to it"
    fill(node, 500)
    with Agent(node, docker=False, containerd=False) as agent:
        told = agent.snapshot()["conntrack"]
        assert told["limit"] == LIMIT
        assert 500 <= told["entries"] <= 600
        assert (told["insert_failed"], told["dropped"]) == (0, 0)
        assert "conntrack-full" not in look(agent)
        fill(node, round(LIMIT * 0.93))
        assert entries(node) >= LIMIT * 0.9
        full = look(agent)["conntrack-full"]
        assert full["evidence"]["limit"] == LIMIT
        assert full["evidence"]["share"] == pytest.approx(0.93, abs=0.02)
        assert agent.total("eni53_node_conntrack_entries") >= LIMIT * 0.9
        assert agent.total("eni53_node_conntrack_limit") == LIMIT
