"""The package as a whole: nothing is left out of it, layers go one way, and it starts light."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
AGENT = ROOT / "agent"
MODULES = sorted(AGENT.rglob("*.py"))
PURE = ("model", "sample", "rates", "ledger", "alerts", "attribution", "assemble", "sent", "text",
        "pipeline", "inventory.workloads", "inventory.names", "snapshot_json",
        "sinks.metrics")  # fmt: skip
IO_MODULES = {"os", "time", "socket", "subprocess", "threading", "asyncio", "pathlib", "urllib",
              "http", "fcntl", "ctypes", "pyroute2", "bcc", "random", "signal"}  # fmt: skip
HEAVY = ("rich", "textual", "bcc", "dns", "grpc", "requests", "yaml", "numpy")


def name_of(path):
    """Dotted, from agent/ on."""
    return ".".join(path.relative_to(AGENT).with_suffix("").parts)


def imports(path):
    """Absolute names of all that a module imports, wherever in it."""
    package = ["eni53", *path.relative_to(AGENT).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            found.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
    return found


def ours(path):
    """Those of a module's imports that are ours, without the package's name."""
    return {name.removeprefix("eni53.") for name in imports(path) if name.startswith("eni53.")}


def settings():
    """What pyproject.toml tells setuptools."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_folder_is_in_the_package():
    """One that is not listed works where it is edited and is missing where it is installed."""
    folders = {"eni53.bpf", "eni53.remedies", *(
        ".".join(["eni53", *path.parent.relative_to(AGENT).parts])
        for path in AGENT.rglob("__init__.py")
    )}  # fmt: skip
    with_code = {path.parent for path in MODULES}
    assert {folder for folder in with_code if not (folder / "__init__.py").exists()} == set()
    assert set(settings()["packages"]) == folders


def test_every_kernel_source_is_in_the_package():
    """What BCC includes must be there where it is installed."""
    listed = {path for pattern in settings()["package-data"]["eni53.bpf"]
              for path in (ROOT / "bpf").glob(pattern)}  # fmt: skip
    there = {path for end in ("*.c", "*.h") for path in (ROOT / "bpf").rglob(end)}
    assert listed == there


def test_every_template_is_in_the_package():
    """`eni53 remedy` reads them where it is installed."""
    listed = {path for pattern in settings()["package-data"]["eni53.remedies"]
              for path in (ROOT / "deploy/remedies").glob(pattern)}  # fmt: skip
    there = {path for path in (ROOT / "deploy/remedies").rglob("*")
             if path.is_file() and path.suffix not in {".py", ".pyc"}}  # fmt: skip
    assert listed == there


def test_the_model_stands_alone():
    """Every stage can import it because it imports none of them."""
    assert ours(AGENT / "sample.py") == set()
    assert {name.split(".")[0] for name in ours(AGENT / "model.py")} == {"sample"}


@pytest.mark.parametrize("path", sorted((AGENT / "sinks").glob("*.py")), ids=name_of)
def test_sinks_see_snapshots_only(path):
    """A sink that could read a map or a runtime would show another moment than the others."""
    forbidden = ("kernel", "inventory", "node", "wiring", "pipeline", "ledger", "rates")
    assert {name for name in ours(path) if name.split(".")[0] in forbidden} == set()


@pytest.mark.parametrize("path", sorted((AGENT / "inventory").glob("*.py")), ids=name_of)
def test_inventory_knows_nothing_of_what_is_done_with_it(path):
    """Data flows from it, not to it."""
    forbidden = ("sinks", "node", "wiring", "pipeline", "ledger", "attribution", "top", "daemon")
    assert {name for name in ours(path) if name.split(".")[0] in forbidden} == set()


@pytest.mark.parametrize("path", sorted((AGENT / "kernel").glob("*.py")), ids=name_of)
def test_the_kernel_side_knows_nothing_above_it(path):
    """It reads, writes and attaches; who is behind a number is for others."""
    allowed = ("kernel", "model", "sample", "errors", "text", "bpf")
    assert {name for name in ours(path) if name.split(".")[0] not in allowed} == set()


@pytest.mark.parametrize("name", PURE)
def test_pure_stages_do_no_io(name):
    """No clock, no file, no socket: a value in gives a value out, in a test as on a node."""
    found = imports(AGENT / f"{name.replace('.', '/')}.py")
    assert {module.split(".")[0] for module in found} & IO_MODULES == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_inside_are_relative(path):
    """`import agent` would succeed from the repository's root, as a second copy."""
    source = [node for node in ast.walk(ast.parse(path.read_text()))
              if isinstance(node, ast.Import | ast.ImportFrom)]  # fmt: skip
    absolute = {
        name for node in source if not getattr(node, "level", 0)
        for name in ([node.module] if isinstance(node, ast.ImportFrom)
                     else [alias.name for alias in node.names])
    }  # fmt: skip
    assert {name for name in absolute if name and name.split(".")[0] in {"agent", "eni53"}} == set()


@pytest.mark.parametrize("module", ["eni53.daemon", "eni53.cli"])
def test_the_resident_agent_starts_light(module):
    """Each of these costs megabytes for as long as the agent runs, or is not installed at all."""
    code = f"import sys, {module}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert [name for name in HEAVY if name in found.stdout.split()] == []
