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

OWN_SCRIPT = """
import asyncio, signal, sys
from eni53.top import live

live.HANG_UP_S = 50.0  # a slow machine may take seconds to end well
App, way = live.TopApp, sys.argv[2]
heard = App._hung_up


def draws_on(app):
    # Forty times: textual's queue of what is to be written has thirty places.
    for n in range(1, 41):
        app.set_timer(n / 40, lambda: app.refresh(layout=True))
    app.set_timer(1.2, lambda: heard(app))


if way == "late":
    App._hung_up = draws_on
elif way == "unheard":
    App._hung_up = lambda self: None  # no SIGHUP came: only looking round is left
    look_round = App._look_round

    def looks(app):
        App._hung_up = heard
        look_round(app)

    App._look_round = looks
elif way == "stuck":
    live.HANG_UP_S = 1.0
    App.exit = lambda self, *_: None

from eni53.cli import main

sys.exit(main(["top", "--replay", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("way", "status"),
    [
        pytest.param("at once", 0, id="told at once"),
        pytest.param("late", 0, id="told late: it has gone on drawing"),
        pytest.param("unheard", 0, id="not told"),
        pytest.param("stuck", 1, id="and cannot end by itself"),
    ],
)
def test_a_terminal_that_goes_away(tmp_path, way, status):
    """It ends by itself; and where it cannot, it is ended."""
    recording = tmp_path / "recording.json"
    recording.write_text(dumps(flights.recording()))
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [sys.executable, "-c", OWN_SCRIPT, str(recording), way])  # noqa: S606
    deadline = time.monotonic() + 100
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
