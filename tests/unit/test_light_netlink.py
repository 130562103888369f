"""pyroute2 without the rest of it: what the agent does not use is not in its memory."""

import subprocess
import sys

_UNUSED = ("pyroute2.ndb", "pyroute2.ipdb", "pyroute2.dhcp", "pyroute2.plan9")


def modules_after(code: str) -> set[str]:
    """What a fresh interpreter has imported after *code*."""
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return set(done.stdout.split())


def test_the_agent_has_only_the_parts_it_uses():
    """`import pyroute2` anywhere would bring all of it: 6 MiB."""
    found = modules_after("import eni53.daemon, eni53.check, eni53.top.command")
    assert "pyroute2.iproute.linux" in found
    assert {name for name in found if name.startswith(_UNUSED)} == set()


def test_the_rest_is_there_for_who_wants_it():
    """The parts are the same objects, and the package still imports as a whole afterwards."""
    found = modules_after(
        "from eni53.kernel.netlink import IPRoute, NetlinkError\n"
        "import pyroute2\n"
        "assert pyroute2.IPRoute is IPRoute\n"
        "assert pyroute2.NetlinkError is NetlinkError"
    )
    assert {"pyroute2", "pyroute2.ndb"} <= found


def test_who_has_it_already_keeps_it():
    """An interpreter with the whole of it loses nothing."""
    found = modules_after("import pyroute2, eni53.kernel.netlink")
    assert {"pyroute2", "pyroute2.ndb"} <= found
