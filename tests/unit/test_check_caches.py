"""`eni53 check` on a node with DNS servers of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from eni53.check_caches import local_servers

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"


def word(number: int) -> str:
    """Four bytes of an address as /proc writes them on this machine."""
    return number.to_bytes(4, sys.byteorder).hex().upper()


def sockets(tmp_path: Path, **tables: list[str]) -> Path:
    """A procfs with these sockets."""
    place = tmp_path / "self" / "net"
    place.mkdir(parents=True)
    for name, locals_ in tables.items():
        rows = [f"  {n}: {at} 00000000:0000 07 0:0 0 0 0" for n, at in enumerate(locals_)]
        (place / name).write_text(HEAD + "\n".join(rows) + "\n")
    return tmp_path


def test_servers_are_told_by_address(tmp_path: Path) -> None:
    """Port 53 over UDP, each address once; other ports are nobody's business."""
    six = word(0) * 3 + word(1)
    proc = sockets(
        tmp_path,
        udp=[f"{word(0x7F000035)}:0035", f"{word(0x7F000035)}:0035", f"{word(0x7F000001)}:0036"],
        udp6=[f"{six}:0035"],
    )
    [item] = local_servers(cgroup2=True, proc=proc)
    assert (item.status, item.detail.partition(": ")[0]) == ("ok", "127.0.0.53, ::1")
    [item] = local_servers(cgroup2=False, proc=proc)
    assert item.status == "warn"
    assert "cgroup v2" in item.mend


def test_of_many_some_are_shown(tmp_path: Path) -> None:
    """NodeLocal DNSCache, a bridge or two, and more."""
    proc = sockets(tmp_path, udp=[f"{word(0x0A000001 + n)}:0035" for n in range(9)])
    [item] = local_servers(cgroup2=True, proc=proc)
    assert item.detail.startswith("10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4 …: ")


@pytest.mark.parametrize("tables", [{}, {"udp": []}, {"udp": [f"{word(1)}:0044"]}])
def test_a_node_without_any(tmp_path: Path, tables: dict[str, list[str]]) -> None:
    """Nothing is said, be there no IPv6 or no socket at all."""
    assert list(local_servers(cgroup2=True, proc=sockets(tmp_path, **tables))) == []
