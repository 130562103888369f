"""`eni53 doctor` in the lab: situations made with real packets, and a quiet node."""

from __future__ import annotations

import json
import time

import pytest

from tests.lab import vpc
from tests.lab.agent import ENI53, Agent
from tests.lab.lab import Lab
from tests.lab.tally import flows


def look(agent: Agent, *flags: str) -> tuple[int, dict[str, dict[str, object]]]:
    """Exit code, and findings by code."""
    done = agent.run("doctor", "--json", "--seconds", "4", *flags, check=False)
    document = json.loads(done.stdout)
    assert document["version"] == 1
    return done.returncode, {finding["code"]: finding for finding in document["findings"]}


def test_a_quiet_node_has_no_finding(lab: Lab) -> None:
    """Neither with an agent nor without."""
    with Agent(lab) as agent:
        assert look(agent, "--fail") == (0, {})
        assert "Nothing to report of" in agent.run("doctor", "--seconds", "1").stdout
        agent.stop()
        assert look(agent, "--fail") == (0, {})


@pytest.mark.parametrize("alone", [False, True], ids=["agent", "alone"])
def test_search_domains_and_doubling_are_told(lab: Lab, alone: bool) -> None:
    """A pod's ndots: 5, by four senders; what they ask is in the evidence."""
    task = lab.run_task("shop")
    words = ("udp", "--to", vpc.RESOLVER, "--rate", "40", "--count", "2400", "--name")
    pair = ("udp", "--to", vpc.RESOLVER, "--rate", "60", "--count", "3600", "--name")
    names = ["db.lab.test", "db.lab.test.shop.svc.cluster.local", "db.lab.test.svc.cluster.local"]
    with Agent(lab) as agent:
        if alone:
            agent.stop()
        loads = [task.start_send(*words, name) for name in names[1:]]
        loads.append(task.start_send(*pair, names[0]))
        loads.append(task.start_send(*pair, names[0], "--type", "AAAA"))
        assert flows(lab, 200)  # until all of them are at it
        code, found = look(agent, "--fail")
        for load in loads:
            load.terminate()
            load.communicate()
    task.remove()

    assert code == 1
    assert {"search-domains", "aaaa-doubling"} <= set(found)
    assert found["search-domains"]["evidence"]["pps"] == pytest.approx(80, rel=0.15)  # type: ignore[index]
    assert found["aaaa-doubling"]["evidence"]["pps"] == pytest.approx(60, rel=0.15)  # type: ignore[index]
    assert "imds-load" not in found


def test_search_domains_of_many_names(lab: Lab) -> None:
    """Thirty names that share the load evenly, each with a search domain and as two types."""
    task = lab.run_task("many")
    suffixes = ("corp.example.org", "corp.example.org.shop.svc.cluster.local")
    with Agent(lab) as agent:
        loads = [
            task.start_send("udp", "--to", vpc.RESOLVER, "--rate", "60", "--count", "3600",
                            "--name", f"n{{n}}.{suffix}", "--repeat", "30", "--type", kind)
            for suffix in suffixes for kind in ("A", "AAAA")
        ]  # fmt: skip
        assert flows(lab, 240)
        _, found = look(agent)
        for load in loads:
            load.terminate()
            load.communicate()
    task.remove()
    assert {"search-domains", "aaaa-doubling"} <= set(found)
    assert found["search-domains"]["evidence"]["share"] == pytest.approx(0.5, abs=0.1)  # type: ignore[index]
    assert found["search-domains"]["workload"] is not None


def test_a_restart_within_the_look_begins_it_again(lab: Lab) -> None:
    """What the first agent had counted is not taken from what the second one has."""
    load = lab.start_send("udp", "--to", vpc.RESOLVER, "--rate", "60", "--count", "3600", "--name",
                          "hot.lab.test")  # fmt: skip
    with Agent(lab) as agent:
        agent.settled(600)
        where = ("--runtime-dir", str(agent.runtime_dir))
        looking = lab.node_popen([ENI53, "doctor", *where, "--json", "--seconds", "12"])
        time.sleep(4)
        agent.kill()
        agent.start()
        out, err = looking.communicate(timeout=60)
    load.terminate()
    load.communicate()

    assert (looking.returncode, err) == (0, "")
    hot = next(f for f in json.loads(out)["findings"] if f["code"] == "hot-name")
    assert hot["evidence"]["pps"] == pytest.approx(60, rel=0.2)
