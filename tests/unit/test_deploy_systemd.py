"""The unit, as far as it can be read: tests/e2e/test_systemd_unit.py runs it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/systemd/eni53.service"
TEXT = UNIT.read_text()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory with the unit and its command where docs/deploy-ec2.md puts them."""
    unit = tmp_path / "etc/systemd/system/eni53.service"
    command = tmp_path / "opt/eni53/.venv/bin/eni53"
    for path, text in ((unit, TEXT), (command, "#!/bin/sh\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    command.chmod(0o755)
    # What a unit is bound to by default.
    shutil.copytree("/lib/systemd/system", tmp_path / "lib/systemd/system", symlinks=True)
    return tmp_path


def test_systemd_understands_every_line(root: Path) -> None:
    """An unknown setting is only a warning to systemd, and then protects nothing."""
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={root}"]
    done = subprocess.run([*argv, "eni53.service"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_that_check_can_fail(root: Path) -> None:
    """A misspelt setting is seen."""
    unit = root / "etc/systemd/system/eni53.service"
    unit.write_text(TEXT.replace("ProtectClock", "ProtectClocks"))
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", f"--root={root}"]
    done = subprocess.run([*argv, "eni53.service"], capture_output=True, text=True, check=False)
    assert "ProtectClocks" in done.stderr


def test_its_capabilities_are_those_documented() -> None:
    """The four of docs/wirings.md, and the one for awsvpc tasks."""
    documented = re.search(r"`((?:CAP_\w+ ?)+)`", (ROOT / "docs/wirings.md").read_text())
    bounded = re.search(r"^CapabilityBoundingSet=(.+)$", TEXT, re.MULTILINE)
    assert documented is not None and bounded is not None
    assert bounded[1].split() == [*documented[1].split(), "CAP_SYS_ADMIN"]


def test_the_page_says_how_exposed_it_is() -> None:
    """The figure in docs/deploy-ec2.md is what systemd-analyze prints of the unit."""
    argv = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNIT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    level = re.search(r"Overall exposure level for eni53\.service: ([\d.]+)", done.stdout)
    assert level is not None
    page = (ROOT / "docs/deploy-ec2.md").read_text()
    said = re.search(r"exposure level (\d+\.\d)", page)
    assert said is not None
    # systemd's own scale differs a little from version to version.
    assert abs(float(said[1]) - float(level[1])) <= 0.5
