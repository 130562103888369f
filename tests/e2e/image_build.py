"""Builds deploy/image/Dockerfile as it stands, where no registry of images can be reached.

The base image it names is made here from Debian's packages, under the same name; all else is a
plain ``docker build``. The daemon that builds is in the machine's own network namespace, since its
steps ask Debian and PyPI, but it makes no bridge and writes no rule: builds use the host's network.
"""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.lab.processes import end
from tests.lab.shell import daemon_environment, popen, run, wait_until

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/image/Dockerfile"
CACHE = ROOT / ".cache/image"
_OWN_CAS = Path("/usr/local/share/ca-certificates")
_MAX_AGE_S = 7 * 86400.0  # a week: Debian's security updates
_BUILD_S = 560.0


def suite() -> str:
    """Debian's name in the Dockerfile's FROM lines."""
    found = re.search(r"^ARG DEBIAN=(\w+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None, "the Dockerfile has no ARG DEBIAN=..."
    return found[1]


def base(name: str) -> Path:
    """A tar of a minimal Debian, as ``debian:NAME-slim`` is; made once a week, a minute's work."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tar = CACHE / f"debian-{name}.tar"
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tar.exists() or time.time() - tar.stat().st_mtime > _MAX_AGE_S:
            made = tar.with_suffix(".new.tar")
            slim = [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man")]
            # A machine that reaches its registries past a CA of its own: the base knows it too.
            cas = [f"--customize-hook=copy-in {_OWN_CAS} {_OWN_CAS.parent}"]
            slim += cas if _OWN_CAS.is_dir() else []
            argv = ["mmdebstrap", "--variant=minbase", "--quiet", *slim, name, str(made)]
            run(argv, timeout=_BUILD_S)
            made.rename(tar)
    return tar


class Builder:
    """containerd and dockerd, for as long as the ``with`` block lasts.

    Args:
        directory: Inside the lab's, so that what a kill leaves goes with the lab.
        lab_id: The lab's mark for their processes.
    """

    def __init__(self, directory: Path, lab_id: str) -> None:
        self._directory = directory
        self._env = daemon_environment(lab_id, directory)
        self._socket = directory / "docker.sock"
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        """Start both."""
        here = self._directory
        (here / "client").mkdir(parents=True)
        (here / "daemon.json").write_text("{}")
        containerd = here / "containerd.sock"
        (here / "containerd.toml").write_text(
            f'version = 2\nroot = "{here}/containerd/root"\nstate = "{here}/containerd/state"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{containerd}"\n'
            f'[ttrpc]\naddress = "{containerd}.ttrpc"\n'
            f'[plugins."io.containerd.internal.v1.opt"]\npath = "{here}/containerd/opt"\n'
        )
        self._start("containerd", ["--config", str(here / "containerd.toml")], containerd)
        quiet = ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        places = [f"--data-root={here}/data", f"--exec-root={here}/exec", f"-p={here}/docker.pid"]
        argv = ["--config-file", str(here / "daemon.json"), "-H", f"unix://{self._socket}"]
        argv += ["--containerd", str(containerd), "--exec-opt", "native.cgroupdriver=cgroupfs"]
        self._start("dockerd", [*argv, *quiet, *places], self._socket)
        self.docker("version", timeout=40)
        return self

    def _start(self, name: str, args: list[str], socket: Path) -> None:
        log = self._directory / f"{name}.log"
        process = popen([name, *args, "--log-level=warn"], self._env, log)
        self._started.append(process)
        wait_until(name, socket.is_socket, process, log, deadline=40)

    def __exit__(self, *_: object) -> None:
        """End both, dockerd first, and remove what they kept."""
        for process in reversed(self._started):
            end([process.pid] if process.poll() is None else [], grace=20)
            process.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)

    def docker(self, *args: str, timeout: float = 60) -> str:
        """Run the client on this daemon; what it prints."""
        env = {"DOCKER_HOST": f"unix://{self._socket}", "DOCKER_BUILDKIT": "0"}
        env |= {"DOCKER_CONFIG": str(self._directory / "client")}
        return run(["docker", *args], env=self._env | env, timeout=timeout).stdout

    def build(self, tag: str) -> Path:
        """A tar of the built image, for ``docker load``."""
        name = suite()
        self.docker("import", str(base(name)), f"debian:{name}-slim", timeout=120)
        where = ["-f", str(DOCKERFILE), str(ROOT)]
        self.docker("build", "-q", "--network=host", "-t", tag, *where, timeout=_BUILD_S)
        tar = self._directory.parent / "eni53-image.tar"
        self.docker("save", "-o", str(tar), tag, timeout=120)
        return tar
