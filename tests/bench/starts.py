"""How soon after its start an agent counts, and how soon it says so."""

from __future__ import annotations

from collections.abc import Sequence

from tests.lab.agent import ENI53, Agent

from .process import Start, start


def watch(agent: Agent) -> Start:
    """Start *agent*, which is not running, watch it, and stop it again. Somebody has to send."""
    argv = [ENI53, "agent", *agent._flags, *agent._args]
    return start(
        lambda: agent.lab.node_popen(argv, env=agent._env, log=agent.log),
        agent.runtime_dir / "agent.json",
        agent.log,
    )


def first_count(starts: Sequence[Start]) -> float:
    """Seconds, the best: what others on the machine add is not ours."""
    return min(each.counted_s for each in starts)


def cells(starts: Sequence[Start]) -> list[str]:
    """As cells of a row; `HEADER` says what they are."""
    columns = zip(*((s.counted_s, s.announced_s, s.used_s) for s in starts), strict=True)
    return [cell for column in columns for cell in _best(column)]


HEADER = (
    "first count, best", "all", "announced, best", "all", "processor time used, best", "all"
)  # fmt: skip


def _best(seconds: Sequence[float]) -> tuple[str, str]:
    return f"{min(seconds):.2f}", " ".join(f"{each:.2f}" for each in seconds)
