"""Where `top` gets its snapshots: from a running agent, or from a node of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from ..config import Config
from ..errors import Eni53Error, SourceError
from ..model import Snapshot
from ..presence import Agent
from ..sidecar.choice import make_node
from ..snapshot_reader import loads

_TIMEOUT_S = 5.0
_FIRST_SNAPSHOT_S = 5.0
_MAX_BYTES = 64 << 20
TICK_S = 1.0


class AgentSource:
    """Asks a running agent.

    Args:
        agent: Where it is.
        wanted: Labels or interface names of the ENIs to keep; empty for all.
        names: How many names of each ENI to ask for; None: as many as it shows by itself.
    """

    def __init__(self, agent: Agent, wanted: Collection[str], names: int | None = None) -> None:
        self._path = "/api/v1/snapshot" + ("" if names is None else f"?names={names}")
        self._wanted = wanted
        self.url = agent.url
        self.name = f"agent pid {agent.pid}"

    def fetch(self) -> Snapshot:
        """Its newest snapshot.

        Raises:
            SourceError: It does not answer, or not like an agent.
        """
        return only(loads(self._get(self._path)), self._wanted)

    def first(self) -> Snapshot:
        """As `fetch`, but an agent that has just started gets a moment."""
        deadline_s = time.monotonic() + _FIRST_SNAPSHOT_S
        while True:
            try:
                return self.fetch()
            except SourceError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)

    def _get(self, path: str) -> bytes:
        url = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            url.hostname or "127.0.0.1", url.port or 80, timeout=_TIMEOUT_S
        )
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read(_MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(
                f"the agent at {self.url} does not answer ({error}): see its log, or remove"
                " its agent.json if it is gone"
            ) from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise SourceError(f"the agent at {self.url} answers with {response.status}")
        return body


def only(snapshot: Snapshot, wanted: Collection[str]) -> Snapshot:
    """*snapshot* with the ENIs that were asked for, and the findings of these and of the node.

    Raises:
        SourceError: There is none of that name.
    """
    if not wanted:
        return snapshot
    kept = tuple(u for u in snapshot.enis if {u.eni.label, u.eni.interface} & set(wanted))
    if not kept:
        there = ", ".join(f"{u.eni.interface} ({u.eni.label})" for u in snapshot.enis) or "none"
        raise SourceError(f"no ENI {', '.join(wanted)} at this agent; there: {there}")
    labels = {None, *(usage.eni.label for usage in kept)}
    findings = tuple(finding for finding in snapshot.findings if finding.eni in labels)
    return replace(snapshot, enis=kept, findings=findings)


async def measure(
    config: Config, seconds: float, attached: Callable[[], None] = lambda: None
) -> Snapshot:
    """Attach, count for *seconds*, detach: a snapshot whose rates cover the whole time.

    Args:
        config: What the user wants.
        seconds: How long to count.
        attached: Called when counting has begun.

    Raises:
        NeedError: This node lacks something.
    """
    node = make_node(config, keep_memory=False)
    await node.start()
    try:
        attached()
        # In between, the ring of slots must be read before it comes round (6.4 s).
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            await asyncio.sleep(min(TICK_S, left_s))
            if left_s > TICK_S:
                node.tick(since_start=True)
        return node.tick(since_start=True, last=True)
    finally:
        await node.stop()


class OwnNode:
    """A node in a thread, for the live view when no agent runs."""

    name = "no agent: own count"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._latest: Snapshot | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="node")

    @contextlib.contextmanager
    def running(self) -> Iterator[OwnNode]:
        """Attached while inside.

        Raises:
            NeedError: This node lacks something.
        """
        self._thread.start()
        try:
            self._ready.wait()
            if self._error is not None:
                raise self._error
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def fetch(self) -> Snapshot:
        """The newest snapshot.

        Raises:
            SourceError: Counting has ended.
        """
        if self._latest is None or self._error is not None:
            raise SourceError(f"counting has ended: {self._error}")
        return self._latest

    def _run(self) -> None:
        try:
            asyncio.run(self._count())
        except (Eni53Error, OSError) as error:
            self._error = error
        finally:
            self._ready.set()

    async def _count(self) -> None:
        node = make_node(self._config, keep_memory=False)
        await node.start()
        try:
            await asyncio.sleep(0.1)
            while not self._stop.is_set():
                self._latest = node.tick()
                self._ready.set()
                await asyncio.to_thread(self._stop.wait, TICK_S)
        finally:
            await node.stop()
