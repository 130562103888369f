"""A snapshot as an SVG picture, for the README; the same snapshot gives the same bytes."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from ..model import Snapshot
from .render import render
from .view import ViewState

_WEB_FONTS = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)

_THEME = TerminalTheme(
    background=(13, 17, 23),
    foreground=(201, 209, 217),
    normal=[
        (72, 79, 88),
        (255, 83, 83),
        (63, 185, 80),
        (227, 179, 65),
        (88, 166, 255),
        (188, 140, 255),
        (57, 197, 207),
        (177, 186, 196),
    ],
)


def save_svg(
    snapshot: Snapshot,
    path: Path,
    width: int = 100,
    height: int = 24,
    view: ViewState | None = None,
) -> None:
    """Draw *snapshot* as a terminal of *width* cells and at most *height* lines into *path*."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=width,
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
        legacy_windows=False,
    )
    console.print(render(snapshot, view or ViewState(), width, height), soft_wrap=True)
    svg = console.export_svg(title="eni53 top", theme=_THEME, unique_id="eni53-top")
    # rich names a web font at a server of others; a picture in a repository asks nobody.
    svg = _WEB_FONTS.sub("", svg)
    path.write_text(svg, encoding="utf-8")
