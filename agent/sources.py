"""Everything outside that says who containers are, each allowed to be down, slow or wrong.

The followers call from threads of their own; what they say goes to the event loop as frozen values.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from .config import Config
from .errors import SourceError
from .faults import Faults
from .gather import Gather, Place, Placer
from .inventory.cgroups import CgroupTree, workload_of_path
from .inventory.cni import CniFacts, CniIntrospection
from .inventory.ecs import EcsIntrospection
from .inventory.pod_eni import BranchEni
from .inventory.runtime import ContainerdFollower, DockerFollower, Seen

_ASK_EVERY_S = 2.0  # well within the time that packets wait for a name
_WALK_EVERY_S = 5.0
_CNI_EVERY_S = 30.0
_CNI_ABSENT_S = 300.0
_RUNTIMES = ("docker", "containerd")
_TREE = "cgroups"


class Sources:
    """Docker, containerd with its CRI, the ECS agent; without any of them the cgroup tree.

    Args:
        config: Where they are.
        faults: Where what is down is counted.
        cgroups: The tree.
        placer: Looks up where a process is.
        gather: Puts together what they say.
        cni_facts: Told what the VPC CNI says.
        branch_enis: Told which branch ENIs are written on pods.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        config: Config,
        faults: Faults,
        cgroups: CgroupTree,
        placer: Placer,
        gather: Gather,
        cni_facts: Callable[[CniFacts], None],
        branch_enis: Callable[[tuple[BranchEni, ...]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        runtime = config.runtime
        self._config = config
        self._faults = faults
        self._cgroups = cgroups
        self._placer = placer
        self._gather = gather
        self._clock = clock
        self._ecs = EcsIntrospection(runtime.ecs_introspection)
        self._docker = DockerFollower(runtime.docker_socket, self)
        self._containerd = ContainerdFollower(runtime.containerd_socket, self)
        self._cni = CniIntrospection(runtime.cni_introspection)
        self._cni_facts = cni_facts
        self._branch_enis = branch_enis
        self._asked_s = self._walked_s = clock() - _WALK_EVERY_S
        self._cni_at_s = clock()
        self._walked = False
        self._placed: dict[str, dict[str, Place]] = {}  # of the last list of each source
        self._asking: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to follow."""
        self._loop = loop
        self._docker.start()
        self._containerd.start()

    def wait_listed(self, timeout_s: float) -> None:
        """Wait until each runtime was listed, or does not answer. Blocks."""
        end_s = time.monotonic() + timeout_s
        for follower in (self._docker, self._containerd):
            follower.wait_listed(max(0.0, end_s - time.monotonic()))

    async def stop(self) -> None:
        """End the threads; nothing more is reported."""
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking
        for follower in (self._docker, self._containerd):
            await asyncio.to_thread(follower.stop)

    @property
    def any_runtime(self) -> bool:
        """Whether a container runtime answers."""
        return any(self._faults.sources_up.get(name) for name in _RUNTIMES)

    def tick(self) -> None:
        """Ask those that do not speak by themselves, now and then and only when it would help."""
        now_s = self._clock()
        if self._asking is not None and not self._asking.done():
            return
        if self.any_runtime and self._walked:
            # Nobody walks any more, so nobody would tell that what the tree had has ended.
            self._walked = False
            self._gather.listed(_TREE, ())
        if not self.any_runtime and now_s - self._walked_s >= _WALK_EVERY_S:
            self._walked_s = now_s
            self._walked = True
            self._asking = self._loop.create_task(self._walk())
        elif self._gather.nameless and now_s - self._asked_s >= _ASK_EVERY_S:
            self._asked_s = now_s
            self._asking = self._loop.create_task(self._ask_ecs())
        elif now_s >= self._cni_at_s:
            self._asking = self._loop.create_task(self._ask_cni())

    async def veth_appeared(self, netns_id: int) -> None:
        """A running container may have got another veth, or its first one: no runtime tells."""
        for container_id, before in self._gather.perhaps_behind(netns_id):
            now = await asyncio.to_thread(self._placer.place, container_id, before.pid)
            if now.netns is not None:
                self._gather.placed_again(container_id, before, now)

    # --- what the runtimes say, from their threads --------------------------------------------

    def listed(self, source: str, seen: tuple[Seen, ...]) -> None:
        """These and no others of this source are there now."""
        # Lists come again and again, and a place costs half a millisecond: 0.4 % of a core on a
        # node of 250 pods.
        before = self._placed.get(source, {})
        found = tuple((one, self._place_again(one, before.get(one.id))) for one in seen)
        self._placed[source] = {one.id: place for one, place in found if place and place.whole}
        self._in_loop(lambda: self._gather.listed(source, found))

    def seen(self, source: str, seen: Seen) -> None:
        """One has started, or more is known of it."""
        place = self._place(seen)
        self._in_loop(lambda: self._gather.seen(source, seen, place))

    def ended(self, source: str, container_id: str) -> None:
        """One has ended."""
        self._in_loop(lambda: self._gather.ended(container_id))

    def branches(self, enis: tuple[BranchEni, ...]) -> None:
        """Branch ENIs as they are written on the pods."""
        self._in_loop(lambda: self._branch_enis(enis))

    def answered(self, source: str, up: bool, reason: str) -> None:
        """The source answers, or does not."""
        self._in_loop(lambda: self._faults.source(source, up, reason))

    def _place(self, seen: Seen) -> Place | None:
        return self._placer.place(seen.id, seen.pid) if seen.pid else None

    def _place_again(self, seen: Seen, before: Place | None) -> Place | None:
        return before if before and before.pid == seen.pid else self._place(seen)

    def _in_loop(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are stopping
            self._loop.call_soon_threadsafe(work)

    # --- what is asked ------------------------------------------------------------------------

    async def _ask_ecs(self) -> None:
        """Names for containers that have a place and no name: Docker is down, say."""
        if not self._config.runtime.ecs_introspection:
            return
        try:
            names = await asyncio.to_thread(self._ecs.tasks)
        except SourceError as error:
            # Most nodes have no ECS agent: it is missed only where it has answered before.
            if "ecs" in self._faults.sources_up:
                self._faults.source("ecs", False, str(error))
            return
        self._faults.source("ecs", True)
        for container_id in self._gather.nameless & names.keys():
            self._gather.named(container_id, names[container_id])

    async def _ask_cni(self) -> None:
        """Which address is which pod's, and which ENI is a trunk. Few nodes have a VPC CNI."""
        self._cni_at_s = self._clock() + _CNI_ABSENT_S
        if not self._config.runtime.cni_introspection:
            return
        try:
            facts = await asyncio.to_thread(self._cni.enis)
        except SourceError as error:
            if "cni" in self._faults.sources_up:
                self._faults.source("cni", False, str(error))
                self._cni_at_s = self._clock() + _CNI_EVERY_S
            return
        self._faults.source("cni", True)
        self._cni_at_s = self._clock() + _CNI_EVERY_S
        self._cni_facts(facts)

    async def _walk(self) -> None:
        """No runtime answers: the cgroup tree still tells containers, and where they are."""
        found = await asyncio.to_thread(self._containers_in_tree)
        self._gather.listed(_TREE, found)
        await self._ask_ecs()
        for one, place in found:
            if one.id in self._gather.nameless and place is not None and place.cgroup is not None:
                self._gather.named(one.id, workload_of_path(place.cgroup[0]))

    def _containers_in_tree(self) -> tuple[tuple[Seen, Place | None], ...]:
        seen = (Seen(i, pid=pid) for i, pid in self._cgroups.containers().items())
        return tuple((one, self._place(one)) for one in seen)
