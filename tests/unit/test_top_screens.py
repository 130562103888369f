"""Golden screens of the top, and that they fit.

``UPDATE_GOLDEN=1 pytest tests/unit/test_top_screens.py`` writes tests/fixtures/screens anew; look
at the difference before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from eni53.model import NameRate, Snapshot
from eni53.sample import Answer
from eni53.top.render import render
from eni53.top.view import ViewState
from rich.cells import cell_len

from tests.fixtures import snapshots
from tests.fixtures.hostile import hostile


def quiet() -> Snapshot:
    """Two workloads and ten names, of which the third was never answered."""
    snapshot = snapshots.near_limit()
    eni = snapshot.enis[0]
    names = tuple(
        NameRate(f"host-{at}.example.com", "A", 10.0 - at, answer=Answer(60, "NOERROR"))
        for at in range(10)
    )
    names = (*names[:2], replace(names[2], answer=None), *names[3:])
    eni = replace(eni, workloads=eni.workloads[:2], names=names)
    return replace(snapshot, enis=(eni,), findings=())


SCREENS = Path(__file__).parent.parent / "fixtures" / "screens"
SIZES = ((60, 10), (80, 24), (120, 40))
SNAPSHOTS: dict[str, Callable[[], Snapshot]] = {
    "near_limit": snapshots.near_limit,
    "three_enis": snapshots.three_enis,
    "empty": snapshots.empty,
    "hostile": hostile,
    "quiet": quiet,
}
PLAIN = ViewState(source="agent pid 4711")
HOT = "eni-0a1b2c3d4e5f60718"
VIEWS = {
    "": PLAIN,
    "drilled": replace(PLAIN, selected=HOT, drilled=True),
    "ascii": replace(PLAIN, ascii_only=True),
    "filtered": replace(PLAIN, filter="ECS_", sort="name"),
    "packets": replace(PLAIN, sort="packets", reverse=True, paused=True),
}
GOLDEN = [(name, "", size) for name in SNAPSHOTS for size in SIZES] + [
    ("near_limit", view, size) for view in VIEWS if view for size in SIZES
]
GOLDEN += [("quiet", "drilled", size) for size in SIZES]


@pytest.mark.parametrize(("name", "view", "size"), GOLDEN)
def test_screens_look_as_agreed(name: str, view: str, size: tuple[int, int]) -> None:
    """A person has looked at these screens; they change only when someone looks again."""
    width, height = size
    drawn = render(SNAPSHOTS[name](), VIEWS[view], width, height).plain + "\n"
    golden = SCREENS / f"{name}{'-' if view else ''}{view}-{width}x{height}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(drawn, encoding="utf-8")

    assert golden.read_text(encoding="utf-8") == drawn


@pytest.mark.parametrize("name", SNAPSHOTS)
@pytest.mark.parametrize("view", VIEWS.values(), ids=[name or "plain" for name in VIEWS])
def test_no_line_is_wider_and_no_screen_higher_than_told(name: str, view: ViewState) -> None:
    """A line too wide wraps and pushes the header off the screen, at any size and order."""
    snapshot = SNAPSHOTS[name]()
    for width in (1, 7, 20, 40, 59, 60, 71, 72, 79, 80, 107, 108, 120, 200):
        for height in (1, 2, 5, 9, 10, 14, 16, 24, 40, None):
            lines = render(snapshot, view, width, height).plain.split("\n")

            assert max(cell_len(line) for line in lines) <= width
            assert height is None or len(lines) <= height
