"""What was asked for, in the lab: names as they were sent, by who sent them, to the query."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.agent import Agent
from tests.lab.containers import Container
from tests.lab.lab import Lab
from tests.lab.tally import until

RESOLVER = "10.53.0.2"
METRIC = "eni53_name_queries_total"
Names = dict[tuple[str, str], int]


@pytest.fixture(scope="module")
def tasks(lab: Lab) -> Iterator[tuple[Container, Container]]:
    """Two tasks."""
    both = lab.run_task("orders"), lab.run_task("mail")
    yield both
    for task in both:
        task.remove()


def names(row: dict[str, Any]) -> Names:
    """Queries since the start by (name, type), of an ENI or of a workload."""
    return {(name["name"], name["type"]): name["packets"] for name in row["names"]}


def by_task(snapshot: dict[str, Any]) -> dict[str, Names]:
    """The same of every task, by its family."""
    rows = snapshot["enis"][0]["workloads"]
    return {row["workload"].partition(":")[0]: names(row) for row in rows if row["names"]}


@pytest.mark.parametrize("attach", ["tcx", "clsact"])
def test_names_are_counted_by_who_asks(
    lab: Lab, tasks: tuple[Container, Container], attach: str
) -> None:
    """Two tasks and the host, the same name and others; every query is there, once."""
    orders, mail = tasks
    with Agent(lab, env={"ENI53_ATTACH": attach}) as agent:
        send = ("udp", "--to", RESOLVER, "--rate", "300")
        orders.send(*send, "--count", "150", "--name", "DB.Lab.Test")
        orders.send(*send, "--count", "70", "--name", "db.lab.test", "--type", "AAAA")
        mail.send(*send, "--count", "40", "--name", "db.lab.test")
        mail.send(*send, "--count", "31", "--name", "smtp.lab.test", "--type", "TXT")
        lab.send(*send, "--count", "9", "--name", "host.lab.test")

        def told() -> Names:
            """Of those asked for in a second; the last one may be over."""
            snapshot = agent.snapshot()
            for task, asked in by_task(snapshot).items():
                seen.setdefault(task, {}).update(asked)
            everything.update(names(snapshot["enis"][0]))
            return everything

        everything: Names = {}
        seen: dict[str, Names] = {}
        # Names are of the last second: they are asked for once more until each was seen in one.
        sent = {("orders", "db.lab.test", "A"): 150, ("orders", "db.lab.test", "AAAA"): 70,
                ("mail", "db.lab.test", "A"): 40, ("mail", "smtp.lab.test", "TXT"): 31,
                ("", "host.lab.test", "A"): 9}  # fmt: skip
        senders: dict[str, Container | Lab] = {"orders": orders, "mail": mail, "": lab}

        def seen_all(who: str, name: str, kind: str) -> bool:
            """Its own row, or the ENI's, has every query of it."""
            told()
            rows = seen.get(who, {}) if who else everything
            return rows.get((name, kind)) == sent[who, name, kind]

        for who, name, kind in sent:
            for _ in range(10):
                senders[who].send(*send, "--name", name, "--type", kind)
                sent[who, name, kind] += 1
                if until(lambda: seen_all(who, name, kind), timeout=3):  # noqa: B023
                    break
            else:
                pytest.fail(f"{who}, {name} {kind}: {seen}")
        agent.settled(packets=sum(sent.values()))

        rows = {who: {(name, kind): queries for (each, name, kind), queries in sent.items()
                      if each == who} for who in ("orders", "mail")}  # fmt: skip
        assert {who: seen[who] for who in rows} == rows
        totals = Counter[tuple[str, str]]()
        for (_, name, kind), queries in sent.items():
            totals[name, kind] += queries
        assert {key: everything[key] for key in totals} == totals
        assert agent.total("eni53_agent_kernel_events_total", event="asked_full") == 0


def test_a_screen_says_what_is_asked_for(lab: Lab, tasks: tuple[Container, Container]) -> None:
    """`top --once` beside a load; a hostile name is written out."""
    orders, _ = tasks
    with Agent(lab) as agent:
        load = orders.start_send("udp", "--to", RESOLVER, "--rate", "50", "--count", "3000",
                                 "--name", "\x1b[31mred.lab.test")  # fmt: skip
        shown: list[str] = []

        def asked() -> bool:
            shown.append(agent.run("top", "--once").stdout)
            return "red.lab.test A" in shown[-1]

        assert until(asked), shown[-1]
        load.terminate()
        load.communicate()
        assert r"\027\09131mred.lab.test A" in shown[-1]
        assert "\x1b" not in shown[-1]
        assert [line for line in shown[-1].splitlines() if len(line) > 80] == []


def test_names_can_be_left_uncounted(lab: Lab, tasks: tuple[Container, Container]) -> None:
    """[names] enabled = false: every packet is counted, and no name is anywhere."""
    orders, _ = tasks
    with Agent(lab, env={"ENI53_NAMES_ENABLED": "false"}) as agent:
        orders.send("udp", "--to", RESOLVER, "--count", "60", "--name", "secret.lab.test")
        text = json.dumps(agent.settled(packets=60))

        assert "secret" not in text
        assert agent.total("eni53_eni_packets_total", **{"class": "resolver"}) == 60


def test_a_one_shot_has_the_names_of_its_whole_time(
    lab: Lab, tasks: tuple[Container, Container]
) -> None:
    """No agent: names and rates cover all the seconds it measured."""
    orders, _ = tasks
    with Agent(lab) as agent:  # for its flags only
        agent.stop()
        # It ends within the look: the kernel's tables are read one after the other.
        load = orders.start_send("udp", "--to", RESOLVER, "--rate", "40", "--count", "300",
                                 "--name", "db.lab.test")  # fmt: skip
        done = agent.run("top", "--json", "--seconds", "11")
        load.communicate()
    snapshot = json.loads(done.stdout)
    [eni] = snapshot["enis"]

    assert names(eni)["db.lab.test", "A"] == eni["classes"]["resolver"]["packets"] > 80
    [rate] = [name["pps"] for name in eni["names"] if name["name"] == "db.lab.test"]
    assert rate == pytest.approx(eni["classes"]["resolver"]["pps"], rel=0.01)


def test_a_few_names_are_metrics(lab: Lab, tasks: tuple[Container, Container]) -> None:
    """Those that were chosen, every query since the start, whoever asked; no other name is one."""
    orders, mail = tasks
    send = ("udp", "--to", RESOLVER, "--rate", "300")
    with Agent(lab, env={"ENI53_NAMES_EXPORT": "DB.Lab.Test.,never.lab.test"}) as agent:
        for round_ in (1, 2):
            orders.send(*send, "--count", "130", "--name", "Db.lab.test")
            mail.send(*send, "--count", "60", "--name", "db.lab.test", "--type", "AAAA")
            mail.send(*send, "--count", "60", "--name", "x{n}.lab.test")
            assert until(lambda n=round_: agent.total(METRIC) >= 190 * n)  # type: ignore[misc]
            for kind, queries in (("A", 130), ("AAAA", 60)):
                assert agent.total(METRIC, name="db.lab.test", type=kind) == queries * round_
        time.sleep(1.5)  # another tick, in which nothing may come
        assert agent.total(METRIC) == 380
