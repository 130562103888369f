"""agent.json: how the other commands find the agent."""

import json
import os
import subprocess
import sys

import pytest
from eni53 import __version__, presence
from eni53.errors import NeedError
from eni53.presence import Agent


def test_what_was_announced_is_found(tmp_path):
    """pid, URL and version, and no other file is left beside it."""
    presence.announce(tmp_path, "http://127.0.0.1:9153")
    assert presence.find(tmp_path) == Agent(os.getpid(), "http://127.0.0.1:9153", __version__)
    assert [path.name for path in tmp_path.iterdir()] == ["agent.json"]


def test_withdrawn_is_gone(tmp_path):
    """After the agent's end nothing says that it is there; twice does no harm."""
    presence.announce(tmp_path, "http://x")
    presence.withdraw(tmp_path)
    presence.withdraw(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_agents_word_is_left_alone(tmp_path):
    """An agent that ends must not take away what its successor has written."""
    said = json.dumps({"pid": os.getppid(), "url": "http://x", "version": "1"})
    (tmp_path / "agent.json").write_text(said)
    presence.withdraw(tmp_path)
    assert (tmp_path / "agent.json").read_text() == said


def test_a_dead_agent_is_not_found(tmp_path):
    """A file left by kill -9 is not believed."""
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, check=True, text=True)  # fmt: skip
    said = {"pid": int(child.stdout), "url": "http://x", "version": "1"}
    (tmp_path / "agent.json").write_text(json.dumps(said))
    assert presence.find(tmp_path) is None


@pytest.mark.parametrize(
    "said",
    ["", "{", "[]", "null", '"x"', "{}", '{"pid":"me","url":"u","version":"1"}', "\x00",
     *(f'{{"pid":{pid},"url":"u","version":"1"}}'
       for pid in ("0", "-1", "null", "1e400", "1" * 30))],
)  # fmt: skip
def test_a_broken_file_is_nobody(tmp_path, said):
    """Half a file, another shape, a pid that cannot be: no agent, and no traceback."""
    (tmp_path / "agent.json").write_text(said)
    assert presence.find(tmp_path) is None


def test_no_file_and_bytes_are_nobody(tmp_path):
    """Absent or not text: no agent."""
    assert presence.find(tmp_path / "absent") is None
    (tmp_path / "agent.json").write_bytes(b"\xff\xfe")
    assert presence.find(tmp_path) is None


def test_an_unwritable_directory_ends_in_one_line(tmp_path):
    """The message says what to do instead."""
    with pytest.raises(NeedError, match="--runtime-dir") as caught:
        presence.announce(tmp_path / "absent", "http://x")
    assert len(str(caught.value).splitlines()) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(NeedError, match="--runtime-dir"):
        presence.make_directory(tmp_path / "file" / "below")


def test_the_directory_is_made_with_its_parents(tmp_path):
    """Readable by all, writable by its owner; there already is fine."""
    wanted = tmp_path / "a" / "b"
    presence.make_directory(wanted)
    presence.make_directory(wanted)
    assert wanted.is_dir()
    assert wanted.stat().st_mode & 0o022 == 0
