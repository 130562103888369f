"""Keeps what the resolv.conf of each container says.

A container is looked at some seconds after it was first seen, since its root is not in place yet
while its runtime makes it, and then once a minute. A file system of its own making may hang whoever
reads there: then that thread is left alone, the container is not looked at again, and after a few
such none is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from .gather import Place
from .inventory.workloads import PAUSE
from .model import ResolvConf, Workload
from .resolv_look import Look, Target

LOOK_EVERY_S = 2.0
AGAIN_S = 60.0
HANGS_AFTER_S = 5.0
MAX_HUNG = 3
MAX_AT_ONCE = 64
MAX_CONTAINERS = 2048
_STAGE = "resolv.conf"


class ResolvWatch:
    """What containers' resolv.conf files say. Belongs to the event loop.

    Args:
        running: Which containers there are: id, whose it is, where it is.
        failed: Told what went wrong: stage, reason.
        make_look: Makes the thread that looks.
        clock: Monotonic seconds.

    Attributes:
        confs: As in `model.Snapshot`; a new one at each change.
        on_node: Likewise.
    """

    def __init__(
        self,
        running: Callable[[], Iterable[tuple[str, Workload, Place]]],
        failed: Callable[[str, str], None],
        make_look: Callable[
            [Sequence[Target], Iterable[ResolvConf], Callable[[], None]], Look
        ] = Look,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._running = running
        self._failed = failed
        self._make_look = make_look
        self._clock = clock
        self._due_s: dict[Target, float] = {}
        self._known: dict[Target, ResolvConf] = {}
        self._hung: set[Target] = set()
        self._hangs = 0
        self._begun = False
        self._off = False
        self.confs: Mapping[Workload, ResolvConf] = {}
        self.on_node: tuple[str, ...] = ()

    async def run(self) -> None:
        """Look for ever, or until that has failed too often."""
        while not self._off:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look at those whose turn it is."""
        now_s = self._clock()
        # Those of the start have been running for long.
        first_s = now_s + LOOK_EVERY_S / 2 if self._begun else now_s
        self._begun = True
        whose = {target: workload for target, workload in _targets(self._running())}
        gone = self._due_s.keys() - whose.keys()
        for target in gone:
            del self._due_s[target]
            self._known.pop(target, None)
            self._hung.discard(target)
        due = []
        for target in whose:
            if self._due_s.setdefault(target, first_s) <= now_s and target not in self._hung:
                due.append(target)
        if due:
            await self._look_at(due[:MAX_AT_ONCE])
        if due or gone:
            known = self._known.items()
            self.confs = {whose[target]: conf for target, conf in known if target in whose}

    async def _look_at(self, due: list[Target]) -> None:
        others = [conf for target, conf in self._known.items() if target not in due]
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def told() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: we have stopped
                loop.call_soon_threadsafe(done.set)

        look = self._make_look(due, others, told)
        try:
            look.start()
            hung = await _wait(look, done)
        except RuntimeError:  # no thread to be had; the next time, perhaps
            self._failed(_STAGE, "no thread")
            return
        finally:
            look.given_up = True
        now_s = self._clock()
        for target, conf in dict(look.confs).items():
            self._due_s[target] = now_s + AGAIN_S
            if conf is not None:
                self._known[target] = conf
            else:
                self._known.pop(target, None)
        if look.unsupported:
            self._off = True
            self._failed(_STAGE, "no openat2 (Linux 5.6)")
        elif hung is not None:
            self._give_up(hung)
        else:
            self.on_node = look.on_node

    def _give_up(self, target: Target) -> None:
        self._known.pop(target, None)
        self._hung.add(target)
        self._hangs += 1
        self._failed(_STAGE, "a container's file system hangs")
        self._off = self._hangs >= MAX_HUNG
        if self._off:
            # From here on nobody would tell what changes.
            self._known.clear()
            self.on_node = ()


async def _wait(look: Look, done: asyncio.Event) -> Target | None:
    """Until it is through; or at whom it hangs."""
    while True:
        at = look.at
        try:
            async with asyncio.timeout(HANGS_AFTER_S):
                await done.wait()
        except TimeoutError:
            if at is not None and look.at is at:
                return at
        else:
            return None


def _targets(
    running: Iterable[tuple[str, Workload, Place]],
) -> Iterable[tuple[Target, Workload]]:
    """Those that may ask for names: not who only holds the namespace of a task or a pod."""
    found = 0
    for container_id, workload, place in running:
        if workload.container == PAUSE or (workload.kind == "pod" and not workload.container):
            continue
        found += 1
        if found > MAX_CONTAINERS:
            return
        yield Target(container_id, place.pid, place.netns), workload
