"""Puts somebody else's filter on an interface: a BPF program with a final verdict.

Stands for a network policy agent. Run in the node's namespace, from the repository:
``python -m tests.lab.foreign IFACE DIRECTION PRIO HANDLE [VERDICT]``. Verdict 0 is TC_ACT_OK, which
ends the chain and wipes ``tc_index``.
"""

from __future__ import annotations

import sys

from pyroute2 import IPRoute

from tests.lab.rawbpf import returning

NAME = "policy"
_PARENTS = {"ingress": "ffff:fff2", "egress": "ffff:fff3"}


def main(interface: str, direction: str, prio: str, handle: str, verdict: str = "0") -> None:
    """Attach it; the filter holds the program once this process has ended."""
    with IPRoute() as ipr:
        index = ipr.link_lookup(ifname=interface)[0]
        qdiscs = [q.get_attr("TCA_KIND") for q in ipr.get_qdiscs(index=index)]
        if "clsact" not in qdiscs:
            ipr.tc("add", "clsact", index)
        ipr.tc(
            "add-filter",
            "bpf",
            index,
            handle=int(handle, 0),
            fd=returning(int(verdict), NAME),
            name=NAME,
            parent=_PARENTS[direction],
            prio=int(prio),
            protocol=3,
            direct_action=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
