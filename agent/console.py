"""Where text goes that a person reads."""

from __future__ import annotations

from typing import NoReturn, TextIO

from rich.console import Console


class Printer(Console):
    """A console that prints words as they are: no markup, nothing highlighted.

    Args:
        stream: Where to.
        width: Cells of a line; None for those of the terminal, or of ``COLUMNS``.

    Raises:
        BrokenPipeError: From its methods, when whoever read has gone away.
    """

    def __init__(self, stream: TextIO, width: int | None = None) -> None:
        super().__init__(file=stream, width=width, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command, as any other output does."""
        # By itself rich ends it with a 1, which is a finding where `doctor --fail` was asked.
        raise  # noqa: PLE0704 - called within the handler of that very error
