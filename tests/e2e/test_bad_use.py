"""Bad use ends in one line that says what, why and what to do, with exit code 2."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.lab import vpc
from tests.lab.agent import ENI53, Agent
from tests.lab.lab import Lab


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that ended with exit code 2."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("eni53: ")
    return lines[0]


def start(lab: Lab, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the node that is expected to end at once."""
    directory = str(lab.directory / "bad")
    return lab.node_exec([ENI53, *argv, "--runtime-dir", directory], env=env, check=False)


NODE = vpc.eni(0).ipv4


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["agent", "--eni", "nope0"], ["'nope0' does not exist", "ens5"]),
        (["agent", "--listen", "127.0.0.1:notaport"], ["notaport"]),
        (["agent", "--listen", "203.0.113.9:80"], ["203.0.113.9:80", "--listen"]),
        (["agent", "--config", "/nonexistent.toml"], ["/nonexistent.toml"]),
        (["agent", "--frobnicate"], ["--frobnicate", "--help"]),
        (["top", "--once", "--seconds", "0"], ["'0'", "0.1"]),
        (["top", "--once", "--eni", "nope0", "--seconds", "1"], ["'nope0' does not exist"]),
        (["top", "--sort", "colour"], ["colour", "pps"]),
        (["nonsense"], ["nonsense"]),
        (["remedy", "dnsmasq-host", "--resolver", NODE], [NODE, "an address of this host"]),
    ],
)
def test_usage(lab: Lab, argv: list[str], words: list[str]) -> None:
    """The line names what was wrong and what would be right."""
    line = refused(start(lab, *argv))
    assert [word for word in words if word not in line] == []


def test_malformed_configuration(lab: Lab) -> None:
    """The line names the file, the key, the value, and what is allowed."""
    path = lab.directory / "bad.toml"
    path.write_text("[limit]\npps = 0\n")
    line = refused(start(lab, "agent", "--config", str(path)))
    assert [word for word in (str(path), "limit.pps", "0", "1") if word not in line] == []


def test_no_eni(lab: Lab) -> None:
    """A namespace without an ENI: the line says how one is found and how to name one."""
    done = subprocess.run(
        ["unshare", "-n", ENI53, "agent", "--runtime-dir", str(lab.directory / "bad")],
        env={**os.environ, "ENI53_RUNTIME_IMDS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "--eni" in refused(done)


def test_not_root(lab: Lab) -> None:
    """Without privilege: the line names the capabilities."""
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    drop += ["--inh-caps=-all", "--bounding-set=-all"]
    done = lab.node_exec(
        [*drop, ENI53, "top", "--once", "--seconds", "1", "--runtime-dir", "/tmp/none"],  # noqa: S108
        check=False,
    )
    assert "CAP_BPF" in refused(done)


def test_second_agent_and_port_in_use(lab: Lab) -> None:
    """Two agents in one namespace would write over each other's tags; the second one ends."""
    with Agent(lab, "--listen", "127.0.0.1:9153"):
        line = refused(start(lab, "agent", "--listen", "127.0.0.1:9153"))
        assert "127.0.0.1:9153" in line
        line = refused(start(lab, "agent", "--listen", "127.0.0.1:0"))
        assert "another eni53" in line


def test_one_that_counts_by_itself_is_in_an_agents_way(lab: Lab) -> None:
    """A one-shot `top` holds the namespace: who would start an agent is told, and so is `check`."""
    directory = str(lab.directory / "bad")
    top = lab.node_popen([ENI53, "top", "--seconds", "60", "--runtime-dir", directory])
    try:
        assert top.stderr is not None
        assert "no agent runs here; counting for" in top.stderr.readline()
        assert "a `top`, `doctor` or `record` that counts by itself" in refused(start(lab, "agent"))
        assert "but another eni53 counts here" in start(lab, "check").stdout
    finally:
        top.terminate()
        top.communicate(timeout=20)
    assert "another eni53" not in start(lab, "check").stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_the_terminal_does_not_have(lab: Lab, encoding: str) -> None:
    """No UTF-8: what `check` says is plain, and complete."""
    done = start(lab, "check", PYTHONIOENCODING=encoding, ENI53_RUNTIME_IMDS="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert " -> " in done.stdout


@pytest.mark.parametrize("words", ["doctor --seconds 0.2", "top --once --seconds 0.2"])
def test_a_reader_that_went_away_is_no_finding(lab: Lab, words: str) -> None:
    """141, as with any other output; 1 would be a finding of `doctor --fail`."""
    directory = lab.directory / "bad"
    line = f"{ENI53} {words} --runtime-dir {directory} | true; echo ${{PIPESTATUS[0]}}"
    done = lab.node_exec(["bash", "-c", line])
    assert done.stdout == "141\n"
    assert "Traceback" not in done.stderr


def test_tcx_where_there_is_none_is_said(lab: Lab) -> None:
    """A wrong value of ENI53_ATTACH is refused with the values it may have."""
    line = refused(start(lab, "agent", ENI53_ATTACH="magic"))
    assert [w for w in ("ENI53_ATTACH", "magic", "clsact") if w not in line] == []


def test_output_that_cannot_be_written_is_one_line(lab: Lab) -> None:
    """A full disk under stdout: no traceback, exit 2; a closed one is nobody's business."""
    full = lab.node_exec(["sh", "-c", f"{ENI53} remedy > /dev/full"], check=False)
    assert (full.returncode, full.stderr) == (2, "eni53: cannot go on: No space left on device\n")
    closed = lab.node_exec(["sh", "-c", f"{ENI53} remedy >&-"], check=False)
    assert (closed.returncode, closed.stderr) == (0, "")
