"""From one sample to one snapshot: ledger, windows and states of every ENI. No I/O."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter

from .alerts import EniState, Levels
from .assemble import EniView, eni_usage
from .attribution import CACHE, Ladder
from .branches import Branches
from .caches import CacheWatch
from .config import Config
from .fallbacks import Fallbacks
from .inventory.cgroups import CgroupTree
from .inventory.workloads import Workloads
from .kernel.layout import SLOT_NS
from .ledger import GRACE_S, EniId, Ledger
from .model import Branch, Eni, EniUsage, ServerAsked, Workload
from .name_counts import NameCounts
from .questions import Questions
from .rates import WindowTracker
from .sample import FallbackKey, Sample, Slot
from .sent import SentLedger
from .trend import Trend

RETIRED_S = 60.0
"""How long an ENI that went with its task or pod is shown: two scrapes must see its last value."""


@dataclass(slots=True)
class _Followed:
    """One ENI over time."""

    eni: Eni
    limit_pps: int
    tracker: WindowTracker
    state: EniState
    trend: Trend
    gone_at_s: float | None = None


class Pipeline:
    """Everything that is remembered from tick to tick.

    Args:
        config: Limits, alerts, number of workloads.
        workloads: Who is behind a veth or a cgroup.
        cgroups: The tree.
        started_ns: When counting began, on the monotonic clock.
        hash_seed: Of the kernel's hashes of names.
    """

    def __init__(
        self,
        config: Config,
        workloads: Workloads,
        cgroups: CgroupTree,
        started_ns: int,
        hash_seed: int = 0,
    ) -> None:
        self._config = config
        self._workloads = workloads
        self._cgroups = cgroups
        self._started_ns = self._last_ns = started_ns
        self._enis: dict[EniId, _Followed] = {}
        alerts = config.alerts
        self.levels = Levels(
            alerts.warning, alerts.critical, alerts.clear_below, alerts.clear_after
        )
        self._crossed: dict[EniId, int] = {}
        self._caches = CacheWatch()
        self._sent = SentLedger(config.metrics.max_workloads)
        self.ledger = Ledger(config.metrics.max_workloads, self._alive)
        self._questions = Questions(config.names.max)
        self._name_counts = NameCounts(config.names.export, hash_seed)
        self._fallbacks = Fallbacks()
        self.idle_servers: tuple[FallbackKey, ...] = ()  # which the kernel may forget
        self._branches = Branches(RETIRED_S)
        self._id_of: Callable[[str], str] = lambda mac: f"mac:{mac}"
        self._dropped: set[int] = set()
        self.present: Collection[int] = ()  # device keys of the ENIs that are there now
        self.allowances: Mapping[int, Mapping[str, int]] = {}

    def add_eni(self, eni: Eni) -> None:
        """Follow an ENI; one that is followed already keeps its label for good."""
        place = (eni.ifindex, eni.vlan)
        if place in self._enis:
            return
        # An ENI that moved (into a task's namespace, or back) is the same ENI in another place.
        # Two of one label would make a scrape that Prometheus refuses whole. But a task may give
        # a device the name or the MAC of an ENI that is here: that takes nothing from it.
        for old, other in [(p, f) for p, f in self._enis.items() if f.eni.label == eni.label]:
            moved = other.gone_at_s is not None or old[0] not in self.present
            if moved and (other.eni.netns, eni.netns) != ("host", "host"):
                self._dropped.add(old[0])
                self._forget(old)
            else:  # two that claim one name; whoever was first has it
                eni = replace(eni, label=f"{eni.label}#{eni.ifindex}.{eni.vlan}")
        limit_pps = self._limit_of(eni.label)
        alerts = self._config.alerts
        thresholds = {t: t * limit_pps for t in (alerts.warning, alerts.critical, 1.0)}
        self._enis[place] = _Followed(
            eni,
            limit_pps,
            WindowTracker(self._last_ns // SLOT_NS, thresholds, self._config.limit.basis),
            EniState(self.levels),
            Trend(),
        )

    @property
    def limits(self) -> dict[EniId, int]:
        """Packets a second by ENI: of all that are followed, and of branches yet to be met."""
        met = {place: followed.limit_pps for place, followed in self._enis.items()}
        return {p: self._limit_of(self._id_of(b.mac)) for p, b in self._branches.here.items()} | met

    def _limit_of(self, label: str) -> int:
        return self._config.limit.per_eni.get(label, self._config.limit.pps)

    def is_taken(self, label: str, dev: int) -> bool:
        """Whether an ENI of another device that is there goes by *label*."""
        return any(
            followed.eni.label == label and followed.gone_at_s is None
            and place[0] != dev and place[0] in self.present
            for place, followed in self._enis.items()
        )  # fmt: skip

    def remove_eni(self, ifindex: int) -> None:
        """An interface is gone, with the branch ENIs on it."""
        for place in [p for p in self._enis if p[0] == ifindex]:
            self._forget(place)
        self._branches.forget_trunk(ifindex)

    def _forget(self, place: EniId) -> None:
        self._enis.pop(place, None)  # a branch that never sent anything is not in it
        self._crossed.pop(place, None)
        self.ledger.forget_eni(place)
        self._questions.forget_eni(place)
        self._name_counts.forget_eni(place)
        self._workloads.eni_gone(place)

    def retire_eni(self, dev: int, now_s: float) -> None:
        """A task's ENI is gone with its task: its last packets have yet to be read and scraped."""
        for place, followed in self._enis.items():
            if place[0] == dev and followed.gone_at_s is None:
                followed.gone_at_s = now_s

    def crossed(self, place: EniId, packets: int) -> None:
        """The window in progress has *packets* already; the next update takes it in."""
        self._crossed[place] = max(packets, self._crossed.get(place, 0))

    def take_retired(self, now_s: float) -> tuple[int, ...]:
        """Forget what has been gone for `RETIRED_S`; returns the device keys."""
        dropped, self._dropped = self._dropped, set()
        over = [
            place
            for place, followed in self._enis.items()
            if followed.gone_at_s is not None and now_s - followed.gone_at_s >= RETIRED_S
        ]
        for place in over:
            self._forget(place)
        # A device that is followed in another way stays: a trunk, say, of which one VLAN went.
        return tuple(({dev for dev, _ in over} | dropped) - self.devices)

    @property
    def devices(self) -> frozenset[int]:
        """Device keys of the ENIs that are followed, those lately gone included."""
        return frozenset(dev for dev, _ in self._enis)

    def set_branches(
        self, branches: Iterable[Branch], id_of: Callable[[str], str]
    ) -> tuple[EniId, ...]:
        """Branch ENIs that are there, by their VLAN devices; returns places that became another's.

        Args:
            branches: All of them.
            id_of: Label of an ENI by its MAC.
        """
        self._id_of = id_of
        others = self._branches.declare(branches)
        for place in others:
            self._forget(place)
            self.ledger.begin_anew(place)
        for place, branch in self._branches.here.items():
            if branch.netns is not None:
                self._workloads.eni_appeared(place, branch.netns)
        return others

    def take_ended_branches(self, now_s: float) -> tuple[EniId, ...]:
        """Forget the branch ENIs that are over; returns where they were.

        What they have counted goes with their series, as with a task's ENI: nothing that stays
        falls, for no sum of ours goes over several ENIs.
        """
        ended = self._branches.take_over(now_s)
        for place in ended:
            self._forget(place)
        return ended

    def update(
        self, sample: Sample, veths: Collection[int], *, since_start: bool, last: bool
    ) -> tuple[float, tuple[EniUsage, ...]]:
        """Take one sample in; returns the seconds that rates cover, and every ENI.

        Args:
            sample: The counters.
            veths: Indexes of the host-side veths there are.
            since_start: Rates over the whole time since attach, not since the last sample.
            last: There will be no other, so nothing may wait for its name.
        """
        now_s = sample.taken_at_ns / 1e9
        tags = {origin.tag: origin for origin in sample.origins.values() if origin.tag}
        ladder = Ladder(tags, veths, self._workloads, self._cgroups, sample.remotes)
        ladder = replace(ladder, caches=self._caches.update(sample, ladder, now_s))
        self._meet_branches(sample)
        grace_s = 0.0 if last else GRACE_S
        self.ledger.update(sample, ladder, now_s, grace_s)
        self._questions.update(sample, ladder, now_s, grace_s)
        self._name_counts.update(sample)
        self._sent.update(sample.origins, self._workloads, now_s)
        self.idle_servers = self._fallbacks.update(sample, ladder, now_s)
        begin_ns = self._started_ns if since_start else self._last_ns
        window_s = max((sample.taken_at_ns - begin_ns) / 1e9, 1e-3)
        self._last_ns = sample.taken_at_ns
        enis = tuple(
            eni_usage(self._view(place, followed, sample), self.ledger, self._questions, window_s,
                      since_start=since_start)
            for place, followed in sorted(self._enis.items(), key=_host_first)
        )  # fmt: skip
        branches = {(e.eni.ifindex, e.eni.vlan): e.packets for e in enis if e.eni.vlan}
        self._branches.update(branches, now_s)
        # Of an ENI that is gone: whoever gets its number next has not crossed anything.
        self._crossed.clear()
        return window_s, enis

    @property
    def sent(self) -> dict[tuple[Workload, str], int]:
        """Packets seen at workloads' veths, by (workload, class)."""
        return dict(self._sent.sent)

    @property
    def servers(self) -> tuple[ServerAsked, ...]:
        """Servers that workloads have fallen back from, of late."""
        return self._fallbacks.servers

    def _meet_branches(self, sample: Sample) -> None:
        """Branch ENIs become known by their first packet on the trunk."""
        for (dev, vlan), counters in sample.enis.items():
            trunk = self._enis.get((dev, 0))
            if not vlan or trunk is None or (dev, vlan) in self._enis or not counters.slots:
                continue
            branch = self._branches.at((dev, vlan))  # has a name also if it ended before it was met
            label = self._id_of(branch.mac) if branch else f"{trunk.eni.label}/vlan{vlan}"
            mac = branch.mac if branch else ""
            self.add_eni(replace(trunk.eni, label=label, mac=mac, vlan=vlan))

    def _view(self, place: EniId, followed: _Followed, sample: Sample) -> EniView:
        basis = self._config.limit.basis
        counters = sample.enis.get(place)
        now_slot = sample.taken_at_ns // SLOT_NS
        slots = _before(now_slot, counters.slots) if counters else ()
        windows = followed.tracker.update(slots, now_slot)
        # A window in progress that has reached a level: it is not in the ring's whole windows yet.
        crossed = float(self._crossed.get(place, 0))
        highest = max(windows.peak_pps[basis], crossed)
        windows = replace(windows, peak_pps={**windows.peak_pps, basis: highest})
        utilization = max(windows.fresh_peak_pps[basis], crossed) / followed.limit_pps
        followed.trend.update(windows.fresh_peak_pps[basis], sample.taken_at_ns / 1e9)
        return EniView(
            eni=followed.eni,
            limit_pps=followed.limit_pps,
            basis=basis,
            windows=windows,
            state=followed.state.update(utilization, sample.taken_at_ns / 1e9),
            over_threshold_s={
                threshold: slots * SLOT_NS / 1e9
                for threshold, slots in followed.tracker.over_threshold_slots.items()
            },
            counters=counters,
            minutes_to_limit=followed.trend.minutes_to(followed.limit_pps),
            allowances=None if followed.eni.vlan else self.allowances.get(followed.eni.ifindex),
            slots=slots,
            names_counted=self._config.names.enabled,
            name_queries=self._name_counts.of_eni(place),
        )

    def _alive(self, workload: Workload) -> bool:
        if workload.kind == CACHE:
            return any(map(self._alive, self._caches.behind(workload)))
        # Services of the host are few, and start again under the same name.
        return workload.kind == "host" or self._workloads.is_running(workload)


def _before(number: int, slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Those of *slots*, which are in order, that have ended before *number* begins."""
    return slots[: bisect_left(slots, number, key=attrgetter("number"))]


def _host_first(item: tuple[EniId, _Followed]) -> tuple[bool, EniId]:
    place, followed = item
    return followed.eni.netns != "host", place
