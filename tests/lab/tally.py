"""Compares what an agent has counted with what the VPC has, packet by packet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from .agent import Agent
from .lab import Lab

# All that the agent counts, whatever its class; each packet is in one of them only.
_ALL = (
    "ip_linklocal",
    "ip6_linklocal",
    "ip_udp_dns_other",
    "ip_tcp_dns_other",
    "ip6_udp_dns_other",
    "ip6_tcp_dns_other",
)

Row = tuple[str, str, str, str]
Charged = dict[str, dict[Row, int]]


def until(condition: Callable[[], bool], timeout: float = 20) -> bool:
    """Whether *condition* comes true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def flows(lab: Lab, pps: float, counter: str = "ens5_ip_udp_resolver", timeout: float = 30) -> bool:
    """Whether a load of so many packets a second, all of it, has gone on for a second in time."""
    readings: deque[tuple[float, int]] = deque()

    def whole_second() -> bool:
        readings.append((time.monotonic(), lab.counters()[counter]))
        (begin, first), (end, last) = readings[0], readings[-1]
        if end - begin < 1:
            return False
        readings.popleft()
        return (last - first) / (end - begin) > 0.96 * pps

    return until(whole_second, timeout)


def at_rest(read: Callable[[], int], quiet_s: float = 0.5, timeout: float = 20) -> int:
    """What *read* says once that has not changed for a while."""
    deadline = time.monotonic() + timeout
    value, since = read(), time.monotonic()
    while time.monotonic() - since < quiet_s:
        assert time.monotonic() < deadline, f"it still changes after {timeout:g} s"
        time.sleep(0.05)
        if (newest := read()) != value:
            value, since = newest, time.monotonic()
    return value


class Tally:
    """The VPC's counters, from now on."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._before = lab.counters()

    def of(self, *names: str) -> int:
        """By how much these counters rose together: "ens5_ip_udp_resolver", ..."""
        after = self._lab.counters()
        return sum(after[name] - self._before[name] for name in names)

    def by_eni(self) -> dict[str, int]:
        """All that should be counted, by the node's interface."""
        after = self._lab.counters()
        return {
            eni.interface: sum(
                after[f"{eni.counters}_{what}"] - self._before[f"{eni.counters}_{what}"]
                for what in _ALL
            )
            for eni in self._lab.enis
        }

    def charged(self, agent: Agent, *, packets: int = 0, timeout: float = 30) -> Charged:
        """Packets by owner and interface, once the agent has what the VPC has, and no more.

        Owners are (kind, namespace, workload, container). Who sends in the background is waited
        for, until there are so many *packets*. Fails when an ENI's total, the sum of its owners or
        the metrics are another number than the VPC's.
        """
        deadline = time.monotonic() + timeout
        while True:
            seen, snapshot = self.by_eni(), agent.snapshot()
            enough = sum(seen.values()) >= packets and _at_rest(snapshot, seen)
            if enough or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        total = sum(seen.values())
        assert _counted(snapshot) == seen, snapshot["enis"]
        found = {eni["interface"]: _rows(eni) for eni in snapshot["enis"]}
        assert {name: sum(rows.values()) for name, rows in found.items()} == seen
        assert agent.total("eni53_eni_packets_total") == total
        assert agent.total("eni53_workload_packets_total") == total
        return found


def _counted(snapshot: Mapping[str, Any]) -> dict[str, int]:
    return {eni["interface"]: eni["packets"] for eni in snapshot["enis"]}


def _at_rest(snapshot: Mapping[str, Any], seen: Mapping[str, int]) -> bool:
    rows = [row for eni in snapshot["enis"] for row in eni["workloads"]]
    return _counted(snapshot) == seen and all(row["workload"] != "pending" for row in rows)


def _rows(eni: Mapping[str, Any]) -> dict[Row, int]:
    """Packets by owner; what went by a cache is in one sum with what did not."""
    found: dict[Row, int] = {}
    for row in eni["workloads"]:
        owner = (row["kind"], row["namespace"], row["workload"], row["container"])
        found[owner] = found.get(owner, 0) + row["packets"]
    return found
