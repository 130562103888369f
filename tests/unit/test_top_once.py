"""The top printed once: to pipes, to terminals, without colour, in ASCII, as JSON, as a picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from eni53.snapshot_json import loads
from eni53.top.once import print_once, write_json
from eni53.top.picture import save_svg
from eni53.top.view import ViewState

from tests.fixtures import snapshots
from tests.fixtures.hostile import hostile


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same environment on every machine."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_a_pipe_gets_every_row_and_no_escape_sequence() -> None:
    """``eni53 top --once | grep`` must see all workloads, as text."""
    stream = io.StringIO()
    print_once(snapshots.three_enis(), ViewState(), stream, width=120)
    text = stream.getvalue()

    assert "\x1b" not in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "more" not in text
    assert "10.0.3.17" in text
    assert text.count("\n▾ ") == 3


def test_a_terminal_gets_colours_unless_told_not_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR is obeyed, and what remains says the same."""
    coloured, plain = Terminal(), Terminal()
    monkeypatch.setenv("LINES", "30")
    print_once(snapshots.near_limit(), ViewState(), coloured, width=80)
    monkeypatch.setenv("NO_COLOR", "1")
    print_once(snapshots.near_limit(), ViewState(), plain, width=80)

    assert "\x1b[1;38;5;208mcritical" in coloured.getvalue()
    assert "38;5;208" not in plain.getvalue()
    assert "\x1b[32m" not in plain.getvalue()
    assert "critical" in plain.getvalue()


def test_a_stream_of_another_encoding_gets_ascii() -> None:
    """A C locale or a serial console must not end the command with UnicodeEncodeError."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1")
    print_once(hostile(), ViewState(), stream, width=80)
    stream.flush()

    assert raw.getvalue().decode("latin-1").isascii()
    assert b"####" in raw.getvalue()


def test_json_is_what_the_agent_would_say() -> None:
    """``top --json`` and ``/api/v1/snapshot`` are one format."""
    stream = io.StringIO()
    write_json(snapshots.near_limit(), stream)

    assert json.loads(stream.getvalue())["version"] == 1
    assert loads(stream.getvalue()).node == "ip-10-0-1-23.eu-west-1.compute.internal"


def test_the_picture_is_the_same_every_time(tmp_path: Path) -> None:
    """A README picture that differs on every run would be a change on every commit."""
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    save_svg(snapshots.near_limit(), first)
    save_svg(snapshots.near_limit(), second)

    assert first.read_bytes() == second.read_bytes()
    assert "checkout-api:42" in first.read_text(encoding="utf-8")
