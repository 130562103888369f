"""The widget that holds the screen."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual.widget import Widget


class Canvas(Widget):
    """Where *draw* draws for the size at hand, whenever that changes or a refresh asks for it."""

    def __init__(self, draw: Callable[[int, int], Text]) -> None:
        super().__init__(id="screen")
        self._draw_at = draw

    def render(self) -> Text:
        """The screen for the size at hand."""
        return self._draw_at(max(1, self.size.width), max(1, self.size.height))
