"""A terminal that goes away: top goes too, whatever textual waits for."""

from __future__ import annotations

import os
import pty
import select
import sys
import time

import pytest
from eni53.flight.recording_json import dumps

from tests.fixtures import flights

STUCK = """
import sys
from eni53.top import live
live.HANG_UP_S = 1.0
if sys.argv[2] == "stuck":  # as when its reader of keys is never joined
    live.TopApp.exit = lambda self, *_: None
from eni53.cli import main
sys.exit(main(["top", "--replay", sys.argv[1]]))
"""


@pytest.mark.parametrize(("way", "status"), [("well", 0), ("stuck", 1)])
def test_a_terminal_that_goes_away(tmp_path, way, status):
    """It ends by itself; and where it cannot, it is ended."""
    recording = tmp_path / "recording.json"
    recording.write_text(dumps(flights.recording()))
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-c", STUCK, str(recording), way])  # noqa: S606
    deadline = time.monotonic() + 60
    seen = b""
    while b"replay" not in seen and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 65536)
    os.close(terminal)
    while time.monotonic() < deadline:
        ended, code = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert os.waitstatus_to_exitcode(code) == status
            return
        time.sleep(0.1)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    pytest.fail("it is still there")
