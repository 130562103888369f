"""What an ENI is called: ``eni-…`` by its altname, by the metadata service, or by the CNI.

A label is fixed for the run, so an ENI that appears later waits a moment for its own: the metadata
service learns of it a little after the kernel does. Packets are counted meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .errors import SourceError
from .faults import Faults
from .inventory.enis import eni_label
from .inventory.imds import MAC, Imds, ImdsFacts
from .inventory.links import Link

_TRIES_S = (0.0, 0.5, 1.5)
_RETRY_S = 30.0


class EniNames:
    """Asks the metadata service, seldom: its packets count against the same limit.

    Args:
        url: Of the metadata service; empty: it is never asked.
        faults: Where it is counted when it does not answer.
    """

    def __init__(self, url: str, faults: Faults) -> None:
        self._imds = Imds(url)
        self._faults = faults
        self._ids: dict[str, str] = {}
        self._one_at_a_time = asyncio.Lock()
        self.configured = bool(url)
        self.facts: ImdsFacts | None = None

    async def lookup(self) -> ImdsFacts | None:
        """Ask for everything; None when it does not answer."""
        if not self.configured:
            return None
        async with self._one_at_a_time:
            try:
                self.facts = await asyncio.to_thread(self._imds.lookup)
            except SourceError as error:
                self._faults.source("imds", False, str(error))
                return None
        self._faults.source("imds", True)
        self._ids |= {mac: eni.interface_id for mac, eni in self.facts.enis.items()}
        return self.facts

    def learn(self, ids: Mapping[str, str]) -> None:
        """MAC to ENI id, from a source other than the metadata service."""
        self._ids |= ids

    def is_taken(self, eni_id: str) -> bool:
        """Whether an ENI goes by that id already."""
        return eni_id in self._ids.values()

    def known(self, link: Link) -> str:
        """Its label by what is known now."""
        return eni_label(link, self._ids)

    def id_of(self, mac: str) -> str:
        """Label by a MAC alone."""
        return self._ids.get(mac) or f"mac:{mac}"

    async def label(self, link: Link) -> str:
        """Its label; asks for an ENI that appeared after the first lookup."""
        # A tunnel has no MAC to ask for, and the service is not to blame for it.
        asks = self.facts is not None and MAC.fullmatch(link.mac.lower())
        for wait_s in _TRIES_S if asks else ():
            if not self.known(link).startswith("mac:"):
                break
            await asyncio.sleep(wait_s)
            await self._ask(link.mac.lower())
        return self.known(link)

    async def _ask(self, mac: str) -> None:
        async with self._one_at_a_time:
            try:
                found = await asyncio.to_thread(self._imds.interface, mac)
            except SourceError as error:
                self._faults.source("imds", False, str(error))
                return
        self._faults.source("imds", True)
        if found is not None:
            self._ids[mac] = found.interface_id
