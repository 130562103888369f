"""The image's recipe, as far as it can be read: tests/e2e/test_image.py builds it."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/image/Dockerfile").read_text()
INSTALL = ROOT / "deploy/image/install.sh"
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def copied() -> set[str]:
    """What the Dockerfile takes from the checkout."""
    found: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        found.update(line.split()[:-1])
    return found


def test_it_takes_what_the_dockerignore_lets_through() -> None:
    """No more, which would be sent for nothing; no less, which would not build."""
    assert IGNORED[1] == "*"
    assert {line[1:] for line in IGNORED if line.startswith("!")} == copied()
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def test_it_has_all_of_the_package() -> None:
    """Each folder that pyproject.toml builds the package of, and the files it names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = set(project["tool"]["setuptools"]["package-dir"].values())
    needed |= {project["project"]["readme"], "pyproject.toml"}
    needed |= {path.split("/")[0] for path in project["project"]["license-files"]}
    assert needed <= copied()


def test_nothing_of_the_package_is_ignored() -> None:
    """A pattern that is too wide would leave a program out."""
    excluded = [line for line in IGNORED[2:] if line and not line.startswith(("!", "#"))]
    files = [str(path.relative_to(ROOT)) for name in ("agent", "bpf") for path in
             (ROOT / name).rglob("*") if path.suffix in {".py", ".c", ".h"}]  # fmt: skip
    assert len(files) > 50
    lost = [f for f in files for pattern in excluded if fnmatch.fnmatch(f, pattern)]
    assert lost == []


def test_its_steps_are_those_of_install_sh() -> None:
    """Every RUN is a step of the script, and every step is run."""
    runs = re.findall(r"^RUN \S*/install\.sh ([\w-]+)", DOCKERFILE, re.MULTILINE)
    assert len(runs) == len(re.findall(r"^RUN ", DOCKERFILE, re.MULTILINE))
    steps = re.findall(r"^([\w-]+)\)$", INSTALL.read_text(), re.MULTILINE)
    assert sorted(runs) == sorted(steps)


@pytest.mark.parametrize("argv", [[], ["oops"]])
def test_an_unknown_step_is_refused(argv: list[str]) -> None:
    """In one line, with what there is."""
    done = subprocess.run([INSTALL, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "base, build-tools or venv" in done.stderr


def test_it_needs_no_kernel_headers_and_no_tests_libraries() -> None:
    """What is installed from Debian, and the package without its extras."""
    packages = re.findall(r"^\s+apt_install (.+)$", INSTALL.read_text(), re.MULTILINE)
    assert sorted(packages) == ["python3-bpfcc", "python3-venv"]
    assert "[" not in re.findall(r"pip install .*", INSTALL.read_text())[0]


def test_the_command_is_the_agent() -> None:
    """`docker run IMAGE` is an agent, `docker run IMAGE check` a check."""
    assert 'ENTRYPOINT ["eni53"]' in DOCKERFILE
    assert 'CMD ["agent"]' in DOCKERFILE
