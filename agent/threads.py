"""What runs beside the tick: the thread that talks netlink, and the tasks of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")


class Threads:
    """Started with the first piece of work; who has it also ends it."""

    def __init__(self) -> None:
        self._netlink = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._tasks: set[asyncio.Task[None]] = set()

    async def on_netlink(self, work: Callable[[], _T]) -> _T:
        """Have the netlink thread do it; one thing after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._netlink, work)

    def on_netlink_wait(self, work: Callable[[], _T]) -> _T:
        """The same, from any thread but the loop's and netlink's own: it blocks.

        Raises:
            RuntimeError: The thread has been shut down.
        """
        return self._netlink.submit(work).result()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have the event loop do it, until it is done or `end_tasks` comes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # a task that nobody holds may be collected before it has run
        task.add_done_callback(self._tasks.discard)

    async def end_tasks(self) -> None:
        """Cancel what was spawned, and wait until it is over."""
        for task in (*self._tasks,):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def end_netlink(self) -> None:
        """No more work for the netlink thread; what it was given is still done."""
        self._netlink.shutdown(wait=True)
