"""What the image's tests have of the lab's node: its places, and what answers on it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.shell import LabError, run

_GET = (
    "import sys, urllib.request as u;"
    " sys.stdout.write(u.urlopen(sys.argv[1], timeout=5).read().decode())"
)
_READY_S = 60.0


def places(lab: Lab) -> dict[str, Path]:
    """Where the lab's node has what a manifest mounts."""
    ours = lab.directory / "run-eni53"
    ours.mkdir(exist_ok=True)
    return {
        "/run/containerd": lab.directory / "run-containerd",
        "/var/run/docker.sock": lab.docker_socket,
        "/sys/fs/cgroup": Path("/sys/fs/cgroup"),
        "/run/eni53": ours,
    }


@contextlib.contextmanager
def shared_run(lab: Lab) -> Iterator[None]:
    """containerd's directory as a shared mount, as systemd makes all of a node's: HostToContainer
    is refused for any other. Goes with the lab in any case.
    """
    place = places(lab)["/run/containerd"]
    place.mkdir()
    run(["mount", "--rbind", "--make-private", str(lab.containerd_socket.parent), str(place)])
    run(["mount", "--make-rshared", str(place)])
    try:
        yield
    finally:
        run(["umount", "-R", "-l", str(place)], check=False)


def get(lab: Lab, url: str) -> str:
    """What is answered on the node."""
    return lab.node_exec([sys.executable, "-c", _GET, url]).stdout


def until_ready(lab: Lab, url: str, log: Path | None = None) -> None:
    """Return when *url* answers 200.

    Raises:
        LabError: Not within a minute; with what the agent said.
    """
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            get(lab, url)
        except LabError as error:
            if time.monotonic() > deadline:
                said = log.read_text() if log is not None and log.exists() else ""
                raise LabError(f"{url} never answered 200: {error}\n{said}") from error
            time.sleep(0.2)
        else:
            return
