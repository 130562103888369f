"""Which addresses are resolvers, and the kernel told of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from .config import Config
from .eni_names import EniNames
from .inventory.links import LinkTable
from .inventory.resolvers import Resolvers, read_resolv_confs, resolver_addresses
from .kernel.maps import Maps
from .threads import Threads
from .wiring import find_enis

_IMDS_RETRY_S = 30.0


class KnownResolvers:
    """What is known of them now.

    Args:
        config: What the user says of them.
        names: What the metadata service says.
        threads: The netlink thread.
    """

    def __init__(self, config: Config, names: EniNames, threads: Threads) -> None:
        self._config = config
        self._names = names
        self._threads = threads
        self.found = Resolvers((), False, "unknown")

    async def find(self, table: LinkTable) -> None:
        """Look, once."""
        self.found = await self._threads.on_netlink(lambda: self._look(table))

    async def await_imds(self, table: LinkTable) -> None:
        """It did not answer at the start; until it does, VPC+2 may be unknown."""
        while self._names.facts is None:
            await asyncio.sleep(_IMDS_RETRY_S)
            await self._names.lookup()
        await self.find(table)

    def tell(self, maps: Maps, *, cilium: bool) -> None:
        """Let the programs know; Cilium keeps its own marks in tc_index, so no tags beside it."""
        maps.set_resolvers(
            self.found.addresses, write_tags=not cilium, names=self._config.names.enabled
        )

    def _look(self, table: LinkTable) -> Resolvers:
        known = self._names.facts.enis.values() if self._names.facts else ()
        enis = [link.index for link in find_enis(table, self._config.eni.interfaces)]
        return resolver_addresses(
            self._config.resolver.addresses,
            list(dict.fromkeys(eni.vpc_cidr for eni in known if eni.vpc_cidr)),
            read_resolv_confs(Path("/")),
            table.prefixes(enis),
        )
