"""Log lines: one per change, whole, safe, and without rich."""

import io
import json
import subprocess
import sys

import pytest
from eni53.log import OnChange, get_logger, setup


class Terminal(io.StringIO):
    """A stream a person reads."""

    def isatty(self) -> bool:
        """Yes."""
        return True


class Broken(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        """Fail."""
        raise BrokenPipeError


def test_machines_get_one_json_object_a_line():
    """Every line is an object with time, level, event and fields, hostile or not."""
    out = io.StringIO()
    setup(stream=out)
    get_logger(stage="docker").warning("eni53.source_failed", name="a\nb\x1b[2J", odd=object)
    lines = out.getvalue().splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert line["timestamp"].endswith("Z")
    expected = {"level": "warning", "event": "eni53.source_failed", "stage": "docker"}
    assert {key: line[key] for key in expected} == expected
    assert line["name"] == "a\nb\x1b[2J"
    assert lines[0].isprintable()


def test_a_person_gets_plain_lines():
    """No colour, no escape sequence of a container's making, no megabyte of name."""
    out = Terminal()
    setup(stream=out)
    get_logger().info("eni53.workload_found", name="a\x1b[2Jb", long="x" * 10_000)
    line = out.getvalue()
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "eni53.workload_found" in line
    assert "\\x1b[2Jb" in line
    assert len(line) < 1300


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_traceback_is_written_plainly(stream):
    """An error logged with its traceback can be read in both forms."""
    out = stream()
    setup(stream=out)
    try:
        raise ValueError("why")
    except ValueError:
        get_logger().exception("eni53.tick_failed")
    assert "ValueError: why" in out.getvalue()


def test_lines_below_the_level_are_left_out():
    """Debug lines cost nothing unless asked for."""
    out = io.StringIO()
    setup("warning", out)
    get_logger().info("eni53.started")
    get_logger().error("eni53.failed")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["eni53.failed"]


def test_a_reader_that_went_away_ends_nothing():
    """A lost log line must not end the counting."""
    setup(stream=Broken())
    get_logger().info("eni53.started")
    closed = io.StringIO()
    setup(stream=closed)
    closed.close()
    get_logger().info("eni53.started")


def test_a_change_is_logged_once():
    """An outage of a thousand ticks is two lines: when it began and when it ended."""
    out = io.StringIO()
    setup(stream=out)
    log = OnChange(get_logger())
    log.assume("docker", "up")
    states = ["up", "down", "down", "down", "up", "up"]
    assert [
        log.changed("docker", state, f"eni53.source_{state}", level="warning", tick=tick)
        for tick, state in enumerate(states)
    ] == [False, True, False, False, True, False]
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["event"], line["tick"], line["level"]) for line in lines] == [
        ("eni53.source_down", 1, "warning"),
        ("eni53.source_up", 4, "warning"),
    ]


def test_keys_are_apart_forgotten_and_bounded():
    """Each key has its own state; a key that is gone starts anew; old keys make room."""
    setup(stream=io.StringIO())
    log = OnChange(get_logger(), max_keys=2)
    assert [log.changed(key, 1, "eni53.seen") for key in ("a", "b", "a")] == [True, True, False]
    log.forget("a")
    assert log.changed("a", 1, "eni53.seen") is True
    assert log.changed("c", 1, "eni53.seen") is True  # b makes room
    assert [log.changed(key, 1, "eni53.seen") for key in ("a", "c", "b")] == [False, False, True]


def test_rich_is_not_imported(tmp_path):
    """With rich installed, the agent still does not load it; whoever wants it still can."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich/__init__.py").write_text("")
    code = (
        f"import sys; sys.path[:] = {[str(tmp_path), *sys.path]!r}\n"
        "from eni53 import log\n"
        "print('rich' in sys.modules)\n"
        "import rich\n"
        "print(rich.__file__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", str(tmp_path / "rich/__init__.py")]
