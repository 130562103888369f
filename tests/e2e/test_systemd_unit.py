"""deploy/systemd/eni53.service under a real systemd: what it forbids is nothing the agent needs.

systemd is the first process of a pid namespace here, with a cgroup2 tree and a /run of its own. The
unit is the one in the repository; a drop-in says where the command and the lab's sockets are, and
gives the service the machine's /proc, which on an instance is systemd's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.agent import ENI53, rows
from tests.lab.lab import Lab

UNIT = Path(__file__).parents[2] / "deploy/systemd/eni53.service"
SYSTEMD = "/lib/systemd/systemd"
RESOLVER = "10.53.0.2"
RECORDINGS = "/run/eni53/recordings"
_GET = (
    "import sys, urllib.request as u;"
    " sys.stdout.write(u.urlopen(sys.argv[1], timeout=5).read().decode())"
)
# /proc/sys is read-only: systemd would raise limits of the whole machine.
_BOOT = """set -e
mount --rbind /proc /mnt
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --rbind "$1" /srv
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
umount -R -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /etc/systemd/system
cp -r /srv/unit/. /etc/systemd/system/
exec env container=lab "$2" --system --unit=nothing.target --log-target=console
"""


class Systemd:
    """A systemd on the lab's node that starts nothing by itself."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.log = lab.directory / "systemd.log"
        units = lab.directory / "unit"
        (units / "eni53.service.d").mkdir(parents=True)
        (units / "nothing.target").write_text("[Unit]\nDescription=nothing\n")
        (units / "eni53.service").write_text(UNIT.read_text())
        sockets = [f"--{name}-socket /srv/{name}/{name}.sock" for name in ("docker", "containerd")]
        (units / "eni53.service.d/lab.conf").write_text(
            f"[Service]\nExecStart=\nExecStart={ENI53} agent {' '.join(sockets)}\n"
            "BindPaths=/mnt:/proc\n"
            # Within all that the unit forbids, as the agent itself.
            f"ExecStartPre=mkdir -p {RECORDINGS}\n"
            f"ExecStartPre=sh -c 'head -c 1M /dev/zero >>{RECORDINGS}/1'\n"
        )
        flags = ["-m", "-u", "-i", "-p", "-C", "-f", "--propagation", "private"]
        argv = ["unshare", *flags, "sh", "-c", _BOOT, "sh", str(lab.directory), SYSTEMD]
        self._outer = lab.node_popen(argv, log=self.log, cgroup="/eni53-systemd")
        self._pid = 0
        self._wait(self._up)

    def _up(self) -> bool:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text()
        if not children:
            return False
        self._pid = int(children.split()[0])
        return "Failed" not in self.ctl("is-system-running").stderr

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            if self._outer.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"systemd did not start:\n{self.log.read_text()}")
            time.sleep(0.2)

    def inside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command where it is the first process."""
        enter = ["nsenter", "-t", str(self._pid), "-m", "-p", "-n", "-C"]
        return subprocess.run(
            [*enter, *argv], capture_output=True, text=True, check=False, timeout=90
        )

    def ctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        """``systemctl``."""
        return self.inside("systemctl", *args)

    def end(self) -> None:
        """With the first process all others of its namespace are ended."""
        if self._pid and self._outer.poll() is None:
            os.kill(self._pid, signal.SIGKILL)
        self._outer.wait(20)


@pytest.fixture
def systemd(lab: Lab) -> Iterator[Systemd]:
    """One that is gone afterwards."""
    started = Systemd(lab)
    try:
        yield started
    finally:
        started.end()


def get(lab: Lab, path: str) -> str | None:
    """What the service answers; None while it does not."""
    argv = [sys.executable, "-c", _GET, f"http://127.0.0.1:9153{path}"]
    done = lab.node_exec(argv, check=False)
    return done.stdout if done.returncode == 0 else None


def test_the_unit_as_it_is_counts_and_names(lab: Lab, systemd: Systemd) -> None:
    """It starts, counts a bridge task and an awsvpc task's own ENI, stops with success, and leaves
    nothing in its runtime directory but recordings, which RuntimeDirectoryPreserve keeps.
    """
    assert Path(SYSTEMD).exists(), "systemd is not installed"
    one = lab.run_task("checkout")
    own = lab.run_awsvpc_task(family="shop", containers=("app",))
    started = systemd.ctl("start", "eni53.service")
    assert started.returncode == 0, systemd.log.read_text()
    deadline = time.monotonic() + 60
    while get(lab, "/readyz") is None:
        assert time.monotonic() < deadline, systemd.log.read_text()
        time.sleep(0.2)
    one.send("udp", "--to", RESOLVER, "--count", "503")
    own.containers["app"].send("udp", "--to", RESOLVER, "--count", "499")
    want = {
        ("ecs_task", "prod", f"checkout:42/{one.task_id}", "app"): 503,
        ("ecs_task", "prod", f"shop:7/{own.task_id}", "app"): 499,
    }
    while (found := counted(lab)) != want and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found == want

    assert systemd.ctl("stop", "eni53.service").returncode == 0
    shown = systemd.ctl("show", "-p", "Result,ExecMainStatus", "eni53.service").stdout
    assert shown.split() == ["Result=success", "ExecMainStatus=0"]
    assert systemd.inside("ls", "-A", "/run/eni53").stdout == "recordings\n"
    assert systemd.ctl("start", "eni53.service").returncode == 0
    assert systemd.ctl("stop", "eni53.service").returncode == 0
    size = systemd.inside("stat", "-c", "%s", f"{RECORDINGS}/1").stdout
    assert int(size) == 2 << 20  # the first start's, and the second's
    own.remove()
    one.remove()


def counted(lab: Lab) -> dict[tuple[str, str, str, str], int]:
    """The rows of all ENIs."""
    snapshot = json.loads(get(lab, "/api/v1/snapshot") or '{"enis": []}')
    return {
        key: packets
        for number in range(len(snapshot["enis"]))
        for key, packets in rows(snapshot, number).items()
    }
