"""Loading: the compiler leaves nothing behind, and every way to fail is one line."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eni53.errors import NeedError
from eni53.kernel import compiler, layout
from eni53.kernel.loader import load

from .kernel import Kernel

_CHECKOUT = Path(__file__).parents[2]


def described() -> list[dict[str, Any]]:
    """What a compiler child reports when all is well."""
    return [
        {
            "name": name,
            "key": key.offsets() if key is not None else [],
            "leaf": value.offsets(),
        }
        for name, (key, value) in layout.MAPS.items()
    ]


def test_the_compiled_layout_is_the_agents(kernel: Kernel) -> None:
    """Every map is there with the room that bpf/settings.h says; `load` has compared the fields."""
    assert set(layout.MAPS) <= set(kernel.loaded.maps)
    assert set(compiler.PROGRAMS) == set(kernel.loaded.programs)
    room = kernel.loaded.max_entries
    assert layout.SETTINGS["MAX_SENDERS"] == room["senders"]
    assert layout.SETTINGS["MAX_ORIGINS"] == room["origins"]
    assert layout.SETTINGS["ORIGIN_IDS"] == room["free_tags"]
    assert len(layout.STATS) == room["stats"]


def test_an_equal_layout_is_accepted() -> None:
    """The proof that the refusals below are for what was changed."""
    layout.verify(described())


@pytest.mark.parametrize("name", layout.MAPS)
@pytest.mark.parametrize("how", ["missing", "renamed", "moved", "resized", "added", "dropped"])
def test_a_different_layout_is_refused(name: str, how: str) -> None:
    """One field other than the agent thinks, in any map, ends the start in one line naming it."""
    maps = copy.deepcopy(described())
    (entry,) = [entry for entry in maps if entry["name"] == name]
    field, offset, size = entry["leaf"][-1]
    match how:
        case "missing":
            maps.remove(entry)
        case "renamed":
            entry["leaf"][-1] = (field + "x", offset, size)
        case "moved":
            entry["leaf"][-1] = (field, offset + 4, size)
        case "resized":
            entry["leaf"][-1] = (field, offset, size * 2)
        case "added":
            entry["leaf"].append(("more", offset + size, 4))
        case _:
            del entry["leaf"][-1]
    with pytest.raises(NeedError, match=rf"^BPF map {name}[^\n]*reinstall eni53$"):
        layout.verify(maps)


def descriptors() -> list[str]:
    """What this process has open."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_loading_leaves_no_descriptor_and_no_child() -> None:
    """Five times load and close: the same descriptors as before, none of them inheritable."""
    load().close()
    before = descriptors()
    for _ in range(4):
        with load() as loaded:
            fds = [*loaded.programs.values(), *loaded.maps.values()]
            assert not any(map(os.get_inheritable, fds))
    assert before == descriptors()
    with pytest.raises(ChildProcessError), contextlib.suppress(BlockingIOError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)


_RESIDENT = """
import os, sys
from pathlib import Path
from eni53.kernel.loader import load
loaded = load()
maps = Path("/proc/self/maps").read_text().lower()
print([word for word in ("llvm", "clang", "libbcc") if word in maps])
print("bcc" in sys.modules)
print(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
"""


def python(*arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with eni53 in it."""
    return subprocess.run(
        [*before, sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def test_the_compiler_is_not_resident() -> None:
    """110 MiB of LLVM stay in the child; the process that loads maps neither it nor BCC."""
    done = python("-c", _RESIDENT)
    assert (0, "") == (done.returncode, done.stderr)
    assert ["[]", "False", "[]"] == done.stdout.splitlines()


_ATTEMPT = """
import sys
from eni53.errors import NeedError
from eni53.kernel.loader import load
try:
    load()
except NeedError as error:
    print(error)
else:
    print("loaded")
"""


def attempt(capabilities: str) -> list[str]:
    """What a load says that is tried by nobody, with these capabilities and no other."""
    caps = f"-all{capabilities}"
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    sets = (f"--inh-caps={caps}", f"--ambient-caps={caps}", f"--bounding-set={caps}")
    done = python("-c", _ATTEMPT, before=(*nobody, *sets))
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.splitlines()


@pytest.mark.parametrize("have", ["", ",+bpf", ",+bpf,+net_admin", ",+net_admin,+perfmon"])
def test_without_privileges_it_says_which(have: str) -> None:
    """Nobody, with none of the capabilities or not all: one line that names root and all three."""
    (line,) = attempt(have)
    assert "run as root" in line
    assert "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" in line


def test_the_capabilities_it_asks_for_are_enough() -> None:
    """What the message names is what it takes: no root beside it."""
    assert ["loaded"] == attempt(",+bpf,+net_admin,+perfmon")


@pytest.mark.parametrize("found", ["nothing", "another project"])
def test_without_bcc_it_says_what_to_install(tmp_path: Path, found: str) -> None:
    """No BCC, or PyPI's `bcc`, which is another project: one line naming the package."""
    hidden = tmp_path / "bcc"
    hidden.mkdir()
    said = "raise ImportError('hidden')" if found == "nothing" else ""
    (hidden / "__init__.py").write_text(said)
    # A tree of our own for the distribution's packages, in a mount namespace of the child's own.
    places = " ".join(p for p in compiler._DISTRIBUTION_PACKAGES if Path(p, "bcc").is_dir())
    script = f'for p in {places}; do mount --bind {hidden} $p/bcc || exit 9; done; exec "$@"'
    done = python("-c", _ATTEMPT, before=("unshare", "-m", "sh", "-c", script, "sh"))
    assert (0, "") == (done.returncode, done.stderr)
    (line,) = done.stdout.splitlines()
    assert "python3-bpfcc" in line


def test_a_program_the_kernel_refuses_is_one_line(tmp_path: Path) -> None:
    """A broken source: the first complaint of the compiler with its file, and no traceback."""
    source = _CHECKOUT / "bpf"
    broken = tmp_path / "eni53.c"
    broken.write_text((source / "eni53.c").read_text() + "\nint broken(void) { return nothing; }\n")
    script = f'mount --bind {broken} {source}/eni53.c || exit 9; exec "$@"'
    done = python("-c", _ATTEMPT, before=("unshare", "-m", "sh", "-c", script, "sh"))
    assert (0, "") == (done.returncode, done.stderr)
    (line,) = done.stdout.splitlines()
    assert "bpf/eni53.c" in line
    assert "nothing" in line
