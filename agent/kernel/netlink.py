"""The parts of pyroute2 that are used, without the rest of it: take them from here.

``import pyroute2`` imports all there is of it, a DHCP client, a database of links and unittest
among others: 6 MiB in an agent that asks for routes and filters, and 50 ms at each start.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_NAME = "pyroute2"


@contextmanager
def _package_unread() -> Iterator[None]:
    """Its modules can be imported meanwhile, and its ``__init__`` does not run.

    Afterwards ``import pyroute2`` is what it always was, for who needs more of it.
    """
    spec = None if _NAME in sys.modules else importlib.util.find_spec(_NAME)
    if spec is None:
        yield
        return
    sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[_NAME]


with _package_unread():
    from pyroute2.iproute.linux import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.rtnl.marshal import MarshalRtnl

__all__ = ["IPRoute", "MarshalRtnl", "NetlinkError"]
