"""The event loop's side of `tasknets`: pause containers come, go, and something stirs in them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from .inventory.links import LinkEvents
from .tasknets import TaskNets, TaskNetsState
from .threads import Threads


class TaskEnis:
    """Waits on the namespaces of tasks, and has the netlink thread look into them.

    Args:
        threads: The netlink thread and the loop.
        changed: Told what there is, after each look.
    """

    def __init__(
        self, threads: Threads, changed: Callable[[TaskNetsState], Awaitable[None]]
    ) -> None:
        self._threads = threads
        self._changed = changed
        self._nets: TaskNets | None = None
        self._paused_early: list[int] = []
        self._readers: dict[int, LinkEvents] = {}

    async def start(self, nets: TaskNets) -> None:
        """Look into the namespaces of those that were told before there was a *nets*."""
        self._nets = nets
        for pid in self._paused_early:
            await self._threads.on_netlink(lambda pid=pid: nets.watch(pid))  # type: ignore[misc]
        await self._look_again(nets)

    def stop(self) -> None:
        """Wait on nothing any more."""
        self._wait_on({})

    def paused(self, pid: int) -> None:
        """A pause container is there; its ENI is, or comes soon."""
        if self._nets is None:
            self._paused_early.append(pid)
            return
        self._threads.spawn(self._on_nets(lambda nets: nets.watch(pid)))

    def unpaused(self, inode: int) -> None:
        """The pause container of that namespace has ended."""
        events = self._readers.pop(inode, None)
        if events is not None:
            asyncio.get_running_loop().remove_reader(events.socket)
        self._threads.spawn(self._on_nets(lambda nets: nets.unwatch(inode)))

    async def check(self) -> None:
        """Let go of what has ended without a word, and try again what failed."""
        nets = self._nets
        if nets is not None:
            for inode in await self._threads.on_netlink(nets.check):
                self.unpaused(inode)
            await self._look_again(nets)

    async def allowances(self) -> dict[int, Mapping[str, int]]:
        """See `TaskNets.allowances`."""
        nets = self._nets
        return await self._threads.on_netlink(nets.allowances) if nets is not None else {}

    async def _on_nets(self, work: Callable[[TaskNets], None]) -> None:
        nets = self._nets
        if nets is not None:
            await self._threads.on_netlink(lambda: work(nets))
            await self._look_again(nets)

    async def _look_again(self, nets: TaskNets) -> None:
        state = await self._threads.on_netlink(lambda: nets.state)
        self._wait_on(state.events)
        await self._changed(state)

    def _wait_on(self, events: Mapping[int, LinkEvents]) -> None:
        loop = asyncio.get_running_loop()
        for inode in self._readers.keys() - events.keys():
            loop.remove_reader(self._readers.pop(inode).socket)
        for inode, ready in events.items():
            if inode not in self._readers:
                self._readers[inode] = ready
                loop.add_reader(ready.socket, self._stirred, inode)

    def _stirred(self, inode: int) -> None:
        # Until it has been read by the other thread, the socket would wake us without end.
        asyncio.get_running_loop().remove_reader(self._readers.pop(inode).socket)
        self._threads.spawn(self._on_nets(lambda nets: nets.look(inode)))
