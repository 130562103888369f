"""Two looks at a running agent, some seconds apart: what `eni53 doctor` compares."""

from __future__ import annotations

import time
from collections.abc import Callable

from .errors import NeedError, SourceError
from .insight.look import seconds_between
from .model import Count, EniUsage, Snapshot
from .names_seen import NamesSeen
from .top.sources import TICK_S, AgentSource

_PATIENCE_S = 10.0
"""So long an agent may need to start again, and so long without a tick /healthz calls it well."""
_AGAIN_S = 0.2


def watch(
    source: AgentSource, seconds: float, again: Callable[[], None] = lambda: None
) -> tuple[Snapshot, Snapshot]:
    """The agent's snapshots of now, and of *seconds* later.

    Where it began anew in between, the look does as well, once: of counts from before nothing can
    be taken away.

    Args:
        source: The agent.
        seconds: Between the two; there are up to ten more, and five until it answers.
        again: Called when the look begins anew.

    Raises:
        NeedError: It does not answer, has nothing new to say, or keeps beginning anew.
    """
    try:
        first = source.first()
    except SourceError as error:
        raise NeedError(str(error)) from error
    names = NamesSeen(first)
    last, anew = _follow(source, first, seconds, names)
    if not anew:
        return names.of_look(last)
    again()
    first, names = last, NamesSeen(last)
    last, anew = _follow(source, first, seconds, names)
    if anew:
        raise NeedError(
            f"{source.name} has begun anew twice while it was looked at, so its counts cannot be"
            " compared: its log says why it ends"
        )
    return names.of_look(last)


def _follow(
    source: AgentSource, first: Snapshot, seconds: float, names: NamesSeen
) -> tuple[Snapshot, bool]:
    """The first snapshot of another moment than *first*, *seconds* from now or soon after.

    Or sooner that of an agent that has begun anew, and then True. The *names* of those in between
    are gathered.
    """
    before = first
    end_s = time.monotonic() + seconds
    while True:
        time.sleep(max(_AGAIN_S, min(TICK_S, end_s - time.monotonic())))
        # Its tick is a second long: asked in the same one, it has nothing new to say.
        why = (
            f"{source.name} tells the same as {seconds + _PATIENCE_S:g} s ago, for its ticks have"
            f" stopped: see its log and {source.url}/healthz, and restart it"
        )
        try:
            now = source.fetch()
        except SourceError as error:
            why = str(error)  # it may be about to come back
        else:
            # A new agent may know no ENI at first; a young one has counted more a second ago.
            anew = _began_anew(first, now) or _began_anew(before, now)
            if anew or (time.monotonic() >= end_s and seconds_between(first, now) > 0):
                return now, anew
            names.add(now)
            before = now
        if time.monotonic() > end_s + _PATIENCE_S:
            raise NeedError(why)


def _began_anew(first: Snapshot, last: Snapshot) -> bool:
    """Whether *last* is of another agent, or has an ENI that went and came back."""
    before = {usage.eni.label: usage for usage in first.enis}
    return seconds_between(first, last) < 0 or any(
        _fell(earlier, usage)
        for usage in last.enis
        if (earlier := before.get(usage.eni.label)) is not None
    )


def _fell(then: EniUsage, now: EniUsage) -> bool:
    """Whether anything fell that only rises as long as an agent runs."""
    zero = Count(0, 0.0)
    return (
        now.packets < then.packets
        or (now.unanswered or 0) < (then.unanswered or 0)
        or any(now.classes.get(name, zero).packets < c.packets for name, c in then.classes.items())
    )
