"""Tables in Markdown, and whether an aim was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Aim:
    """One figure beside what was wanted of it.

    Attributes:
        limit: The most it may be, in the unit of *figure*.
    """

    what: str
    figure: float
    limit: float
    unit: str

    @property
    def row(self) -> tuple[str, ...]:
        """As a row of the table of aims."""
        verdict = "reached" if self.figure <= self.limit else "**not reached**"
        shown = f"{self.figure:.2f}" if self.figure < 10 else f"{self.figure:.0f}"
        return self.what, f"{shown} {self.unit}", f"<= {self.limit:g} {self.unit}", verdict


@dataclass(frozen=True, slots=True)
class Section:
    """One heading of the page: what was measured and how it is to be read."""

    title: str
    text: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    aims: Sequence[Aim] = field(default_factory=tuple)

    @property
    def markdown(self) -> str:
        """The section with its heading."""
        parts = [f"## {self.title}", self.text, table(self.header, self.rows)]
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
