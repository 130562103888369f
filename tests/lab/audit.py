"""The agent's books of one ENI held against the VPC's own counter: both since the same moment."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from typing import Any

from .agent import Agent
from .lab import Lab

# All that an agent counts; a packet is in one of them only.
_EVERYTHING = ("ip_linklocal", "ip6_linklocal", "ip_udp_dns_other", "ip_tcp_dns_other",
               "ip6_udp_dns_other", "ip6_tcp_dns_other")  # fmt: skip

Row = tuple[str, str, str, str]
"""(kind, namespace, workload, container)"""

_ENDED: Row = ("ended", "", "", "")


class Audit:
    """Begins when it is made; nothing may be on its way then.

    Args:
        lab: Where.
        agent: Its agent, running.
        interface: The ENI of the node.
    """

    def __init__(self, lab: Lab, agent: Agent, interface: str = "ens5") -> None:
        self._lab = lab
        self._agent = agent
        self._interface = interface
        self._packets = self._counted()
        self._rows = Counter[Row]()
        self._rows = Counter(self._settled(20)[1])

    @property
    def packets(self) -> int:
        """What nftables has counted since."""
        return self._counted() - self._packets

    def charged(self, timeout: float = 20) -> dict[Row, int]:
        """Packets by workload since, once nothing waits for its name and the sum is nftables'.

        Raises:
            AssertionError: It was not within *timeout* seconds, or there were more.
        """
        deadline = time.monotonic() + timeout
        while True:
            expected = self.packets
            pending, found = self._settled(timeout)
            if not pending and sum(found.values()) == expected == self.packets:
                # What was there before and has ended since is less by as much as _ENDED is more.
                return {row: n for row, n in found.items() if n > 0 and row != _ENDED}
            assert time.monotonic() < deadline, (expected, pending, found)

    def _counted(self) -> int:
        counters = self._lab.counters()
        return sum(counters[f"{self._interface}_{what}"] for what in _EVERYTHING)

    def _settled(self, timeout: float) -> tuple[bool, dict[Row, int]]:
        """From a snapshot of now: whether anything waits for its name, and packets by workload."""
        now_s, deadline = time.time(), time.monotonic() + timeout
        while True:
            snapshot = self._agent.snapshot()
            if datetime.fromisoformat(snapshot["time"]).timestamp() > now_s:
                break
            assert time.monotonic() < deadline, f"the agent has not ticked for {timeout:g} s"
            time.sleep(0.1)
        [eni] = [e for e in snapshot["enis"] if e["interface"] == self._interface]
        rows: Counter[Row] = Counter()
        for row in eni["workloads"]:
            rows[_key(row)] += row["packets"]
        rows[_ENDED] = eni["ended_packets"]
        assert sum(rows.values()) == eni["packets"]
        rows.subtract(self._rows)
        pending = any(row["workload"] == "pending" for row in eni["workloads"])
        return pending, {row: packets for row, packets in rows.items() if packets}


def _key(row: dict[str, Any]) -> Row:
    return row["kind"], row["namespace"], row["workload"], row["container"]
