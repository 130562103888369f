"""`eni53 agent`: a node, a tick a second, and the sinks, until a signal comes."""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from dataclasses import replace

from . import __version__, presence
from .alerting import Alerting
from .config import Config
from .flight.files import DIRECTORY
from .flight.keeper import Keeper
from .kernel.child import CompilerChild
from .log import get_logger
from .model import Snapshot
from .sidecar.choice import Counting, make_node
from .sinks.http import HttpDoor, View

TICK_S = 1.0
_UNHEALTHY_AFTER_S = 10.0
_SOONEST_S = 0.1
_GC_EVERY = 10_000


class Daemon:
    """One agent.

    Args:
        config: What the user wants.
        child: Compiles the programs already; None where none are needed.
    """

    def __init__(self, config: Config, child: CompilerChild | None) -> None:
        self._config = config
        self._child = child
        self._log = get_logger()
        self._latest: Snapshot | None = None
        self._ticked_at_s = time.monotonic()
        self._stopping = asyncio.Event()
        self._alerting = Alerting(config)
        self._keeper = Keeper(config.runtime_dir / DIRECTORY)
        self._looking: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Count until SIGTERM, SIGINT or SIGHUP, then leave everything as it was.

        Raises:
            NeedError: Before it is ready; afterwards nothing ends it but a signal.
        """
        started_s = time.monotonic()
        presence.make_directory(self._config.runtime_dir)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stopping.set)
        listen = self._config.listen
        door = HttpDoor(listen.host, listen.port, View(lambda: self._latest, self._healthy))
        node = make_node(self._config, child=self._child)
        node.on_crossing = lambda: self._crossed(node)
        self._keeper.failed = lambda reason: node.failed("recorder", reason)
        try:
            await node.start()
            self._alerting.start()
            door.start()
            self._tick(node)
            presence.announce(self._config.runtime_dir, door.url)
            self._log.info(
                "eni53.started",
                version=__version__,
                url=door.url,
                enis=[usage.eni.label for usage in self._latest.enis] if self._latest else [],
                attach=node.mode,
                seconds=round(time.monotonic() - started_s, 3),
            )
            # What is there now stays: not to be looked through at every collection from here on.
            gc.collect()
            gc.freeze()
            # A tick makes some thousand objects, and they go by themselves with the next.
            gc.set_threshold(_GC_EVERY)
            await self._tick_until_stopped(node)
        finally:
            if self._looking is not None:
                self._looking.cancel()
            presence.withdraw(self._config.runtime_dir)
            door.close()
            await node.stop()
            await asyncio.to_thread(self._alerting.stop)
            await asyncio.to_thread(self._keeper.stop)
        self._log.info("eni53.stopped")

    async def _tick_until_stopped(self, node: Counting) -> None:
        next_s = time.monotonic() + TICK_S
        while not await self._stopped_before(next_s):
            self._tick(node)
            # A late tick is not made up for: its counts are in the next one.
            next_s = max(next_s + TICK_S, time.monotonic())

    async def _stopped_before(self, next_s: float) -> bool:
        # Rates are over the time since the last look: over a few milliseconds they mean nothing.
        while True:
            left_s = max(next_s, self._soonest_s) - time.monotonic()
            try:
                async with asyncio.timeout(max(0.0, left_s)):
                    await self._stopping.wait()
                return True
            except TimeoutError:
                if max(next_s, self._soonest_s) <= time.monotonic():
                    return False

    def _crossed(self, node: Counting) -> None:
        """A window has reached a level: look at once, but not so often that looking is the load."""
        wait_s = self._soonest_s - time.monotonic()
        if wait_s <= 0:
            self._tick(node)
        elif self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(wait_s, self._tick, node)

    @property
    def _soonest_s(self) -> float:
        return self._ticked_at_s + _SOONEST_S

    def _tick(self, node: Counting) -> None:
        if self._looking is not None:  # whatever it was for is seen now
            self._looking.cancel()
            self._looking = None
        try:
            snapshot = node.tick()
            self._ticked_at_s = time.monotonic()
            health = replace(
                snapshot.health,
                deliveries=self._alerting.results,
                recordings=self._keeper.written,
            )
            self._latest = replace(snapshot, health=health)
            self._keeper.update(self._latest, self._alerting.update(self._latest))
        except OSError as error:
            node.failed("tick", error.strerror or type(error).__name__)

    def _healthy(self) -> bool:
        return time.monotonic() - self._ticked_at_s < _UNHEALTHY_AFTER_S
